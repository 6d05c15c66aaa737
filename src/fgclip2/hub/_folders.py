"""What writing checkpoint folders has in common."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..modeling.configuration_fgclip2 import FGClip2Config
from ..modeling.modeling_fgclip2 import FGClip2Model

# Log-scales of the region losses: a training checkpoint has them, a model to use does not need them.
TRAINING_SCALES = {"logit_scale_finegraind", "logit_scale_hardneg"}


@contextmanager
def new_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder that takes the name `folder` at the end; if the work on it fails, nothing is left of it.

    Raises:
        ValueError: `folder` is a file, or has something in it.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder; choose a new name, or remove it first")
    # Beside its final place, because only within one file system is a rename all or nothing.
    staging = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex[:8]}")
    staging.mkdir(parents=True)
    try:
        yield staging
        if folder.exists():
            folder.rmdir()  # an empty one: Windows does not rename over it
        staging.replace(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: The file is missing or not a JSON object; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: {path.parent} is no checkpoint folder") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object")
    return content


def update_json(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file."""
    content = {**read_json(path), **fields}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def expected_shapes(config: FGClip2Config) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a model with this configuration; nothing is allocated."""
    with torch.device("meta"):
        model = FGClip2Model(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_shapes(actual: dict[str, tuple[int, ...]], config: FGClip2Config, source: str, remedy: str) -> None:
    """Compare the tensors of a checkpoint with those that its configuration asks for.

    Raises:
        ValueError: One is missing, unknown or of another shape; the message names `source`, the first few such
            tensors and the `remedy`.
    """
    expected = expected_shapes(config)
    actual = {name: shape for name, shape in actual.items() if name not in TRAINING_SCALES}
    wrong = [
        f"{name}: {actual.get(name, 'missing')}, expected {expected.get(name, 'no such tensor')}"
        for name in sorted(expected.keys() | actual.keys())
        if actual.get(name) != expected.get(name)
    ]
    if wrong:
        raise ValueError(
            f"{source} has {len(wrong)} tensors that don't fit its config: {'; '.join(wrong[:3])}. {remedy}"
        )
