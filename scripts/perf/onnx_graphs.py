"""ONNX graphs against torch in the same run: base size, random weights, one thread, CPU time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgclip2 import FGClip2Config, FGClip2Model
from fgclip2.hub.onnx import PRECISIONS, graphs
from fgclip2.hub.onnx.folder import position_rows
from fgclip2.hub.onnx.precisions import quantise
from fgclip2.hub.onnx.report import measure_graph

from .measuring import Row, paired_ratio
from .reference_encoder import random_pixels

EXPLANATION = """Base size, random weights. Times are of the CPU, on one thread, both sides in turn; of texts the graph
side looks the tokens up in the memory-mapped table. Peaks are of a process that embeds one short text and imports NumPy
and onnxruntime only. The bound of texts in float32 is missed: little else is computed than matrix products
([more](onnx.md#which-run-time-for-what))."""

TOKENS = 64


def row_groups(runs: int) -> list[Callable[[], list[Row]]]:
    """Return the measurements, those of texts first."""
    model = FGClip2Model(FGClip2Config.from_preset("base")).eval()
    return [lambda: on_one_thread(text_rows, model, runs), lambda: on_one_thread(image_rows, model, runs)]


@torch.no_grad()
def on_one_thread(measure: Callable[[FGClip2Model, int, Path], list[Row]], model: FGClip2Model, runs: int) -> list[Row]:
    """Return what is measured on one thread of torch, with a folder for graphs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return measure(model, runs, Path(folder))
    finally:
        torch.set_num_threads(threads)


def text_rows(model: FGClip2Model, runs: int, folder: Path) -> list[Row]:
    """Return time of texts against torch, and the peak memory of a process that embeds one."""
    ids = torch.randint(0, model.config.text_config.vocab_size, (4, TOKENS))
    positions_file = folder / "positions.npy"
    positions = position_rows(model)["short"].numpy()
    np.save(positions_file, positions)
    rows = []
    traced = graphs.trace(graphs.towers_of(model)[0], torch.float32).SerializeToString()
    for precision, bound, memory in (("fp32", 0.75, 750), ("int8", None, 450)):
        session = session_of(traced, precision, folder, "text")
        table_file = folder / f"{precision}.npy"
        np.save(table_file, model.get_input_embeddings().weight.numpy().astype(PRECISIONS[precision].token_table))
        table = np.load(table_file, mmap_mode="r")
        ratio = paired_ratio(
            lambda session=session, table=table: session.run(
                ["caption"], {"inputs_embeds": table[ids.numpy()].astype(np.float32) + positions}
            ),
            lambda: model.get_text_features(ids),
            runs,
            time.process_time,
        )
        rows.append(ratio_row(f"{precision} / torch fp32, time, 4 texts of {TOKENS} tokens", ratio, bound))
        request = {
            "graph": str(folder / f"text_{precision}.onnx"),
            "output": "caption",
            "shapes": {"inputs_embeds": [1, TOKENS, positions.shape[1]]},
            "token_table": str(table_file),
            "positions": str(positions_file),
            "runs": 1,
        }
        peak = measure_graph(request)["peak_bytes"] / 1e6
        name = f"{precision}, texts alone, short head, peak memory of the process"
        rows.append(Row(name, peak, "MB", f"<= {memory}", peak <= memory))
    return rows


def image_rows(model: FGClip2Model, runs: int, folder: Path) -> list[Row]:
    """Return time of images against torch."""
    pixels = random_pixels(2, (16, 16))
    feeds = {name: (value if value.is_floating_point() else value.long()).numpy() for name, value in pixels.items()}
    both = graphs.trace(graphs.towers_of(model)[1], torch.float32)
    traced = graphs.with_outputs(both, ["image"]).SerializeToString()
    rows = []
    for precision, bound in (("fp32", 1.05), ("int8", None)):
        session = session_of(traced, precision, folder, "image")
        ratio = paired_ratio(
            lambda session=session: session.run(None, feeds),
            lambda: model.get_image_features(**pixels),
            runs,
            time.process_time,
        )
        rows.append(ratio_row(f"{precision} / torch fp32, time, 2 images of 256 patches", ratio, bound))
    return rows


def session_of(traced: bytes, precision: str, folder: Path, name: str) -> Any:
    """Return a session on one thread for a graph, which is written into the folder in this precision."""
    import onnx  # not above: the other sections need none of this
    import onnxruntime

    graph_model = quantise(onnx.load_from_string(traced), precision, is_image=name == "image")
    path = folder / f"{name}_{precision}.onnx"
    graphs.save(graph_model, path, f"{name}_{precision}.data")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def ratio_row(name: str, ratio: float, bound: float | None) -> Row:
    held = None if bound is None else ratio <= bound
    return Row(name, ratio, "x", "" if bound is None else f"<= {bound}", held)
