"""A service over the embedded checkpoint and an index of six drawings; don't change what a session shares."""

import base64
import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from fgclip2 import Embedder
from fgclip2.assets import demo_images
from fgclip2.search import ImageIndex
from fgclip2.serving.app import create_app
from fgclip2.serving.engine import Engine
from fgclip2.serving.keys import ApiKeys
from fgclip2.serving.limits import Limits
from fgclip2.serving.server import PromptClientsProtocol

DRAWINGS = ("dog-face-noto", "red-apple-twemoji", "bicycle-noto-v1", "cactus-twemoji", "bus-twemoji", "bread-twemoji")


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder.from_pretrained(device="cpu")


@pytest.fixture(scope="session")
def drawings(tmp_path_factory) -> Path:
    """A folder of drawings: `狗.webp` in `动物/`, the others by their English names."""
    folder = tmp_path_factory.mktemp("drawings")
    for name in DRAWINGS:
        shutil.copy(demo_images() / "pictures" / f"{name}.webp", folder)
    (folder / "动物").mkdir()
    (folder / "dog-face-noto.webp").rename(folder / "动物" / "狗.webp")
    return folder


@pytest.fixture(scope="session")
def index(drawings, embedder) -> ImageIndex:
    return ImageIndex.build(drawings, embedder)


@pytest.fixture(scope="session")
def dog(drawings) -> bytes:
    return (drawings / "动物" / "狗.webp").read_bytes()


@pytest.fixture
def make_client(embedder, index) -> Iterator[Callable[..., TestClient]]:
    """Makes a client of a service with these limits, keys, hosts and threads."""
    with contextlib.ExitStack() as stack:

        def make(
            keys: tuple[str, ...] = (), hosts: tuple[str, ...] = (), threads: int = 2, **limits: Any
        ) -> TestClient:
            pixels = embedder.max_pixels
            engine = Engine(embedder, Limits(**limits), "tiny", index, threads=threads)
            stack.callback(setattr, embedder, "max_pixels", pixels)
            app = create_app(engine, ApiKeys(list(keys)), hosts)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield make


@pytest.fixture
def client(make_client) -> TestClient:
    return make_client()


@contextlib.contextmanager
def listening(app: Any, **options: Any) -> Iterator[int]:
    """Serve an application from a thread of this process; yields the port."""
    options = {"http": PromptClientsProtocol, "ws": "none", "log_config": None, "access_log": False, **options}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()


def code_of(answer: Any) -> tuple[int, str]:
    """The status of a refusal, and its code."""
    return answer.status_code, answer.json()["error"]["code"]
