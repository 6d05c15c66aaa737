"""Vectors of a long run, kept in parts while it works, so that a run that was ended goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..files import replacing
from ..streams import chunks
from .backends.torch import Embedder
from .inputs import Skipped

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_SAVES = 10.0
TEXTS_PER_CALL = 1024  # what is lost at most between saves


class VectorParts:
    """Vectors by key, and the folder of parts that they are kept in: safetensors files that are whole or not there.

    Used as a context, it saves what is new when the work in it ends, however it does.

    Args:
        folder: Folder of the parts, made when there is something to keep; `None`: nothing is kept on disk.
        origin: What the vectors depend on besides their keys, as JSON. Parts of another origin are left alone.

    Attributes:
        rows: Key -> float32 (D,), those of an earlier run included.
    """

    def __init__(self, folder: Path | None, origin: dict[str, Any]):
        self.folder = folder
        self._prefix = f"part-{hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:16]}-"
        self._unsaved: list[str] = []
        self._next_save = time.monotonic() + SECONDS_BETWEEN_SAVES
        self.rows: dict[str, np.ndarray] = {}
        for path in self._own_files():
            self.rows |= _read_part(path)

    def add(self, key: str, vector: np.ndarray) -> None:
        """Take the vector of a key, and save now and then."""
        self.rows[key] = vector
        self._unsaved.append(key)
        if time.monotonic() >= self._next_save:
            self.save()

    def save(self) -> None:
        """Write what is not on disk yet, as one more part."""
        if self.folder is not None and self._unsaved:
            self.folder.mkdir(exist_ok=True)
            vectors = np.stack([self.rows[key] for key in self._unsaved])
            keys = json.dumps(self._unsaved)
            with replacing(self.folder / f"{self._prefix}{secrets.token_hex(8)}.safetensors") as unfinished:
                save_file({"vectors": vectors}, unfinished, {"keys": keys, "sha256": _digest(keys, vectors)})
        self._unsaved = []
        self._next_save = time.monotonic() + SECONDS_BETWEEN_SAVES

    def remove(self) -> None:
        """Remove the parts of this origin, and the folder if nothing else is in it."""
        for path in self._own_files():
            path.unlink(missing_ok=True)
        if self.folder is not None and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _own_files(self) -> list[Path]:
        return [] if self.folder is None else sorted(self.folder.glob(f"{self._prefix}*.safetensors"))

    def __enter__(self) -> VectorParts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.save()


def file_key(path: Path) -> str:
    """Return what tells a file from others, and from itself after a change."""
    try:
        status = path.stat()
    except OSError:  # whoever reads it says what is wrong
        return str(path)
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def text_key(text: str) -> str:
    """Return what tells a text from others, however long it is."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def add_images(
    parts: VectorParts,
    files: Mapping[str, Path],
    embedder: Embedder,
    max_num_patches: int | str | None,
    batch_size: int,
    on_error: str,
) -> dict[str, str]:
    """Embed the images that are not there yet.

    Args:
        parts: Takes the vectors.
        files: Key -> image file.
        embedder, max_num_patches, batch_size, on_error: See [`Embedder.stream_images`].

    Returns:
        Key -> why the image was left out, with `on_error="skip"`.
    """
    missing = [key for key in files if key not in parts.rows]
    reasons = {}
    paths = [files[key] for key in missing]
    for index, result in embedder.stream_images(paths, max_num_patches, batch_size, on_error=on_error):
        if isinstance(result, Skipped):
            reasons[missing[index]] = result.reason.removeprefix(f"images[{index}]: ")
        else:
            parts.add(missing[index], result)
    return reasons


def add_texts(parts: VectorParts, texts: Iterable[str], embedder: Embedder, role: Any, batch_size: int) -> None:
    """Embed the texts that are not there yet, under their [`text_key`]. See [`Embedder.encode_texts`]."""
    missing = [text for text in dict.fromkeys(texts) if text_key(text) not in parts.rows]
    for chunk in chunks(missing, TEXTS_PER_CALL, len(missing), None, "text"):
        vectors = embedder.encode_texts(chunk, role=role, batch_size=batch_size, show_progress_bar=False)
        for text, vector in zip(chunk, vectors, strict=True):
            parts.add(text_key(text), vector)


def _read_part(path: Path) -> dict[str, np.ndarray]:
    """Return the vectors of a part by their keys; none if it is damaged, which costs only their work."""
    try:
        with safe_open(path, "np") as file:
            metadata, vectors = file.metadata(), file.get_tensor("vectors")
        if metadata["sha256"] != _digest(metadata["keys"], vectors):
            raise ValueError("the content does not fit its digest")
        return dict(zip(json.loads(metadata["keys"]), vectors, strict=True))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s is damaged (%s): its vectors are made again", path, error)
        return {}


def _digest(keys: str, vectors: np.ndarray) -> str:
    digest = hashlib.sha256(f"{vectors.dtype} {vectors.shape} {keys}".encode())
    digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()
