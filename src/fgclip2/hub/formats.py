"""Formats of `fgclip2 export`: one function for each."""

from collections.abc import Callable
from pathlib import Path

from .export import export_checkpoint
from .onnx import export_onnx
from .publish import export_for_hub

# Each takes (model, processor, new folder) and writes the folder whole or not at all. Options of the command that a
# format has are further arguments of its function, by name.
FORMATS: dict[str, Callable[..., Path]] = {
    "transformers": export_checkpoint,
    "hub": export_for_hub,
    "onnx": export_onnx,
}
