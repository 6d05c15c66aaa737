"""Folders that the machine-learning service of immich, a server for photo libraries, reads as an OpenCLIP model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .._imports import require
from ..checks import check_choice
from ..files import new_folder
from .onnx import graphs
from .onnx.precisions import PRECISIONS
from .onnx.standalone import StandaloneGraphs, end_with, free_names, normalise, rename_values

ALLOWED_PRECISIONS = tuple(name for name, precision in PRECISIONS.items() if precision.for_images)


def export_immich(
    model: Any,
    processor: Any,
    folder: str | os.PathLike,
    precisions: Sequence[str] = ("fp32",),
    square_side: int | None = None,
) -> Path:
    """Write a checkpoint of FG-CLIP 2 as a folder that the machine-learning service of immich reads.

    Texts are captions of at most 64 tokens, images are squeezed into squares, vectors are L2-normalised. Immich itself
    has to know the name of the model and the length of its vectors.

    Args:
        model: An [`FGClip2Model`], in any dtype; it stays as it is.
        processor: Its processor, which scales pixels to the range from 0 to 1, as immich does.
        folder: Where to write; new or empty.
        precisions: One of `"fp32"`, `"fp16"`, `"int8"` (weights in 8 bit), for immich reads one file for each tower.
        square_side: Side in pixels of the squares; `None`: as many patches as the processor's budget (at most, for a
            square), and 256 where the budget is `"auto"`, as official checkpoints have it. Their vectors are others
            than those of images in their own shape: an index holds one kind of them.

    Returns:
        The folder.

    Raises:
        ImportError: The extra `onnx` is not installed.
        ValueError: `folder` has something in it, `model` or `processor` is not of FG-CLIP 2, a precision is unknown or
            not the only one, squares can't have this side, or the processor doesn't resize images or scales pixels
            otherwise.

    Example:
        >>> from fgclip2 import FGClip2Model, FGClip2Processor
        >>> from fgclip2.hub import export_immich
        >>> model, processor = FGClip2Model.from_pretrained(path), FGClip2Processor.from_pretrained(path)
        >>> export_immich(model, processor, "fgclip2-immich")
    """
    for precision in precisions:
        check_choice("precisions", precision, ALLOWED_PRECISIONS)
    if len(precisions) != 1:
        raise ValueError(f"precisions={list(precisions)}: immich reads one file for each tower, so give exactly one")
    (precision,) = precisions
    towers = StandaloneGraphs(model, processor, square_side, "immich")
    settings = settings_of(towers)
    integers = require("onnx", "onnx").TensorProto.INT32
    with new_folder(folder) as staging:
        # Name of the tower -> its graph, and the names of values in it that have to change.
        of_towers = {
            "textual": (towers.captions(precision, integers), {"input_ids": "text", "caption": "features"}),
            "visual": (towers.squares(precision), {"pixel_values": "image", "image": "features"}),
        }
        for tower, (graph_model, names) in of_towers.items():
            free_names(graph_model.graph, set(names.values()) - names.keys())
            rename_values(graph_model.graph, names)
            shape = [graphs.BATCH.__name__, model.embedding_size]
            end_with(graph_model.graph, normalise("features", "embedding"), {"embedding": shape})
            (staging / tower).mkdir()
            graphs.save(graph_model, staging / tower / "model.onnx", "model.data")
        processor.tokenizer.backend_tokenizer.save(str(staging / "textual" / "tokenizer.json"))
        for name, content in settings.items():
            text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
            (staging / name).write_text(text, encoding="utf-8")
    return Path(folder)


def settings_of(towers: StandaloneGraphs) -> dict[str, dict[str, Any]]:
    """Return by file name what immich reads beside graphs and vocabulary; names and values are those of OpenCLIP.

    Raises:
        ValueError: Images are not scaled to the range from 0 to 1, which immich does without asking.
    """
    images = towers.processor.image_processor
    mean, std = towers.mean_and_std()
    return {
        "config.json": {
            "embed_dim": towers.model.embedding_size,
            "vision_cfg": {"image_size": towers.side, "patch_size": images.patch_size},
            "text_cfg": {"context_length": towers.length, "vocab_size": len(towers.processor.tokenizer)},
        },
        "textual/tokenizer_config.json": {"pad_token": towers.processor.tokenizer.pad_token},
        "visual/preprocess_cfg.json": {
            "size": [towers.side, towers.side],
            "mode": "RGB",
            "mean": mean,
            "std": std,
            "interpolation": Image.Resampling(images.resample).name.lower(),
            "resize_mode": "squash",  # its default would cut off what sticks out of the square
        },
    }
