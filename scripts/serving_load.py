"""Load `fgclip2 serve` with many clients of mixed work, beside one client that asks the same one by one.

    python -m scripts.serving_load --output docs/serving_load.md     # one client, then 32, for 60 seconds each

The service runs in a process of its own with the embedded checkpoint and the bundled drawings. Answers are compared: a
client gets among many what it got alone. Times are those of the clients, which have the same cores.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgclip2.assets import demo_images

SECONDS_TO_START = 180
THINGS = ("狗", "红苹果", "自行车", "仙人掌", "dog", "red apple", "bicycle", "cactus")
LONG = (
    "a drawing of {} on white, with a second one behind it, drawn as an icon for messages, in few bright colours, " * 4
)
SHARE_OF_POPULAR_TEXTS = 0.25


@dataclass
class Load:
    """Answers, refusals and losses that clients saw of a service; each request ends in one of the three."""

    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)  # request -> its answer
    refused: int = 0  # by 429
    lost: list[str] = field(default_factory=list)  # other statuses, broken connections, other answers than before
    cpu_seconds: float = 0.0  # of the service


def requests_of(client: int, pictures: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the mixed work of a client, always the same: (path, body)."""
    chance = random.Random(client)
    for number in itertools.count():
        thing = chance.choice(THINGS)
        text = thing if chance.random() < SHARE_OF_POPULAR_TEXTS else f"{thing} {client} {number}"
        picture = chance.choice(pictures)
        yield (
            ("/v1/embeddings", {"input": [text, f"{text}, 图"]}),
            ("/v1/embeddings", {"input": LONG.replace("{}", text)}),
            ("/v1/embeddings", {"input": {"image": picture}, "encoding_format": "base64"}),
            ("/v1/classify", {"images": [picture], "labels": [*THINGS], "top_k": 2}),
            ("/v1/regions", {"image": picture, "boxes": [[0, 0, 40, 40], [20, 20, 70, 70]], "labels": [*THINGS]}),
            ("/v1/search", {"query": text, "top_k": 5}),
        )[number % 6]


@contextlib.contextmanager
def service(drawings: Path, *arguments: str) -> Iterator[tuple[int, int]]:
    """Run the service on a folder that has an index; yields its port and its process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "fgclip2", "serve", "--folder", str(drawings), "--port", str(port), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            deadline = time.monotonic() + SECONDS_TO_START
            while True:
                with contextlib.suppress(OSError):
                    if ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), "/health", None)[0] == 200:
                        break
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"the service did not start:\n{log.read().decode()}")
                time.sleep(0.1)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def ask(connection: http.client.HTTPConnection, path: str, body: Any) -> tuple[int, Any]:
    """Return the status and the answer."""
    headers = {"Content-Type": "application/json"}
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def is_same(answer: Any, other: Any) -> bool:
    """Tell whether two answers are equal but for rounding: batches of other sizes round otherwise."""
    if isinstance(answer, dict):
        return answer.keys() == other.keys() and all(
            is_same(_vector(answer[key]) if key == "embedding" else answer[key],
                    _vector(other[key]) if key == "embedding" else other[key])
            for key in answer
        )  # fmt: skip
    if isinstance(answer, list):
        return len(answer) == len(other) and all(map(is_same, answer, other))
    return bool(np.isclose(answer, other, atol=1e-4)) if isinstance(answer, float) else answer == other


def _vector(embedding: Any) -> list[float]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), "<f4").tolist()
    return embedding


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process, on Linux."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, process: int, clients: list[int], seconds: float, pictures: list[str]) -> Load:
    """Let clients ask one request after another for some seconds, all at once."""
    result, turn = Load(), threading.Lock()
    end = time.monotonic() + seconds

    def run(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for path, body in requests_of(client, pictures):
            start = time.monotonic()
            if start > end:
                break
            try:
                status, answer = ask(connection, path, body)
            except (OSError, ValueError, http.client.HTTPException) as error:  # an answer may be no JSON
                status, answer = 0, repr(error)
                connection.close()
            with turn:
                if status == 200:
                    result.milliseconds.append(1000 * (time.monotonic() - start))
                    result.answers[json.dumps([path, body])] = answer
                elif status == 429:
                    result.refused += 1
                else:
                    result.lost.append(f"{path}: {status} {str(answer)[:200]}")
        connection.close()

    before, start = cpu_seconds(process), time.monotonic()
    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.seconds, result.cpu_seconds = time.monotonic() - start, cpu_seconds(process) - before
    return result


def measure(clients: int, seconds: float, *arguments: str) -> tuple[Load, Load]:
    """Return what one client saw, and then many, of which it is one: it gets the answers that it had alone."""
    with tempfile.TemporaryDirectory() as folder:
        drawings = Path(folder, "drawings")
        shutil.copytree(demo_images() / "pictures", drawings)
        command = [sys.executable, "-m", "fgclip2", "index", str(drawings)]
        subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True)
        pictures = [base64.b64encode(path.read_bytes()).decode() for path in sorted(drawings.glob("*.webp"))]
        with service(drawings, *arguments) as (port, process):
            load(port, process, [-1], 2, pictures)  # what is made once is made now
            one = load(port, process, [0], seconds, pictures)
            many = load(port, process, list(range(clients)), seconds, pictures)
    for request, answer in one.answers.items():
        if request in many.answers and not is_same(answer, many.answers[request]):
            many.lost.append(f"{request[:80]}: another answer than alone")
    return one, many


def row(name: str, result: Load) -> str:
    """Return a line of the table."""
    count = len(result.milliseconds)
    p50, p99 = np.percentile(result.milliseconds, [50, 99])
    return (
        f"| {name} | {count:,} | {count / result.seconds:.1f} | {p50:.0f} | {p99:.0f} | "
        f"{1000 * result.cpu_seconds / count:.0f} | {result.refused} | {len(result.lost)} |"
    )


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--output", type=Path)
    parser.add_argument("arguments", nargs="*", help="of the service, after --, e.g. -- --threads 1")
    options = parser.parse_args()
    one, many = measure(options.clients, options.seconds, *options.arguments)
    command = " ".join(["fgclip2 serve", "--folder drawings", *options.arguments])
    cores = len(os.sched_getaffinity(0))
    text = "\n".join(
        [
            "# The service under load",
            "",
            f"`{command}` with the embedded checkpoint and its 273 drawings, on {cores} CPU cores, which the clients "
            f"share. Written by `python -m scripts.serving_load`, {options.seconds:g} seconds each. "
            "The work is mixed: two short texts, a long one, an image, labels of an image, labels of two boxes, a "
            "search, in turn; a quarter of the texts are popular. Times are milliseconds.",
            "",
            "| clients | answers | answers/s | p50 | p99 | CPU per answer | refused | lost |",
            "|---|---|---|---|---|---|---|---|",
            row("1", one),
            row(str(options.clients), many),
            "",
        ]
    )
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    print(text)
    for line in [*many.lost, *one.lost][:10]:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
