"""ONNX: a checkpoint as graphs for run times that know neither torch nor this package."""

from .folder import export_onnx
from .precisions import PRECISIONS

__all__ = ["PRECISIONS", "export_onnx"]
