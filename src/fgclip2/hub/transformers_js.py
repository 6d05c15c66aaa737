"""Folders that transformers.js loads, in Node.js and in browsers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._imports import require
from ..checks import check_choice, one_of
from ..files import new_folder
from ..modeling.pixels import PIXEL_SETTINGS
from .onnx import graphs
from .onnx.folder import checkpoint_name
from .onnx.standalone import StandaloneGraphs, end_with, free_names, normalise, rename_values

# Names of precisions -> what transformers.js expects at the end of a file's name: of its dtypes fp32, fp16 and q8.
SUFFIXES = {"fp32": "", "fp16": "_fp16", "int8": "_quantized"}
_IMAGE_SETTINGS = ("do_resize", *PIXEL_SETTINGS)
_SPECIAL_TOKENS = ("pad_token", "eos_token", "bos_token", "unk_token")


def export_transformers_js(
    model: Any,
    processor: Any,
    folder: str | os.PathLike,
    precisions: Sequence[str] = ("fp32", "int8"),
    square_side: int | None = None,
) -> Path:
    """Write a checkpoint of FG-CLIP 2 as a folder that the JavaScript library transformers.js loads as a SigLIP.

    The pipeline `zero-shot-image-classification` reads `model.onnx`; `SiglipTextModel` and `SiglipVisionModel` read
    `text_model.onnx` and `vision_model.onnx`, whose output `pooler_output` is not normalised. Texts are captions of at
    most 64 tokens, images are squeezed into squares. Each graph has its weights beside it.

    Args:
        model: An [`FGClip2Model`], in any dtype; it stays as it is.
        processor: Its processor.
        folder: Where to write; new or empty.
        precisions: `"fp32"`, which Node.js loads by itself, `"fp16"`, and `"int8"`, which browsers load by themselves
            (weights in 8 bit; transformers.js calls it q8).
        square_side: Side in pixels of the squares; `None`: as many patches as the processor's budget (at most, for a
            square), and 256 where the budget is `"auto"`, as official checkpoints have it. Their vectors are others
            than those of images in their own shape: an index holds one kind of them.

    Returns:
        The folder.

    Raises:
        ImportError: The extra `onnx` is not installed.
        ValueError: `folder` has something in it, `model` or `processor` is not of FG-CLIP 2, a precision is unknown or
            none is given, squares can't have this side, or the processor doesn't resize images.

    Example:
        >>> from fgclip2 import FGClip2Model, FGClip2Processor
        >>> from fgclip2.hub import export_transformers_js
        >>> model, processor = FGClip2Model.from_pretrained(path), FGClip2Processor.from_pretrained(path)
        >>> export_transformers_js(model, processor, "fgclip2-js")
    """
    if not precisions:
        raise ValueError(f"precisions is empty: give {one_of(SUFFIXES)}")
    for precision in precisions:
        check_choice("precisions", precision, SUFFIXES)
    towers = StandaloneGraphs(model, processor, square_side, "transformers.js")
    with new_folder(folder) as staging:
        (staging / "onnx").mkdir()
        for precision in dict.fromkeys(precisions):
            for name, graph_model in graphs_of(towers, precision).items():
                path = staging / "onnx" / f"{name}{SUFFIXES[precision]}.onnx"
                graphs.save(graph_model, path, f"{path.name}_data")
        processor.tokenizer.backend_tokenizer.save(str(staging / "tokenizer.json"))
        for name, content in settings_of(towers).items():
            text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
            (staging / name).write_text(text, encoding="utf-8")
    return Path(folder)


def graphs_of(towers: StandaloneGraphs, precision: str) -> dict[str, Any]:
    """Return by file name, without its suffix, the graphs of texts, of images, and of both with their scores."""
    onnx = require("onnx", "onnx")
    texts = towers.captions(precision, onnx.TensorProto.INT64)
    images = towers.squares(precision)
    both = with_scores(texts, images, towers.model)
    for graph_model, features in ((texts, "caption"), (images, "image")):
        free_names(graph_model.graph, ["pooler_output"])
        rename_values(graph_model.graph, {features: "pooler_output"})
    return {"model": both, "text_model": texts, "vision_model": images}


def with_scores(texts: Any, images: Any, model: Any) -> Any:
    """Return one graph of both towers that ends in normalised vectors and the logits of each image and text."""
    onnx = require("onnx", "onnx")
    make_node, from_array = onnx.helper.make_node, onnx.numpy_helper.from_array
    both = type(texts)()
    both.CopyFrom(texts)
    graph = both.graph
    # The towers were traced apart, and have names in common.
    of_images = onnx.compose.add_prefix_graph(images.graph, "images/", rename_inputs=False, rename_outputs=False)
    graph.node.extend(of_images.node)
    graph.initializer.extend(of_images.initializer)
    graph.input.extend(of_images.input)
    for axis, inputs in zip(("texts", "images"), graph.input, strict=True):
        inputs.type.tensor_type.shape.dim[0].dim_param = axis
    scale, bias = model.get_score_scale_and_bias()
    for name, value in (("scores/scale", scale), ("scores/bias", bias)):
        graph.initializer.append(from_array(np.array(value, np.float32), name))
    scores = [
        *normalise("caption", "text_embeds"),
        *normalise("image", "image_embeds"),
        make_node("Transpose", ["text_embeds"], ["scores/columns"], name="scores/columns", perm=[1, 0]),
        make_node("MatMul", ["image_embeds", "scores/columns"], ["scores/cosines"], name="scores/cosines"),
        make_node("Mul", ["scores/cosines", "scores/scale"], ["scores/scaled"], name="scores/scaled"),
        make_node("Add", ["scores/scaled", "scores/bias"], ["logits_per_image"], name="logits_per_image"),
        make_node("Transpose", ["logits_per_image"], ["logits_per_text"], name="logits_per_text", perm=[1, 0]),
    ]
    outputs: dict[str, list[str | int]] = {
        "logits_per_image": ["images", "texts"],
        "logits_per_text": ["texts", "images"],
        "text_embeds": ["texts", model.embedding_size],
        "image_embeds": ["images", model.embedding_size],
    }
    end_with(graph, scores, outputs)
    return both


def settings_of(towers: StandaloneGraphs) -> dict[str, dict[str, Any]]:
    """Return by file name what transformers.js reads beside graphs and vocabulary."""
    model, tokenizer, image_processor = towers.model, towers.processor.tokenizer, towers.processor.image_processor
    named = {name: getattr(tokenizer, name) for name in _SPECIAL_TOKENS}
    return {
        "config.json": {
            # Of its families it is the one with an output per tower, padding to the full length and sigmoid scores.
            "model_type": "siglip",
            "architectures": ["SiglipModel"],
            "_name_or_path": checkpoint_name(model),
            "text_config": {"model_type": "siglip_text_model", "max_position_embeddings": towers.length},
            "vision_config": {"model_type": "siglip_vision_model", "image_size": towers.side},
            "transformers.js_config": {"use_external_data_format": True},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "GemmaTokenizer",
            "model_max_length": towers.length,
            "padding_side": "right",
            **{name: token for name, token in named.items() if token is not None},
        },
        "preprocessor_config.json": {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": towers.side, "width": towers.side},
            **{name: getattr(image_processor, name) for name in _IMAGE_SETTINGS},
        },
    }
