"""A server on this machine that answers uploads as the hub does, keeps what it was sent, and hands it out again."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0" * 40


@dataclass
class Received:
    """What the server was sent."""

    endpoint: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    authorizations: set[str] = field(default_factory=set)
    paths: list[str] = field(default_factory=list)


@contextmanager
def stand_in() -> Iterator[Received]:
    """Run the server while the block does; it takes every file as a part of the commit, none by LFS."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET(with_content=False)

        def do_GET(self, with_content: bool = True) -> None:
            received.paths.append(self.path)
            path = unquote(self.path)
            headers = {"X-Repo-Commit": COMMIT, "Content-Type": "application/octet-stream"}
            if path.startswith("/api/models/") and "/tree/" in path:
                files = received.files.items()
                entries = [
                    {"type": "file", "path": name, "size": len(content), "oid": "0" * 40} for name, content in files
                ]
                content = json.dumps(entries).encode()
            elif path.startswith("/api/models/"):
                siblings = [{"rfilename": name} for name in sorted(received.files)]
                content = json.dumps({"id": "acme/tiny", "sha": COMMIT, "siblings": siblings}).encode()
            elif (name := path.partition("/resolve/")[2].partition("/")[2]) in received.files:
                content = received.files[name]
                headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            for header, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(header, value)
            self.end_headers()
            if with_content:
                self.wfile.write(content)

        def do_POST(self) -> None:  # the library finds it by this name
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.paths.append(self.path)
            received.authorizations.add(self.headers.get("Authorization", ""))
            if self.path == "/api/repos/create":
                received.created.append(json.loads(body))
                answer: dict[str, Any] = {"url": f"{received.endpoint}/acme/tiny"}
            elif self.path == "/api/validate-yaml":
                answer = {"errors": [], "warnings": []}
            elif "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                answer = {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        received.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                answer = {"commitUrl": f"{received.endpoint}/acme/tiny/commit/{COMMIT}", "commitOid": COMMIT}
            else:
                self.send_error(404)
                return
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
