"""Gate: what stands before every endpoint. Keys, hosts, bodies, time, and the log, which has nothing of a content."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import Collection
from typing import Any
from uuid import uuid4

from .errors import ServiceError
from .held import HeldBytes, hold
from .keys import ApiKeys
from .limits import Limits
from .metrics import Metrics

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/health", "/ready", "/openapi.json")  # which need no key
CLIENT_HAS_GONE = 499  # in logs and metrics, as other servers have it


class ClientHasGoneError(Exception):
    """The client closed the connection before it had its answer."""


class Gate:
    """An ASGI application around another one.

    A body is read whole, within its limits of size and time, before the endpoint sees anything of it. Work whose client
    has gone is given up.

    Args:
        app: What answers.
        limits: What a request may take.
        keys: The API keys; with none, everyone is answered.
        hosts: The names under which the service may be called; empty: any. Pages in a browser on the same machine can't
            get around this by a name of theirs that leads here.
        metrics: Counts answers.
        paths: The paths of the endpoints; logs and metrics have no others, for a client may write anything there.
    """

    def __init__(
        self,
        app: Any,
        limits: Limits,
        keys: ApiKeys,
        hosts: Collection[str],
        metrics: Metrics,
        paths: Collection[str],
    ):
        self._app = app
        self._limits = limits
        self._keys = keys
        self._hosts = hosts
        self._metrics = metrics
        self._paths = paths
        self._held = HeldBytes(limits.held_bytes, metrics)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; the events of the application's life pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, start = uuid4().hex[:12], time.monotonic()
        status = 0

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request.encode())]
            await send(message)

        try:
            await self._answer(scope, receive, noting)
        except ServiceError as error:
            if not status:  # else a part of another answer is on its way, and the server closes the connection
                await send_error(error, noting)
        except ClientHasGoneError:
            status = CLIENT_HAS_GONE
        except Exception as error:
            # Not the message, which may quote a text.
            frames = "".join(traceback.format_tb(error.__traceback__))
            logger.error("request %s failed by %s\n%s", request, type(error).__name__, frames)
            if not status:
                await send_error(ServiceError(500, "internal_error", f"request {request} failed"), noting)
        finally:
            seconds = time.monotonic() - start
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(seconds)
            logger.info("request %s %s %s %d %.0f ms", request, scope["method"], path, status, 1000 * seconds)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        with self._held.request():
            try:
                self._check_caller(scope["path"], headers)
                body = await asyncio.wait_for(self._read(headers, receive), self._limits.seconds)
            except asyncio.TimeoutError as error:
                message = f"the body was not there after {self._limits.seconds:g} seconds"
                late = ServiceError(408, "body_timeout", message)
                late.closes = True
                raise late from error
            except ServiceError as error:
                error.closes = True  # else its client could keep the connection by sending the body byte by byte
                raise
            await self._run(scope, body, receive, send)

    def _check_caller(self, path: str, headers: dict[bytes, bytes]) -> None:
        """Refuse a request under another name than the service's, or without a key."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._hosts and name not in self._hosts:
            raise ServiceError(
                421, "host_not_known", f"without API keys, only {' or '.join(self._hosts)} may be called"
            )
        if len(self._keys) and path not in OPEN_PATHS and not self._keys.allow(headers.get(b"authorization", b"")):
            raise ServiceError(401, "key_not_known", "an API key is needed: Authorization: Bearer KEY")

    async def _read(self, headers: dict[bytes, bytes], receive: Any) -> bytes:
        """Return a body, whose bytes count as held."""
        too_large = ServiceError(
            413, "body_too_large", f"a body may have at most {self._limits.body_bytes} bytes: send less at once"
        )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self._limits.body_bytes:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientHasGoneError
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > self._limits.body_bytes:
                raise too_large
            hold(len(chunk))
            body += chunk
            if not message.get("more_body", False):
                return bytes(body)

    async def _run(self, scope: Any, body: bytes, receive: Any, send: Any) -> None:
        """Let the endpoint answer, until the time is up or the client goes."""
        is_body_sent = False
        gone = asyncio.ensure_future(receive())  # the client has nothing more to send

        async def replay() -> Any:
            nonlocal is_body_sent
            if is_body_sent:
                return await asyncio.shield(gone)
            is_body_sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        work = asyncio.ensure_future(self._app(scope, replay, send))
        try:
            await asyncio.wait({work, gone}, timeout=self._limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif gone.done():
                raise ClientHasGoneError
            else:
                message = f"there was no answer after {self._limits.seconds:g} seconds: ask for less, or later"
                raise ServiceError(504, "timed_out", message)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.wait({work, gone})


async def send_error(error: ServiceError, send: Any) -> None:
    """Send an error as an answer."""
    content = json.dumps(error.body).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **error.headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": content})
