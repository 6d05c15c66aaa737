"""Steps that all writers of checkpoint folders share."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..files import read_json
from ..modeling.auto import Family
from ..modeling.weights import differences, shapes_of

Tensor = TypeVar("Tensor")


def update_json(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file."""
    content = {**read_json(path), **fields}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def needed_tensors(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Leave out tensors that loading a model of the family ignores, such as scales that only training has."""
    ignored = family.model._keys_to_ignore_on_load_unexpected
    return {name: value for name, value in tensors.items() if not any(re.search(key, name) for key in ignored)}


def check_shapes(actual: Mapping[str, tuple[int, ...]], family: Family, config: Any, source: str, remedy: str) -> None:
    """Compare the tensors of a checkpoint with those that its configuration asks for.

    Raises:
        ValueError: One is missing, unknown or of another shape; the message names `source`, the first few such
            tensors and the `remedy`.
    """
    wrong = differences(needed_tensors(actual, family), shapes_of(lambda: family.model(config)))
    if wrong:
        raise ValueError(
            f"{source} has {len(wrong)} tensors that don't fit its config: {'; '.join(wrong[:3])}. {remedy}"
        )
