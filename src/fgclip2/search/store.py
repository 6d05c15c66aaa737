"""An index on disk: a manifest in JSON and the vectors as safetensors, replaced as one."""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..errors import IncompatibleIndexError
from ..files import replacing

FORMAT = 1
MANIFEST = "manifest.json"
# What a run that was killed may leave behind; release 0.1 called its unfinished manifests .tmp.
_OWN_FILES = re.compile(
    r"vectors-[0-9a-f]{16}\.safetensors|\.manifest\.json\.[0-9a-f]{8}\.partial|manifest\.json\.[0-9a-f]{8}\.tmp"
)


def write_index(folder: Path, manifest: dict[str, Any], vectors: np.ndarray) -> None:
    """Replace the index in `folder`. Whatever happens in between, the old or the new one can be read.

    Args:
        folder: Made if it is missing.
        manifest: See [`ImageIndex`]; its `files` are in the order of the vectors.
        vectors: Float32 (files, D).

    Raises:
        IncompatibleIndexError: The folder has a manifest of something else.
    """
    refuse_foreign_manifest(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"vectors-{secrets.token_hex(8)}.safetensors"
    save_file({"vectors": np.ascontiguousarray(vectors)}, folder / name)
    manifest = {"format": FORMAT, "vectors": name, **manifest}
    with (
        replacing(folder / MANIFEST) as unfinished,  # only once it is replaced does the new index count
        unfinished.open("w", encoding="utf-8", errors="surrogateescape") as file,  # file names need not be UTF-8
    ):
        json.dump(manifest, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for stale in folder.iterdir():
        if stale.name != name and _OWN_FILES.fullmatch(stale.name):
            stale.unlink(missing_ok=True)


def refuse_foreign_manifest(folder: Path) -> None:
    """Raise [`IncompatibleIndexError`] if `folder` has a manifest that is not of an index; a damaged one may be."""
    path = folder / MANIFEST
    if not path.is_file():
        return
    try:
        manifest = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except ValueError:
        return
    if not isinstance(manifest, dict) or not {"format", "vectors"} <= manifest.keys():
        raise IncompatibleIndexError(f"{path} is not of an index of fgclip2: choose another folder for the index")


def read_index(folder: Path) -> tuple[dict[str, Any], np.ndarray] | None:
    """Read manifest and vectors; `None` where there is no index.

    Raises:
        IncompatibleIndexError: The index is damaged, names files outside its folder, or has another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    refuse_foreign_manifest(folder)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        if manifest["format"] != FORMAT:
            raise IncompatibleIndexError(
                f"{path} has format {manifest['format']}, this release reads {FORMAT}: update fgclip2, or rebuild it"
            )
        for file_path, _size, _mtime in manifest["files"]:
            _check_inside(file_path)
        vectors = load_file(folder / _check_inside(manifest["vectors"]))["vectors"]
        if vectors.shape != (len(manifest["files"]), manifest["model"]["embedding_size"]):
            raise ValueError(f"{len(manifest['files'])} files, but vectors of shape {vectors.shape}")
    except IncompatibleIndexError:
        raise
    except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise IncompatibleIndexError(f"{path} is damaged ({error}): rebuild the index") from error
    return manifest, vectors.astype(np.float32, copy=False)


def _check_inside(path: str) -> str:
    """Refuse paths that lead out of the folder: an index may come from someone else."""
    parsed = PurePath(path)  # of this system: elsewhere a colon or a backslash is part of a name
    if parsed.anchor or ".." in parsed.parts:
        raise ValueError(f"it names {path!r}, which is outside its folder")
    return path
