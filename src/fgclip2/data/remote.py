"""Files at addresses that fsspec opens (`s3://…`, `https://…`), read again where a connection fails."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_WAITS = (0.5, 2.0, 8.0, 30.0)  # seconds before the second attempt, the third, and so on
_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ValueError, ImportError)


class RemoteFile:
    """A file at an address, open for reading. What fails is done again from where it was, on a new connection.

    Only as much of a binary file as `tarfile` asks for.

    Args:
        address: Address that fsspec opens, e.g. `s3://bucket/shards/000000.tar`.

    Raises:
        OSError: (from every method) It failed five times in half a minute and more, or there is no such file.
    """

    def __init__(self, address: str):
        self._address, self._position = address, 0
        self._file: Any = None  # none is open
        self.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, or all that is left."""
        return self._repeat(lambda file: file.read(size))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position and return it."""
        return self._repeat(lambda file: file.seek(offset, whence))

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def close(self) -> None:
        """End the connection."""
        if self._file is not None:
            self._file.close()

    def _repeat(self, action: Callable[[Any], Result]) -> Result:
        import fsspec

        for attempt in range(len(_WAITS) + 1):
            try:
                if self._file is None:
                    self._file = fsspec.open(self._address, "rb").open()
                    self._file.seek(self._position)
                result = action(self._file)
                self._position = self._file.tell()
                return result
            except _FINAL:
                raise
            except Exception as error:  # each kind of storage has errors of its own, not all of them OSErrors
                with suppress(Exception):  # the connection may be past closing, too
                    self.close()
                self._file = None
                reason = f"{type(error).__name__}: {error}"
                if attempt == len(_WAITS):
                    raise OSError(
                        f"{self._address}: {attempt + 1} attempts to read it failed, at last {reason}"
                    ) from error
                logger.warning("%s: reading it failed (%s); again in %g s", self._address, reason, _WAITS[attempt])
                time.sleep(_WAITS[attempt])
        raise AssertionError("the last attempt returns or raises")
