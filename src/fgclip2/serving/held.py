"""HeldBytes: what all requests keep in memory at a time, of their bodies and of images that are fetched for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import ServiceError
from .metrics import Metrics

SECONDS_UNTIL_BODIES_ARE_DONE = 1


class HeldBytes:
    """Bytes that requests hold, bounded for all of them together.

    Args:
        limit: Most bytes.
        metrics: Counts requests that are refused.
    """

    def __init__(self, limit: int, metrics: Metrics):
        self._limit = limit
        self._metrics = metrics
        self._held = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Give back at its end what [`hold`] counted in this block, and in tasks that were begun in it."""
        share = _Share(self)
        token = _SHARE.set(share)
        try:
            yield
        finally:
            _SHARE.reset(token)
            self._held -= share.bytes

    def _take(self, count: int) -> None:
        if self._held + count > self._limit:
            self._metrics.refused.inc()
            raise ServiceError(
                429,
                "bodies_full",
                "too many bytes of other requests are being worked on: try again later",
                retry_after=SECONDS_UNTIL_BODIES_ARE_DONE,
            )
        self._held += count


class _Share:
    """What one request holds."""

    def __init__(self, all_bytes: HeldBytes):
        self.all_bytes = all_bytes
        self.bytes = 0


_SHARE: ContextVar[_Share | None] = ContextVar("share", default=None)


def hold(count: int) -> None:
    """Count bytes for the request that is being worked on; outside of [`HeldBytes.request`] nothing is counted.

    Raises:
        ServiceError: All requests together would hold too much (429).
    """
    share = _SHARE.get()
    if share is not None:
        share.all_bytes._take(count)
        share.bytes += count
