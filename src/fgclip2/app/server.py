"""The app as a server of this machine: both languages, and the browser led to its own."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._imports import require
from ..assets import demo_images
from ..embedding import Embedder
from ..files import printable
from ..languages import LANGUAGES, Language
from ..pages import FONTS
from .answers import Budget, budget_of
from .library import Library
from .rendering import STYLE

MAX_UPLOAD = "20mb"
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
TAGS = {"en": "en", "zh": "zh-CN"}  # of browsers
# Gradio's own texts follow the browser; here they follow the page.
HEAD = """<script>
for (const [name, value] of [["language", "{tag}"], ["languages", ["{tag}"]]])
  Object.defineProperty(navigator, name, {{ get: () => value }});
document.documentElement.lang = "{tag}";
</script>"""
PAGE_STYLE = """
header { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem; }
header h1 { font-size: 1.4rem; margin: .5rem 0; } header a.language { font-size: 1rem; white-space: nowrap; }
footer { display: none !important; }
#annotator [aria-label^="Rotate"] { display: none; }
.picture-field img { width: 100%; height: 100%; object-fit: contain; }
"""


@contextmanager
def private_scratch() -> Iterator[Path]:
    """Yield a folder that only this user reads and that goes with the app, and keep Gradio's files in it.

    Gradio and the libraries that it uses are kept from reporting that they are used.
    """
    with tempfile.TemporaryDirectory(prefix="fgclip2-app-") as folder:
        changed = {**QUIET, "GRADIO_TEMP_DIR": str(Path(folder, "gradio"))}
        former = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        try:
            yield Path(folder)
        finally:
            for name, value in former.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def make_library(
    folder: Path | None, index_folder: Path | None, embedder: Embedder, budget: Budget, scratch: Path
) -> Library:
    """Return what visitors search: a folder with the index that it has, or the bundled pictures, which are indexed now.

    Args:
        folder: What was indexed; `None`: the bundled pictures.
        index_folder: Where the index is; `None`: where `fgclip2 index` puts it.
        embedder: Embeds the bundled pictures.
        budget: Patch budget of the bundled pictures.
        scratch: Keeps the index of the bundled pictures.

    Raises:
        ValueError: There is no such folder.
        IncompatibleIndexError: The index is damaged.
    """
    if folder is None:
        library = Library(demo_images(), scratch / "index")
        library.build(embedder, budget_of(embedder, budget), lambda done, total: None)
        return library
    if not folder.exists():
        raise ValueError(f"{printable(folder)}: no such folder or file")
    library = Library(folder, index_folder)
    library.load()
    return library


def choose_language(accepted: str) -> Language:
    """Return the first language of a header `Accept-Language` that the interface has, else English."""
    for part in accepted.split(","):
        tag = part.partition(";")[0].strip().partition("-")[0].lower()
        for language in LANGUAGES:
            if tag == language:
                return language
    return "en"


def _in_address(host: str) -> str:
    """Return a host as it stands in the address of a page, where IPv6 has brackets."""
    return f"[{host}]" if ":" in host else host


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Return a socket that listens on IPv4 or, if the host is of that kind, IPv6, and the address of the page.

    Raises:
        OSError: The host is not one of this machine, or the port is taken.
    """
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    return listener, f"http://{_in_address(host)}:{listener.getsockname()[1]}/"


def is_local(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_app(embedder: Embedder, budget: Budget, library: Library, scratch: Path, host: str = "127.0.0.1") -> Any:
    """Return the app, for a server such as uvicorn: `/en/`, `/zh/`, and `/`, which leads to one of them.

    It makes no request itself, and gives out no files but bundled pictures, uploads and results.

    Args:
        embedder: Answers.
        budget: Patch budget of pictures; `None`: see [`answers.budget_of`].
        library: What is searched.
        scratch: The folder of [`private_scratch`].
        host: Where it is to listen. On this machine only, it answers no other name, which a page on the web could
            make, and visitors may build the index.
    """
    gr: Any = require("gradio", "app")
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import RedirectResponse

    from .interface import Session, build_page

    session = Session(embedder, budget_of(embedder, budget), library, scratch, may_build=is_local(host))
    app = FastAPI(openapi_url=None)
    if is_local(host):
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", _in_address(host)])

    def lead(request: Any) -> Any:
        return RedirectResponse(f"{choose_language(request.headers.get('accept-language', ''))}/")

    app.add_route("/", lead)

    theme = gr.themes.Default(font=["sans-serif"], font_mono=["monospace"])
    theme.font = FONTS
    for language in LANGUAGES:
        gr.mount_gradio_app(
            app,
            build_page(language, session),
            f"/{language}",
            server_name=host,
            theme=theme,
            css=STYLE + PAGE_STYLE,
            head=HEAD.format(tag=TAGS[language]),
            footer_links=[],
            run_history=False,
            allowed_paths=[str(demo_images())],  # of the examples
            max_file_size=MAX_UPLOAD,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
        )
    return app


def run_app(app: Any, listener: socket.socket) -> None:
    """Serve an app on a socket that listens already, until it is told to end."""
    import uvicorn

    # Pages hold a connection open to hear of results, which would keep the server from ending.
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run([listener])
