"""Run the service: one process or several, which end when they have answered what they accepted."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h11
import torch
import uvicorn
from PIL import Image
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from ..embedding import Embedder
from ..search import ImageIndex
from .app import create_app
from .engine import Engine
from .gate import Gate
from .keys import read_keys
from .limits import Limits
from .metrics import FOLDER_VARIABLE

logger = logging.getLogger(__name__)

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
SECONDS_FOR_A_HEAD = 10.0
SECONDS_TO_TAKE_ANSWERS = 30.0  # until a client that takes nothing of what is buffered for it is cut off
SECONDS_FOR_A_SIGN_OF_LIFE = 60  # of a worker, then it is replaced; one that is killed as it is asked takes as long
LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"}},
    "loggers": {name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in ("uvicorn", "fgclip2")},
}


@dataclass(frozen=True)
class ServiceSettings:
    """What a service is made of; it travels to the processes of the workers.

    Args:
        host, port: Where it listens. Without API keys, `host` must be local unless `without_keys` says otherwise.
        workers: Processes, each with a model of its own.
        model, device, backend, precision: As in [`Embedder.from_pretrained`].
        name: What clients call the model; `None`: the checkpoint's name, of a folder the last part.
        calibration: File of a [`Calibration`], for probabilities; `None`: the one beside the checkpoint.
        max_num_patches, batch_size: As in [`Engine`].
        threads: How many batches a worker computes at a time; they share its cores.
        folder: The folder of images whose index is searched; `None`: there is no search.
        index_folder: Where that index is, if not inside the folder.
        prefixes: Below these addresses images are fetched; empty: none are.
        keys_file: File of API keys; `None`: those in the environment variable `FGCLIP2_API_KEYS`.
        without_keys: Answer everyone who can reach the service.
        limits: What a request may ask for.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    model: str | None = None
    device: str | list[str] | None = None
    backend: Any = "torch"
    precision: str | None = None
    name: str | None = None
    calibration: Path | None = None
    max_num_patches: int | str | None = None
    batch_size: int = 32
    threads: int = 2
    folder: Path | None = None
    index_folder: Path | None = None
    prefixes: tuple[str, ...] = ()
    keys_file: Path | None = None
    without_keys: bool = False
    limits: Limits = field(default_factory=Limits)


class PromptClientsProtocol(H11Protocol):
    """HTTP/1.1 that closes connections whose clients send no head of a request, or take no answers.

    A new connection has `SECONDS_FOR_A_HEAD` until a whole head is there, one that was used before up to twice as many.
    uvicorn itself waits as long as a byte comes now and then, and for ever until answers are taken. The rest is bounded
    by the [`Gate`].
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cut_off: asyncio.TimerHandle | None = None
        self._expect_a_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._cut_off = self.loop.call_later(SECONDS_TO_TAKE_ANSWERS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._cut_off is not None:
            self._cut_off.cancel()

    def _expect_a_head(self, last: Any = None) -> None:
        if self.transport.is_closing():
            self.loop.call_later(SECONDS_TO_TAKE_ANSWERS, self.transport.abort)  # nothing, if it is closed by then
            return
        waits = self.conn.their_state is h11.IDLE
        if waits and last is not None and last == (self.cycle,):
            self.transport.close()
        # Closed at the second look that finds the connection waiting, and no request in between.
        self.loop.call_later(SECONDS_FOR_A_HEAD, self._expect_a_head, (self.cycle,) if waits else None)


def make_app(settings: ServiceSettings) -> Gate:
    """Load what a service needs, and return its ASGI application.

    Raises:
        ValueError, OSError, ImportError: The checkpoint, the index or the keys can't be used.
    """
    keys = read_keys(settings.keys_file)
    is_local = settings.host in ("127.0.0.1", "localhost", "::1")
    if not len(keys) and not is_local and not settings.without_keys:
        raise ValueError(
            f"listening on {settings.host} without API keys would let everyone in: set FGCLIP2_API_KEYS or "
            "--keys-file, or say --without-keys"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Before the model is loaded, and for all threads that begin later: graphs take as many threads as torch has then.
    torch.set_num_threads(max(1, cores // (settings.workers * settings.threads)))
    # Pillow refuses larger images by a limit of its own, whatever that of the service.
    Image.MAX_IMAGE_PIXELS = max(settings.limits.pixels, Image.MAX_IMAGE_PIXELS or settings.limits.pixels)
    index = None
    if settings.folder is not None:
        index = ImageIndex.load(settings.folder, settings.index_folder)
    embedder = Embedder.from_pretrained(
        settings.model, settings.device, backend=settings.backend, precision=settings.precision
    )
    if settings.calibration is not None:
        embedder.use_calibration(settings.calibration)
    if index is not None:
        index.search("a check of the index", embedder, 1)  # refuses an index of another model
    engine = Engine(
        embedder,
        settings.limits,
        settings.name or (Path(embedder.name).name if Path(embedder.name).is_dir() else embedder.name),
        index,
        settings.max_num_patches,
        settings.batch_size,
        settings.threads,
        settings.prefixes,
    )
    hosts = LOCAL_NAMES if is_local and not len(keys) and not settings.without_keys else ()
    return create_app(engine, keys, hosts)


def make_worker_app(settings: ServiceSettings) -> Gate:
    """Return [`make_app`] in the process of a worker; one that can't start tells its parent to give up."""
    _quieten()
    try:
        return make_app(settings)
    except (ValueError, OSError, ImportError) as error:
        logger.error("a worker can't start: %s", error)
        sys.exit(STARTUP_FAILURE)


def run_service(settings: ServiceSettings) -> None:
    """Run a service until it is told to end by SIGINT or SIGTERM, then answer what was accepted, and return.

    Raises:
        ValueError, OSError, ImportError: It can't start.
    """
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "workers": settings.workers,
        "http": PromptClientsProtocol,
        "ws": "none",
        "access_log": False,  # its lines have what clients write into addresses
        "server_header": False,
        "proxy_headers": False,
        "log_config": LOG,
        "limit_concurrency": settings.limits.connections,
        "timeout_graceful_shutdown": int(2 * settings.limits.seconds) + 1,
        "timeout_worker_healthcheck": SECONDS_FOR_A_SIGN_OF_LIFE,
    }
    if settings.workers == 1:
        _quieten()
        app = make_app(settings)  # here, so that what is wrong is said before anything listens
        uvicorn.Server(uvicorn.Config(app, **options)).run()
        return
    config = uvicorn.Config(partial(make_worker_app, settings), factory=True, **options)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER_VARIABLE] = folder
        supervisor = Multiprocess(config, [config.bind_socket()])
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise ValueError("the workers could not start: the lines above say why")


def _quieten() -> None:
    """Hide warnings of the package for its users: they quote queries, which no log of a service should have."""
    warnings.simplefilter("ignore", UserWarning)
