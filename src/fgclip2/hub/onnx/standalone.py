"""Graphs of FG-CLIP 2 that take token ids and squares of pixels, for programs that bring their own preprocessing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..._imports import require
from ...modeling.modeling_fgclip2 import FGClip2Model
from ...modeling.processing_fgclip2 import FGClip2Processor
from . import graphs
from .folder import choose_square, position_rows
from .precisions import PRECISIONS, quantise


class StandaloneGraphs:
    """Graphs of the captions and of the squares of a model, with all in them that is not the program's part.

    Args:
        model: An [`FGClip2Model`], in any dtype; it stays as it is.
        processor: Its processor.
        square_side: Side in pixels of the squares; `None`: as many patches as the processor's budget (at most, for a
            square), and 256 where the budget is `"auto"`, as official checkpoints have it.
        program: Which program the graphs are for, as a message names it.

    Attributes:
        side: Side in pixels of the squares.
        length: Number of tokens of every text.

    Raises:
        ImportError: The extra `onnx` is not installed.
        ValueError: `model` or `processor` is not of FG-CLIP 2, squares can't have this side, or the processor doesn't
            resize images.
    """

    def __init__(self, model: Any, processor: Any, square_side: int | None, program: str):
        if not isinstance(model, FGClip2Model) or not isinstance(processor, FGClip2Processor):
            raise ValueError(
                f"`model` and `processor` must be an FGClip2Model and an FGClip2Processor, the only family that can be "
                f"written for {program}, got {type(model).__name__} and {type(processor).__name__}"
            )
        side = choose_square(processor, square_side)
        assert side is not None  # FG-CLIP 2 has a choice
        require("onnxruntime", "onnx")
        self._onnx = require("onnx", "onnx")
        self.model: Any = model
        self.processor, self.side, self.program = processor, side, program
        self.length = processor.text_length("caption")
        self._traced: dict[torch.dtype, list[Any]] = {}  # texts and images

    def _trace(self, precision: str) -> list[Any]:
        """Return both towers in the dtype of a precision; precisions of one dtype share them."""
        dtype = PRECISIONS[precision].dtype
        if dtype not in self._traced:
            self._traced[dtype] = [graphs.trace(tower, dtype) for tower in graphs.towers_of(self.model)]
        return self._traced[dtype]

    def captions(self, precision: str, integers: int) -> Any:
        """Return a graph from `input_ids`, (B, `length`), to the features of captions, (B, D), its output `caption`.

        The last id of a text that fills all of them becomes the end token: some programs cut it off a long text.

        Args:
            precision: A name in `PRECISIONS`.
            integers: Type of the ids, in `onnx.TensorProto`.
        """
        helper, from_array = self._onnx.helper, self._onnx.numpy_helper.from_array
        traced, _ = self._trace(precision)
        texts = quantise(graphs.with_outputs(traced, ["caption"]), precision, is_image=False)
        graph = texts.graph
        tokenizer = self.processor.tokenizer
        table = self.model.get_input_embeddings().weight.detach().float().cpu().numpy()
        dtype = helper.tensor_dtype_to_np_dtype(integers)
        arrays = {
            "ids/table": table.astype(PRECISIONS[precision].token_table),
            "ids/positions": position_rows(self.model)["short"].detach().float().cpu().numpy(),
            "ids/pad": np.array(tokenizer.pad_token_id, dtype),
            "ids/end": np.array(tokenizer.eos_token_id, dtype),
            "ids/first": np.array([0], np.int64),
            "ids/last": np.array([self.length - 1], np.int64),
            "ids/length": np.array([self.length], np.int64),
            "ids/axis": np.array([1], np.int64),
        }
        before = [
            helper.make_node("Slice", ["input_ids", "ids/first", "ids/last", "ids/axis"], ["ids/beginning"]),
            helper.make_node("Slice", ["input_ids", "ids/last", "ids/length", "ids/axis"], ["ids/last_id"]),  # (B, 1)
            helper.make_node("Equal", ["ids/last_id", "ids/pad"], ["ids/is_short"]),
            helper.make_node("Where", ["ids/is_short", "ids/pad", "ids/end"], ["ids/ended"]),
            helper.make_node("Concat", ["ids/beginning", "ids/ended"], ["ids/whole"], axis=1),  # (B, T)
            helper.make_node("Gather", ["ids/table", "ids/whole"], ["ids/rows"]),  # (B, T, D)
            helper.make_node("Cast", ["ids/rows"], ["ids/tokens"], to=self._onnx.TensorProto.FLOAT),
            helper.make_node("Add", ["ids/tokens", "ids/positions"], ["inputs_embeds"]),
        ]
        put_before(graph, before)
        graph.initializer.extend(from_array(array, name) for name, array in arrays.items())
        del graph.input[:]
        shape = [graphs.BATCH.__name__, self.length]
        graph.input.append(helper.make_tensor_value_info("input_ids", integers, shape))
        return texts

    def squares(self, precision: str) -> Any:
        """Return a graph from `pixel_values`, float32 (B, 3, side, side), to features, (B, D), its output `image`."""
        _, traced = self._trace(precision)
        images = quantise(graphs.with_outputs(traced, ["image"]), precision, is_image=True)
        return graphs.for_squares(images, self.side, self.model.config.vision_config.patch_size)

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel, for programs that scale pixels to the range from 0 to 1.

        Raises:
            ValueError: The processor scales pixels otherwise.
        """
        images = self.processor.image_processor
        if not images.do_rescale or not math.isclose(images.rescale_factor, 1 / 255):
            raise ValueError(
                f"{self.program} scales pixels by 1/255, but the processor has do_rescale={images.do_rescale} and "
                f"rescale_factor={images.rescale_factor}: set them to True and 1/255 if that is what the model learnt"
            )
        if not images.do_normalize:
            return [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
        return images.image_mean, images.image_std


def put_before(graph: Any, nodes: Sequence[Any]) -> None:
    """Put nodes before those of a graph; they are named after their outputs."""
    onnx = require("onnx", "onnx")
    for node in nodes:
        node.name = node.output[0]
    later = onnx.GraphProto()
    later.node.extend(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *later.node])


def normalise(value: str, output: str) -> list[Any]:
    """Return the nodes that divide the rows of a value by their L2 norms.

    Args:
        value: Name of what is (B, D).
        output: Name of the result.
    """
    make_node = require("onnx", "onnx").helper.make_node
    return [make_node("LpNormalization", [value], [output], name=output, axis=-1, p=2)]


def rename_values(graph: Any, names: Mapping[str, str]) -> None:
    """Give values of a graph other names, in every place where they occur."""
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    for values in (graph.input, graph.initializer, graph.output, graph.value_info):
        for value in values:
            value.name = names.get(value.name, value.name)


def free_names(graph: Any, names: Iterable[str]) -> None:
    """Let values of a graph that have one of these names make way; the exporter gives names such as `embedding`."""
    taken = {output for node in graph.node for output in node.output}
    taken.update(value.name for value in (*graph.input, *graph.initializer))
    rename_values(graph, {name: f"inner/{name}" for name in taken.intersection(names)})


def end_with(graph: Any, nodes: Sequence[Any], outputs: Mapping[str, Sequence[str | int]]) -> None:
    """Put nodes after those of a graph, and make what they give its outputs, in place of those that it has.

    Args:
        graph: The graph.
        nodes: What is computed at the end.
        outputs: Names -> shapes; all are float32.
    """
    onnx = require("onnx", "onnx")
    free_names(graph, outputs)
    graph.node.extend(nodes)
    del graph.output[:]
    for name, shape in outputs.items():
        graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
