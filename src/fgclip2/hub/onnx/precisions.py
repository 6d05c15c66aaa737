"""Precisions of a graph: float32, float16, or 8 bit."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..._imports import require
from .graphs import matrix_products

BLOCK_SIZE = 32  # weights that share a scale


@dataclass(frozen=True)
class Precision:
    """A precision that graphs can have.

    Attributes:
        title: What it is, for people.
        dtype: Of the traced tower.
        token_table: NumPy's name of the dtype of the table of tokens; its rows become float32 before the graph.
        for_images: Whether images can have it.
        one_by_one: Whether texts must run alone: its products have one scale for the inputs of a whole batch.
    """

    title: str
    dtype: torch.dtype
    token_table: str
    for_images: bool = True
    one_by_one: bool = False


PRECISIONS = {
    "fp32": Precision("float32", torch.float32, "float32"),
    "fp16": Precision("float16, for accelerators", torch.float16, "float16"),
    "int8": Precision(
        "weights of matrix products in 8 bit, in blocks of 32; inputs of texts, too", torch.float32, "float16"
    ),
    "int8-fast": Precision(
        "matrix products of texts in 8 bit, weights and inputs, but for the values of attention",
        torch.float32,
        "float16",
        for_images=False,
        one_by_one=True,
    ),
}
NO_FAST_IMAGES = (
    "images have no precision 'int8-fast': with the inputs of all matrix products in 8 bit, the cosine to the vectors "
    "in float32 was as low as 0.25; use 'int8', which keeps the inputs of images in float32"
)


def quantise(graph_model: Any, precision: str, is_image: bool) -> Any:
    """Return a float32 graph with its weights in 8 bit, or any graph as it is where the precision has no 8 bit.

    Args:
        graph_model: Traced in the precision's dtype; it is used up.
        precision: A name in `PRECISIONS`.
        is_image: It takes images.

    Raises:
        ValueError: Images can't have this precision.
    """
    if is_image and not PRECISIONS[precision].for_images:
        raise ValueError(NO_FAST_IMAGES)
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    logging.disable(logging.WARNING)  # onnxruntime writes a line for each node
    try:
        if precision == "int8":
            return quantise_weights(graph_model, keep_inputs=is_image)
        if precision == "int8-fast":
            return quantise_weights_and_inputs(graph_model)
        return graph_model
    finally:  # onnxruntime sets the log of the whole process up on import
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)


def quantise_weights(graph_model: Any, keep_inputs: bool) -> Any:
    """Return a graph with the weights of its matrix products in 8 bit, a float32 scale for each block of them.

    Args:
        graph_model: In float32.
        keep_inputs: Multiply in float32. Else the kernel may round the inputs of a product to 8 bit, in blocks as well.
    """
    nbits = require("onnxruntime.quantization.matmul_nbits_quantizer", "onnx")
    products = matrix_products(graph_model)
    others = [node.name for node in graph_model.graph.node if node.op_type == "MatMul" and node.name not in products]
    # Rounded inputs (level 4) make texts faster by far. The patches of images lose by it, as low as a cosine of 0.995
    # where 0.998 is left without, which takes 1.3 times as long at base size.
    level = 0 if keep_inputs else 4
    settings = nbits.DefaultWeightOnlyQuantConfig(
        block_size=BLOCK_SIZE, is_symmetric=True, accuracy_level=level, bits=8
    )
    quantizer = nbits.MatMulNBitsQuantizer(graph_model, nodes_to_exclude=others, algo_config=settings)
    quantizer.process()
    return quantizer.model.model


def quantise_weights_and_inputs(graph_model: Any) -> Any:
    """Return a graph whose matrix products have weights and inputs in 8 bit, but for the values of attention."""
    quantization, onnx = require("onnxruntime.quantization", "onnx"), require("onnx", "onnx")
    # Of all layers, the values of attention lose most by it (a cosine of 0.998 by themselves, the others 0.999).
    chosen = [name for name in matrix_products(graph_model) if not name.endswith(".v_proj/MatMul")]
    with tempfile.TemporaryDirectory() as folder:  # it gives files alone
        # A name that no file of the working folder has, where it looks whether its data file exists.
        written = Path(folder) / f"{Path(folder).name}.onnx"
        quantization.quantize_dynamic(
            graph_model,
            written,
            nodes_to_quantize=chosen,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            # Signed weights overflow sums of 16 bit on CPUs without VNNI, which took cosines down to 0.986.
            weight_type=quantization.QuantType.QUInt8,
            use_external_data_format=True,
        )
        return onnx.load(written)
