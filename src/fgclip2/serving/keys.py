"""API keys: read from a file or the environment, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from pathlib import Path

VARIABLE = "FGCLIP2_API_KEYS"
KEY = re.compile("[!-~]{16,512}")  # printable ASCII, which is what a header can hold


class ApiKeys:
    """The keys that clients may show as `Authorization: Bearer KEY`; only their hashes are kept.

    Args:
        keys: The keys, each of 16 to 512 printable ASCII characters without spaces.

    Raises:
        ValueError: A key is too short or has other characters; the message has its number, not the key.
    """

    def __init__(self, keys: list[str]):
        for number, key in enumerate(keys, 1):
            if not KEY.fullmatch(key):
                raise ValueError(
                    f"API key {number} of {len(keys)} must be 16 to 512 printable ASCII characters without spaces, "
                    "e.g. the output of `openssl rand -hex 32`"
                )
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __len__(self) -> int:
        return len(self._digests)

    def allow(self, authorization: bytes) -> bool:
        """Return whether the value of an `Authorization` header has one of the keys.

        All keys are compared, as hashes, so that the time that it takes does not depend on how many characters agree.
        """
        scheme, _, key = authorization.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        found = sum(hmac.compare_digest(digest, known) for known in self._digests)
        return scheme.lower() == b"bearer" and found > 0


def read_keys(file: str | os.PathLike | None) -> ApiKeys:
    """Read the keys of a file, one on each line, or else of the environment variable `FGCLIP2_API_KEYS`, with commas.

    Empty lines and those that begin with `#` are left out.

    Raises:
        OSError: The file can't be read.
        ValueError: It is not UTF-8, has no key, or a key can't be one, see [`ApiKeys`].
    """
    if file is None:
        return ApiKeys([key.strip() for key in os.environ.get(VARIABLE, "").split(",") if key.strip()])
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be UTF-8 with one API key on each line") from error
    keys = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not keys:
        raise ValueError(f"{file} has no API key: write one on each line, e.g. the output of `openssl rand -hex 32`")
    return ApiKeys(keys)
