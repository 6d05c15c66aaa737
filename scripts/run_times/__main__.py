"""One model by every run time: time beside torch's eager mode in the same run, cosine, start and memory.

    python -m scripts.run_times --output docs/run_times
    python -m scripts.run_times --output docs/run_times/avx2 --only "onnxruntime, fp32" "OpenVINO, fp32"

Writes `run_times.json` and `run_times.md`. Times and memory are of base size with random weights, on one thread;
cosines of the embedded checkpoint, on the bundled pictures and texts. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fgclip2 import Embedder, FGClip2Config, FGClip2Model, FGClip2Processor
from fgclip2.assets import embedded_checkpoint
from fgclip2.hub import export_onnx
from fgclip2.hub.onnx.report import bundled_image_files, bundled_texts

from ..perf.measuring import seconds_in_turn
from . import one_process

COMPARED_ITEMS = 100  # images, and texts
COLUMNS = ("images, time", "texts, time", "images, lowest cosine", "texts, lowest cosine", "start, CPU s", "peak, MB")


@dataclass(frozen=True)
class RunTime:
    """One way to run a model: a back end of `Embedder`, in a dtype of torch or a precision of graphs."""

    backend: str
    precision: str
    compiled: bool = False

    @property
    def name(self) -> str:
        title = {"torch": "torch", "onnx": "onnxruntime", "openvino": "OpenVINO"}[self.backend]
        mode = {True: "compiled ", False: "eager "}[self.compiled] if self.backend == "torch" else ""
        return f"{title}, {mode}{self.precision}"

    def load(self, checkpoint: Path, graphs: Path) -> Embedder:
        """Open the checkpoint, or its graphs."""
        if self.backend != "torch":
            return Embedder.from_pretrained(graphs, backend=self.backend, precision=self.precision)  # type: ignore[arg-type]
        embedder = Embedder.from_pretrained(checkpoint, device="cpu", dtype=self.precision)
        if self.compiled:
            for method in ("get_image_features", "get_role_features"):
                setattr(embedder.model, method, torch.compile(getattr(embedder.model, method)))
        return embedder


REFERENCE = RunTime("torch", "float32")
PRODUCTS = "torch, its matrix products alone"
RUN_TIMES = (
    REFERENCE,
    RunTime("torch", "float32", compiled=True),
    RunTime("torch", "bfloat16"),
    RunTime("onnx", "fp32"),
    RunTime("onnx", "int8"),
    RunTime("openvino", "fp32"),
    RunTime("openvino", "int8"),
)


def calls(embedder: Embedder) -> dict[str, Callable[[], object]]:
    """Return what is timed, the model alone: two images of 256 patches, four texts of 64 tokens."""
    processor, model = embedder.processor, embedder.model
    prepared = [processor.prepare_image(image, one_process.PATCHES) for image in map(_image, one_process.pictures())]
    images = processor.collate_images(prepared)
    images["pixel_values"] = images["pixel_values"].to(embedder.dtype)
    texts = processor.tokenize(one_process.TEXTS, "caption")
    return {
        "images": torch.inference_mode()(lambda: model.get_image_features(**images)),
        "texts": torch.inference_mode()(lambda: model.get_role_features("caption", **texts)),
    }


def matrix_products(config: Any, sequences: int, tokens: int) -> Callable[[], object]:
    """Return a call of the matrix products of a tower's layers and nothing else: less than that no run time computes.

    Args:
        config: `vision_config` or `text_config` of the model.
        sequences: Images or texts at once.
        tokens: Of each.
    """
    width, rows = config.hidden_size, torch.randn(sequences * tokens, config.hidden_size)
    inner = torch.randn(len(rows), config.intermediate_size)
    heads = rows.view(sequences, tokens, config.num_attention_heads, -1).transpose(1, 2)
    layers = [
        [torch.randn(shape) for shape in (*[(width, width)] * 4, (inner.shape[1], width), (width, inner.shape[1]))]
        for _ in range(config.num_hidden_layers)
    ]

    @torch.inference_mode()
    def call() -> None:
        for *projections, up, down in layers:
            for weight in (*projections, up):
                F.linear(rows, weight)
            (heads @ heads.mT) @ heads
            F.linear(inner, down)

    return call


def _image(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def measure_times(run_times: Sequence[RunTime], folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Return, by run time, the median ratio of its CPU time and that of the reference, the two in turn."""
    checkpoint, graphs = folder / "checkpoint", folder / "graphs"
    embedder = REFERENCE.load(checkpoint, graphs)
    reference, config = calls(embedder), embedder.model.config
    text_shape = embedder.processor.tokenize(one_process.TEXTS, "caption")["input_ids"].shape
    products = {
        "images": matrix_products(config.vision_config, len(one_process.pictures()), one_process.PATCHES),
        "texts": matrix_products(config.text_config, *text_shape),
    }
    found = {PRODUCTS: {f"{kind}, time": _ratio(products[kind], reference[kind], runs) for kind in products}}
    for run_time in run_times:
        ours = calls(run_time.load(checkpoint, graphs))
        values = found.setdefault(run_time.name, {})
        for kind, call in ours.items():
            start = time.perf_counter()
            call(), call(), reference[kind]()
            if run_time.compiled:
                values["warm-up, s"] = values.get("warm-up, s", 0.0) + time.perf_counter() - start
            values[f"{kind}, time"] = _ratio(call, reference[kind], runs)
    return found


def _ratio(call: Callable[[], object], reference: Callable[[], object], runs: int) -> float:
    """Return the median ratio of the CPU times of two calls in turn."""
    pairs = seconds_in_turn(call, reference, runs, time.process_time)
    return statistics.median(first / second for first, second in pairs)


def measure_cosines(
    run_times: Sequence[RunTime], folder: Path, images: list[Path], texts: list[str]
) -> dict[str, dict[str, float]]:
    """Return, by run time, the lowest cosine of images and of texts to those of the reference."""
    vectors: dict[str, dict[str, np.ndarray]] = {}
    for run_time in run_times:
        if not run_time.compiled:  # whose vectors are those of the eager mode; the shapes of all would be compiled
            embedder = run_time.load(embedded_checkpoint(), folder)
            vectors[run_time.name] = {"images": embedder.encode_images(images), "texts": embedder.encode_texts(texts)}
    expected = vectors[REFERENCE.name]
    return {
        name: {f"{kind}, lowest cosine": float((its[kind] * expected[kind]).sum(1).min()) for kind in its}
        for name, its in vectors.items()
    }


def measure_processes(run_times: Sequence[RunTime], folder: Path) -> dict[str, dict[str, float]]:
    """Return, by run time, peak memory and seconds of a process that embeds a few images and texts."""
    found = {}
    for run_time in run_times:
        if not run_time.compiled:
            backend = {"onnx": "onnxruntime"}.get(run_time.backend, run_time.backend)
            source = folder / ("checkpoint" if backend == "torch" else "graphs")
            command = [sys.executable, one_process.__file__, backend, str(source), run_time.precision]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result = json.loads(printed.splitlines()[-1])
            found[run_time.name] = {"start, CPU s": result["seconds"], "peak, MB": result["peak_bytes"] / 1e6}
    return found


def markdown(results: dict[str, dict[str, float]], machine: str) -> str:
    """Return the table."""
    lines = [
        machine,
        "",
        "Time: CPU time of the model alone, as a share of torch's in float32, the two in turn: two images of 256",
        "patches, four texts of 64 tokens. Cosine: the lowest to torch in float32, of "
        f"{COMPARED_ITEMS} bundled pictures",
        "and as many texts by the embedded checkpoint.",
        "Start (CPU time) and peak: a new process that embeds these images and texts, from its first import.",
        "",
        f"| run time | {' | '.join(COLUMNS)} |",
        "|---" * (1 + len(COLUMNS)) + "|",
    ]
    for name, values in results.items():
        formats = ("{:.2f}", "{:.2f}", "{:.7f}", "{:.7f}", "{:.1f}", "{:.0f}")
        cells = [
            one.format(values[column]) if column in values else "-"
            for column, one in zip(COLUMNS, formats, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if PRODUCTS in results:
        lines += ["", "The matrix products alone are those of the layers in float32, without anything between them."]
    for values in results.values():
        if "warm-up, s" in values:
            seconds = f"{values['warm-up, s']:.0f} s"
            lines += ["", f"Compiling took {seconds} for these two shapes; each further shape may take as long."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="Folder of the table.")
    parser.add_argument("--runs", type=int, default=15, help="Timed runs of each pair (default: %(default)s).")
    names = [one.name for one in RUN_TIMES[1:]]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="Measure these beside the reference.")
    options = parser.parse_args()
    run_times = [one for one in RUN_TIMES if one is REFERENCE or one.name in options.only]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one thread of whatever counts the cores
    torch.set_num_threads(1)
    torch.manual_seed(0)
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    settings = {"precisions": ["fp32", "int8"], "compared_items": 0}
    images, texts = bundled_image_files(COMPARED_ITEMS), bundled_texts(COMPARED_ITEMS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = FGClip2Model(FGClip2Config.from_preset("base")).eval()
        for part in (model, processor):
            part.save_pretrained(folder / "checkpoint")
        export_onnx(model, processor, folder / "graphs", **settings)
        embedded = FGClip2Model.from_pretrained(embedded_checkpoint(), dtype=torch.float32)
        export_onnx(embedded, processor, folder / "embedded", **settings)
        measured = (
            measure_times(run_times, folder, options.runs),
            measure_cosines(run_times, folder / "embedded", images, texts),
            measure_processes(run_times, folder),
        )
    results = {
        name: {key: value for part in measured for key, value in part.get(name, {}).items()}
        for name in (REFERENCE.name, PRODUCTS, *(one.name for one in run_times[1:]))
    }
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "openvino"))
    machine = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, one thread, {libraries}"
    options.output.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "results": results}
    (options.output / "run_times.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (options.output / "run_times.md").write_text(markdown(results, machine), encoding="utf-8")
    print(markdown(results, machine))


if __name__ == "__main__":
    main()
