"""The manifest of an exported folder: read, checked, and asked for the paths of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._fgclip2.files import read_json

MANIFEST = "fgclip2_onnx.json"
FORMAT = 1

_NUMBER, _NOTHING = (int, float), type(None)
_ANY = "*"  # at least one key, whatever it is called
# The keys that a manifest must have, and the types of their values.
_KEYS: dict[str, Any] = {
    "title": str,
    "name": str,
    "revision": (str, _NOTHING),
    "fingerprint": str,
    "weights_fingerprint": str,
    "embedding_size": int,
    "score": {"function": str, "scale": _NUMBER, "bias": _NUMBER, "region_scale": _NUMBER},
    "text": {
        "tokenizer": str,
        "python_lowercase": bool,
        "pad_id": int,
        "eos_id": int,
        "pad_to_length": bool,
        "needs_end_index": bool,
        "max_caption_tokens": int,
        "roles": {_ANY: {"output": str, "length": int, "positions": str}},
    },
    "image": {"kind": str, "patch_size": int},
    "precisions": {_ANY: {"token_table": str, "graphs": {_ANY: str}}},
    "files": {_ANY: {"bytes": int, "sha256": str}},
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest of a folder.

    Raises:
        OSError: There is none.
        ValueError: It is damaged or of another format; the message names the file and the key.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise OSError(
            f"{folder} has no {MANIFEST}, so it is no ONNX folder: make one with `fgclip2 export OUT --format onnx`"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise ValueError(f"{path} must have the format {FORMAT}, got {found!r:.80}: export it again")
    problem = _find_problem("", manifest, _KEYS)
    if problem:
        raise ValueError(f"{path} is damaged, {problem}: export it again")
    return manifest


def _find_problem(name: str, value: Any, wanted: Any) -> str | None:
    """Return what is wrong with a value, the name of its key first, or `None`."""
    if not isinstance(wanted, dict):
        return None if isinstance(value, wanted) else f"{name} has the value {value!r:.80}"
    if not isinstance(value, dict) or not value:
        return f"{name} has the value {value!r:.80}"
    keys = dict.fromkeys(value, wanted[_ANY]) if _ANY in wanted else wanted
    for key, of_key in keys.items():
        inner = f"{name}.{key}".lstrip(".")
        problem = _find_problem(inner, value[key], of_key) if key in value else f"{inner} is missing"
        if problem:
            return problem
    return None


def path_of(name: str, folder: Path, manifest: Mapping[str, Any]) -> Path:
    """Return the path of a file that the manifest of a folder names, as large as it was written.

    Links stay allowed: a folder in the cache of the hub is made of them.

    Raises:
        OSError: There is no such file.
        ValueError: The name leads out of the folder, or the file has another size.
    """
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{folder / MANIFEST} names the file {name!r}, which lies outside its folder")
    if not path.is_file():
        raise OSError(f"{path} is missing: export the folder again")
    expected = manifest["files"].get(name, {}).get("bytes")
    if expected is not None and path.stat().st_size != expected:
        raise ValueError(f"{path} has {path.stat().st_size} bytes instead of {expected}: export the folder again")
    return path
