"""Formats of `fgclip2 export`: a function for each, and the options that go with it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .export import export_checkpoint
from .immich import export_immich
from .onnx import export_onnx
from .publish import export_for_hub
from .transformers_js import export_transformers_js


@dataclass(frozen=True)
class Format:
    """A kind of folder that a checkpoint can be exported as.

    Attributes:
        write: Takes (model, processor, new folder) and, by name, the options; writes the folder whole or not at all,
            and returns it.
        options: Options of the command that go with this format, as `write` calls them.
        takes_calibration: Whether `write` takes the `calibration` of a checkpoint along; other programs read none.
    """

    write: Callable[..., Path]
    options: tuple[str, ...]
    takes_calibration: bool = False


CHECKPOINT = ("license", "base_model", "datasets", "results", "onnx")

FORMATS = {
    "transformers": Format(export_checkpoint, CHECKPOINT, True),
    "hub": Format(export_for_hub, (*CHECKPOINT, "push", "private"), True),
    "onnx": Format(export_onnx, ("precisions", "square_side", "compared_items"), True),
    "transformers.js": Format(export_transformers_js, ("precisions", "square_side")),
    "immich": Format(export_immich, ("precisions", "square_side")),
}
