"""Checkpoint folders for others: with their own code, from the official layout, on the hub."""

from .convert import convert_checkpoint
from .convert_r2d2 import convert_r2d2
from .export import export_checkpoint
from .immich import export_immich
from .onnx import export_onnx
from .publish import export_for_hub, publish
from .transformers_js import export_transformers_js
from .verify import verify_folder

__all__ = [
    "convert_checkpoint",
    "convert_r2d2",
    "export_checkpoint",
    "export_for_hub",
    "export_immich",
    "export_onnx",
    "export_transformers_js",
    "publish",
    "verify_folder",
]
