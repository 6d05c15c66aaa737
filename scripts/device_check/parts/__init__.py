"""The parts of the check, one module each, which has it as `PART`; the speeds of the sizes share one.

This file imports none of them: what they need may not be installed yet.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..records import Part

# Name of a part -> its module, and the name that the part has there.
PARTS: dict[str, tuple[str, str]] = {
    "parity": ("parity", "PART"),
    "attention": ("attention", "PART"),
    "compile": ("compiling", "PART"),
    "speed-base": ("speed", "BASE"),
    "speed-large": ("speed", "LARGE"),
    "speed-so400m": ("speed", "SO400M"),
    "loss": ("sigmoid_forms", "PART"),
    "step": ("training_step", "PART"),
    "loader": ("loader_share", "PART"),
    "service": ("service_batches", "PART"),
    "onnx": ("onnx_graphs", "PART"),
}


def load_part(name: str) -> Part:
    """Import a part."""
    module, attribute = PARTS[name]
    return getattr(import_module(f".{module}", __name__), attribute)
