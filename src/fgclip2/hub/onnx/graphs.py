"""The towers of a model as ONNX graphs: traced once for each tower, the other forms made from these by a few nodes."""

from __future__ import annotations

import ast
import copy
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from ..._imports import require
from ...modeling.interface import Role
from ...modeling.layers import key_padding_mask
from ...modeling.modeling_fgclip import FGClipModel
from ...modeling.modeling_fgclip2 import FGClip2Model

OPSET = 20  # the first with GELU as one node
IR_VERSION = 10  # of the same year; older run times refuse newer ones
BATCH, TOKENS, PATCHES = Dim("batch"), Dim("tokens"), Dim("patches")

# Tensors below this stay in the graph: shapes and scalars, which run times read before they open other files.
SMALLEST_EXTERNAL = 1024
# Offsets in data files, so that tensors can be memory-mapped: by pages where that wastes little.
SMALL_ALIGNMENT, PAGE = 64, 4096


class _Tower(nn.Module):
    """A tower whose inputs and outputs are float32 in whatever dtype its weights are.

    Attributes:
        inputs: Names of the graph's inputs, in order -> their dynamic axes.
        outputs: Names of the graph's outputs, in order.
    """

    inputs: Mapping[str, dict[int, Dim]]
    outputs: Sequence[str]
    # Output of the text tower for each role; an image tower has none.
    output_of_role: Mapping[Role, str]

    def example(self) -> tuple[Tensor, ...]:
        """Return inputs to trace with. No two of their axes are equal, nor is any 1, or they would be taken as one."""
        raise NotImplementedError


class FGClip2Texts(_Tower):
    """Texts of FG-CLIP 2 from their embedded tokens, through all heads: the body is the same for all roles."""

    inputs = {"inputs_embeds": {0: BATCH, 1: TOKENS}}
    outputs = ("caption", "long_caption", "region_phrase")
    output_of_role = {"caption": "caption", "long_caption": "long_caption", "region_phrase": "region_phrase"}

    def __init__(self, model: FGClip2Model):
        super().__init__()
        self.encoder, self.final_layer_norm = model.text_model.encoder, model.text_model.final_layer_norm
        self.caption_head = model.text_model.head
        self.long_caption_head, self.region_phrase_head = model.longtext_head, model.boxtext_head

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(2, 5, self.final_layer_norm.normalized_shape[0]),)

    def forward(self, inputs_embeds: Tensor) -> tuple[Tensor, ...]:
        hidden_states, _ = self.encoder(inputs_embeds.to(self.final_layer_norm.weight.dtype))  # (B, T, D)
        # As a sequence of one: a product of (B, D) would become another kind of node, which is not quantised.
        last = self.final_layer_norm(hidden_states[:, -1:])  # (B, 1, D)
        heads = (self.caption_head, self.long_caption_head, self.region_phrase_head)
        return tuple(head(last)[:, 0].float() for head in heads)


class FGClip2Images(_Tower):
    """Images of FG-CLIP 2 in patches, with the position grid made in the graph: whole, and patch by patch."""

    inputs = {
        "pixel_values": {0: BATCH, 1: PATCHES},
        "pixel_attention_mask": {0: BATCH, 1: PATCHES},
        "spatial_shapes": {0: BATCH},
    }
    outputs = ("image", "dense")

    def __init__(self, model: FGClip2Model):
        super().__init__()
        self.vision_model, self.dense_feature_head = model.vision_model, model.dense_feature_head

    def example(self) -> tuple[Tensor, ...]:
        length = self.vision_model.embeddings.patch_embedding.in_features
        shapes = torch.tensor([[3, 4], [4, 3]])
        return torch.zeros(2, 12, length), torch.ones(2, 12, dtype=torch.int64), shapes

    def forward(self, pixel_values: Tensor, pixel_attention_mask: Tensor, spatial_shapes: Tensor) -> tuple[Tensor, ...]:
        outputs = self.vision_model(pixel_values, pixel_attention_mask, spatial_shapes)
        mask = key_padding_mask(pixel_attention_mask, self.vision_model.config._attn_implementation)
        return outputs.pooler_output.float(), self.dense_feature_head(outputs.last_hidden_state, mask).float()


class FGClipTexts(_Tower):
    """Texts of FG-CLIP from their embedded tokens and the positions of their end tokens, through both heads."""

    inputs = {"inputs_embeds": {0: BATCH, 1: TOKENS}, "end_index": {0: BATCH}}
    outputs = ("caption", "long_caption")
    output_of_role = {"caption": "caption", "long_caption": "long_caption", "region_phrase": "caption"}

    def __init__(self, model: FGClipModel):
        super().__init__()
        self.encoder, self.final_layer_norm = model.text_model.encoder, model.text_model.final_layer_norm
        self.caption_head, self.long_caption_head = model.text_projection, model.text_filip_projection

    def example(self) -> tuple[Tensor, ...]:
        return torch.zeros(2, 5, self.final_layer_norm.normalized_shape[0]), torch.tensor([3, 4])

    def forward(self, inputs_embeds: Tensor, end_index: Tensor) -> tuple[Tensor, ...]:
        hidden_states, _ = self.encoder(inputs_embeds.to(self.final_layer_norm.weight.dtype))  # (B, T, D)
        end_index = end_index[:, None, None].expand(-1, 1, hidden_states.shape[2])
        end = self.final_layer_norm(hidden_states.gather(1, end_index))  # (B, 1, D)
        return tuple(head(end)[:, 0].float() for head in (self.caption_head, self.long_caption_head))


class FGClipImages(_Tower):
    """Images of FG-CLIP, squares of one size: whole, and patch by patch."""

    inputs = {"pixel_values": {0: BATCH}}
    outputs = ("image", "dense")

    def __init__(self, model: FGClipModel):
        super().__init__()
        self.vision_model, self.visual_projection = model.vision_model, model.visual_projection

    def example(self) -> tuple[Tensor, ...]:
        side = self.vision_model.config.image_size
        return (torch.zeros(2, 3, side, side),)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        tower = self.vision_model
        hidden_states = tower.pre_layrnorm(tower.embeddings(pixel_values))  # (B, 1 + N, D)
        for layer in tower.encoder.layers[:-1]:
            hidden_states = layer(hidden_states)
        # The two kinds of features part in the last layer.
        pooled = tower.post_layernorm(tower.encoder.layers[-1](hidden_states)[:, :1])  # (B, 1, D)
        dense = self.visual_projection(tower.finish_patches(hidden_states))  # (B, N, D)
        return self.visual_projection(pooled)[:, 0].float(), dense.float()


# Text tower and image tower of each family.
TOWERS: tuple[tuple[type[Any], type[Any], type[Any]], ...] = (
    (FGClip2Model, FGClip2Texts, FGClip2Images),
    (FGClipModel, FGClipTexts, FGClipImages),
)


def towers_of(model: Any) -> tuple[_Tower, _Tower]:
    """Return the text tower and the image tower of a model, ready to be traced; they share its weights.

    Raises:
        ValueError: There are no graphs of such a model.
    """
    for family, texts, images in TOWERS:
        if isinstance(model, family):
            return texts(model), images(model)
    known = ", ".join(family.__name__ for family, _, _ in TOWERS)
    raise ValueError(f"ONNX graphs can be made of {known}, and of {type(model).__name__} they can't")


def trace(tower: _Tower, dtype: torch.dtype) -> Any:
    """Return a tower as an `onnx.ModelProto` with all weights in it.

    Nodes are named after the module that they compute. Weights that the model takes apart while it runs are there in
    their parts, so that every matrix product with a weight has it as an initializer.

    Args:
        tower: From [`towers_of`]; it is copied.
        dtype: Of its weights, and what it computes in. Inputs and outputs are float32.

    Raises:
        ImportError: The extra `onnx` is not installed.
    """
    require("onnx", "onnx")
    optimizer = require("onnxscript.optimizer", "onnx")
    tower = copy.deepcopy(tower).to("cpu", dtype).eval()
    for module in tower.modules():
        config: Any = getattr(module, "config", None)
        if config is not None:
            # Fewer nodes than the fused function's decomposition, which also looks for rows without any key.
            config._attn_implementation = "eager"
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of torchvision, which nothing here needs
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of axes that have one name, and of deprecations inside torch
            program = torch.onnx.export(
                tower,
                tower.example(),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(tower.inputs),
                output_names=list(tower.outputs),
                dynamic_shapes=tuple(tower.inputs.values()),
            )
    finally:
        log.setLevel(level)
    assert program is not None
    unlimited = {"input_size_limit": 2**62, "output_size_limit": 2**62}
    optimizer.optimize_ir(program.model, onnx_shape_inference=False, **unlimited)
    graph_model = program.model_proto
    graph_model.ir_version = IR_VERSION
    _name_after_modules(graph_model.graph)
    return graph_model


def _name_after_modules(graph: Any) -> None:
    """Name nodes after their modules, and drop the notes of the exporter, which hold paths and code of this machine."""
    counts: Counter[str] = Counter()
    for node in graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
        name = f"{scopes[-2] if len(scopes) > 1 else ''}/{node.op_type}".lstrip("/")
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    graph.ClearField("metadata_props")


def with_outputs(graph_model: Any, names: Iterable[str]) -> Any:
    """Return a copy of a graph that computes these of its outputs only."""
    kept = copy.deepcopy(graph_model)
    graph = kept.graph
    needed = set(names)
    for index in reversed(range(len(graph.node))):  # which come in the order in which they run
        if needed.intersection(graph.node[index].output):
            needed.update(graph.node[index].input)
        else:
            del graph.node[index]
    for values in (graph.initializer, graph.value_info, graph.output):
        for index in reversed(range(len(values))):
            if values[index].name not in needed:
                del values[index]
    return kept


def for_squares(graph_model: Any, side: int, patch_size: int) -> Any:
    """Return the graph of images in patches as one of plain squares, which cuts them into patches itself.

    Args:
        graph_model: Traced from [`FGClip2Images`], of any precision.
        side: Height and width in pixels, a multiple of `patch_size`.
        patch_size: Side of a patch in pixels.

    Returns:
        A graph with one input, `pixel_values`, float32 (B, 3, side, side), and the outputs of the other.

    Raises:
        ValueError: `side` is no positive multiple of `patch_size`.
    """
    if side < patch_size or side % patch_size:
        raise ValueError(f"the side of square images must be a positive multiple of {patch_size} pixels, got {side}")
    onnx = require("onnx", "onnx")
    cells, length = side // patch_size, 3 * patch_size**2
    squares = copy.deepcopy(graph_model)
    graph = squares.graph
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == "pixel_values":
                node.input[index] = "squares/patches"
    constants = {
        "squares/cut": [0, 3, cells, patch_size, cells, patch_size],  # 0: as it is
        "squares/flat": [0, cells * cells, length],
        "squares/length": [cells * cells],
        "squares/two": [2],
    }
    arrays = {name: np.array(values, np.int64) for name, values in constants.items()}
    arrays["squares/grid"] = np.array([[cells, cells]], np.int64)
    node = onnx.helper.make_node
    one = onnx.numpy_helper.from_array(np.ones(1, np.int64))
    before = [
        node("Reshape", ["pixel_values", "squares/cut"], ["squares/six"]),  # (B, 3, h, p, w, p)
        node("Transpose", ["squares/six"], ["squares/moved"], perm=[0, 2, 4, 3, 5, 1]),  # (B, h, w, p, p, 3)
        node("Reshape", ["squares/moved", "squares/flat"], ["squares/patches"]),  # (B, N, p * p * 3)
        node("Shape", ["pixel_values"], ["squares/batch"], end=1),  # (1,)
        node("Concat", ["squares/batch", "squares/length"], ["squares/mask_shape"], axis=0),
        node("ConstantOfShape", ["squares/mask_shape"], ["pixel_attention_mask"], value=one),  # (B, N)
        node("Concat", ["squares/batch", "squares/two"], ["squares/grids_shape"], axis=0),
        node("Expand", ["squares/grid", "squares/grids_shape"], ["spatial_shapes"]),  # (B, 2)
    ]
    for added in before:
        added.name = f"squares/{added.output[0].rpartition('/')[2]}"
    nodes = [*before, *map(copy.deepcopy, graph.node)]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    shape = [BATCH.__name__, 3, side, side]
    graph.input.append(onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT, shape))
    return squares


def matrix_products(graph_model: Any) -> list[str]:
    """Return the names of the nodes that multiply with a weight; the table of positions is none."""
    weights = {tensor.name for tensor in graph_model.graph.initializer if len(tensor.dims) == 2}
    products = (node for node in graph_model.graph.node if node.op_type == "MatMul" and node.input[1] in weights)
    return [node.name for node in products if not node.name.endswith(".embeddings/MatMul")]


def save(graph_model: Any, path: Path, data_file: str) -> None:
    """Write a graph, and its weights into a data file beside it.

    The weights leave `graph_model`, which names their places in the data file from then on. So what is made of it
    afterwards reads the same data file.

    Args:
        graph_model: A graph with its weights.
        path: File of the graph; its folder exists.
        data_file: Name of the data file.
    """
    onnx = require("onnx", "onnx")
    with (path.parent / data_file).open("wb") as data:
        for tensor in graph_model.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            if array.nbytes < SMALLEST_EXTERNAL:
                continue
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))  # as bytes, whatever it was before
            alignment = PAGE if array.nbytes >= 256 * PAGE else SMALL_ALIGNMENT
            data.write(b"\0" * (-data.tell() % alignment))
            onnx.external_data_helper.set_external_data(tensor, data_file, data.tell(), len(tensor.raw_data))
            data.write(tensor.raw_data)
            tensor.ClearField("raw_data")
    path.write_bytes(graph_model.SerializeToString())


def default_square(max_num_patches: int | str, patch_size: int) -> int:
    """Return the side in pixels of squares of at most so many patches, and of 256 where the budget is `"auto"`."""
    return math.isqrt(max_num_patches if isinstance(max_num_patches, int) else 256) * patch_size
