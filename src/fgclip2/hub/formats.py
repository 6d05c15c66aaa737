"""Formats of `fgclip2 export`: one function for each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .export import export_checkpoint

# Each takes (model, processor, new folder) and writes the folder whole or not at all.
FORMATS: dict[str, Callable[[Any, Any, Path], Path]] = {
    "transformers": export_checkpoint,
}
