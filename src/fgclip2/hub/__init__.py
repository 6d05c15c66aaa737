"""Checkpoint folders for others: with their own code, from the official layout, on the hub."""

from .convert import convert_checkpoint
from .export import export_checkpoint
from .publish import publish

__all__ = ["convert_checkpoint", "export_checkpoint", "publish"]
