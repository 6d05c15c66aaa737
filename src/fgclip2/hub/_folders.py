"""Steps that all writers of checkpoint folders share."""

import json
from pathlib import Path
from typing import Any

import torch

from ..files import read_json
from ..modeling.configuration_fgclip2 import FGClip2Config
from ..modeling.modeling_fgclip2 import TRAINING_SCALES, FGClip2Model


def update_json(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file."""
    content = {**read_json(path), **fields}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def check_shapes(actual: dict[str, tuple[int, ...]], config: FGClip2Config, source: str, remedy: str) -> None:
    """Compare the tensors of a checkpoint with those that its configuration asks for.

    Raises:
        ValueError: One is missing, unknown or of another shape; the message names `source`, the first few such
            tensors and the `remedy`.
    """
    with torch.device("meta"):  # nothing is allocated
        model = FGClip2Model(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
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
