"""Steps that all writers of checkpoint folders share."""

import json
from pathlib import Path
from typing import Any

from ..files import read_json
from ..modeling.configuration_fgclip2 import FGClip2Config
from ..modeling.modeling_fgclip2 import TRAINING_SCALES, FGClip2Model
from ..modeling.weights import differences, shapes_of


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
    actual = {name: shape for name, shape in actual.items() if name not in TRAINING_SCALES}
    wrong = differences(actual, shapes_of(lambda: FGClip2Model(config)))
    if wrong:
        raise ValueError(
            f"{source} has {len(wrong)} tensors that don't fit its config: {'; '.join(wrong[:3])}. {remedy}"
        )
