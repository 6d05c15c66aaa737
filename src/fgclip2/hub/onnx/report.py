"""Folders of graphs compared with torch on bundled pictures and texts, as JSON and as tables."""

from __future__ import annotations

import copy
import json
import math
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..._imports import require
from ...assets import demo_images
from ...files import read_json
from ...modeling.image_processing_fgclip import FGClipImageProcessor
from ...modeling.inputs import load_image
from ...modeling.pixels import PIXEL_SETTINGS
from ...streams import chunks
from .precisions import PRECISIONS

# Graph, output, its inputs in a precision, and what torch gives: (B, D) or (B, N, D), zero in rows of padding.
Batch = tuple[str, str, Callable[[str], dict[str, Any]], Tensor]

ITEMS = 200  # images, and texts
IMAGES_AT_ONCE, TEXTS_AT_ONCE = 8, 20
# What the time and the memory of a graph are measured with.
MEASURED_TEXTS, MEASURED_RUNS = 4, 3
_MEASURE = Path(__file__).with_name("measure_graph.py")

_README = Template("""# $name: ONNX

[中文](#中文)

$title as graphs for ONNX run times, with their vectors compared with those of torch. `fgclip2_onnx.json` says what a
run time has to know; the package `fgclip2-onnx` (neither torch nor transformers) reads it:

```
pip install fgclip2-onnx
```

Vectors of squares (`image_square`) and of images in their own shape (`image`) are different: an index holds one kind.

# 中文

$title 的 ONNX 计算图，其向量已与 torch 的结果逐一比较。运行时需要知道的一切都在 `fgclip2_onnx.json` 中；
软件包 `fgclip2-onnx`（不依赖 torch 和 transformers）可以直接读取本文件夹。方形图像（`image_square`）与保持原始
形状的图像（`image`）的向量不同：一个索引只能使用其中一种。

## Report / 报告

$about

$table
""")


class Comparison:
    """The graphs of a folder, run beside the model that they were made of.

    Args:
        model, processor: What was exported.
        folder: Has the graphs.
        manifest: Says which.
        items: Images, and texts, to compare, of which there may be fewer; 0: nothing is compared nor measured.
    """

    def __init__(self, model: Any, processor: Any, folder: Path, manifest: dict[str, Any], items: int):
        self.processor, self.folder, self.manifest, self.items = processor, folder, manifest, items
        is_reference = model.dtype == torch.float32 and model.device.type == "cpu" and not model.training
        self.model = model if is_reference or not items else copy.deepcopy(model).to("cpu", torch.float32).eval()

    def run(self) -> dict[str, dict[str, Any]]:
        """Return by precision and graph: mean and lowest cosine of each of its `outputs`, its size, time and memory."""
        runtime = require("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        with torch.inference_mode():
            batches = [*self.texts(), *self.images()]
        report: dict[str, dict[str, Any]] = {}
        for precision, entry in self.manifest["precisions"].items():
            for graph, name in entry["graphs"].items():  # one session at a time: those of all would take all memory
                path = self.folder / name
                session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                cosines: dict[str, list[Tensor]] = {}  # output -> of each batch
                for of_graph, output, make_feeds, expected in batches:
                    if of_graph == graph:
                        feeds = make_feeds(precision)
                        alone = one_by_one(feeds) if PRECISIONS[precision].one_by_one else [feeds]
                        rows = [torch.from_numpy(session.run([output], inputs)[0]) for inputs in alone]
                        actual = torch.cat(rows)
                        # Rows of padding are zero in what is expected, and nothing in particular in a graph.
                        found = F.cosine_similarity(actual, expected, dim=-1)[expected.abs().sum(-1) > 0]
                        cosines.setdefault(output, []).append(found.double())
                values = {output: torch.cat(of_batches) for output, of_batches in cosines.items()}
                data = path.with_name(f"{graph.partition('_')[0]}.data")
                report.setdefault(precision, {})[graph] = {
                    "outputs": {
                        output: {"mean": found.mean().item(), "lowest": found.min().item()}
                        for output, found in values.items()
                    },
                    "bytes": path.stat().st_size + data.stat().st_size,
                    **self.measure(precision, path, session),
                }
        return report

    def texts(self) -> Iterator[Batch]:
        """Yield texts through each head."""
        for role, settings in self.manifest["text"]["roles"].items():
            if role != settings["output"]:
                continue  # shares the head of another role, and its length
            positions = np.load(self.folder / settings["positions"])
            for texts in chunks(bundled_texts(self.items), TEXTS_AT_ONCE):
                ids = self.processor.tokenize(texts, role)["input_ids"]  # (B, T)
                expected = self.model.get_role_features(role, ids)
                rest = {}
                if self.manifest["text"]["needs_end_index"]:
                    ends = (ids == self.manifest["text"]["eos_id"]).int().argmax(-1)
                    rest["end_index"] = ends.numpy()

                def make_feeds(precision: str, ids=ids, positions=positions, rest=rest) -> dict[str, Any]:
                    table = self.manifest["precisions"][precision]["token_table"]
                    rows = np.load(self.folder / table, mmap_mode="r")[ids.numpy()]  # (B, T, D)
                    return {"inputs_embeds": rows.astype(np.float32) + positions[: ids.shape[1]], **rest}

                yield "text", settings["output"], make_feeds, expected

    def images(self) -> Iterator[Batch]:
        """Yield images through each graph that takes them."""
        square = self.manifest["image_square"]
        if square:
            # Plain squares are resized and normalised as images in patches are.
            settings = self.processor.image_processor
            of_pixels = {name: getattr(settings, name) for name in PIXEL_SETTINGS}
            to_squares = FGClipImageProcessor(square["size"][0], **of_pixels)
        for images in chunks(map(load_image, bundled_image_files(self.items)), IMAGES_AT_ONCE):
            inputs = dict(self.processor.process_images(images))
            # The graphs take integers of one type only.
            tensors = {name: value if value.is_floating_point() else value.long() for name, value in inputs.items()}
            feeds = {name: value.numpy() for name, value in tensors.items()}
            whole, dense = self.model.get_image_features(**inputs), self.model.get_image_dense_feature(**inputs)
            if "pixel_attention_mask" in inputs:
                dense = dense * inputs["pixel_attention_mask"][..., None]  # (B, N, D)
            yield "image", "image", in_any_precision(feeds), whole
            yield "image_dense", "image", in_any_precision(feeds), whole
            yield "image_dense", "dense", in_any_precision(feeds), dense
            if square:
                pixels = to_squares(images, return_tensors="pt")["pixel_values"]  # (B, 3, S, S)
                feeds = {"pixel_values": pixels.numpy()}
                yield "image_square", "image", in_any_precision(feeds), self.model.get_image_features(pixels)

    def measure(self, precision: str, path: Path, session: Any) -> dict[str, Any]:
        """Return time and peak memory of a graph in a process of its own."""
        texts, images = self.manifest["text"], self.manifest["image"]
        is_text = path.stem == "text"
        batch = MEASURED_TEXTS if is_text and not PRECISIONS[precision].one_by_one else 1
        request: dict[str, Any] = {"graph": str(path), "output": session.get_outputs()[-1].name, "runs": MEASURED_RUNS}
        patches = images["max_num_patches"]
        side = math.isqrt(patches if isinstance(patches, int) else 256)
        sizes = {"batch": batch, "tokens": texts["roles"]["caption"]["length"], "patches": side * side}
        inputs = {value.name: value.shape for value in session.get_inputs()}
        request["shapes"] = {name: [sizes.get(size, size) for size in shape] for name, shape in inputs.items()}
        request["values"] = {"pixel_attention_mask": 1, "spatial_shapes": side, "end_index": 8}
        if is_text:
            request["output"] = texts["roles"]["caption"]["output"]
            request["token_table"] = str(self.folder / self.manifest["precisions"][precision]["token_table"])
            request["positions"] = str(self.folder / texts["roles"]["caption"]["positions"])
        return {"inputs": batch, **measure_graph(request)}


def in_any_precision(feeds: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Return a function that gives the same inputs for every precision."""
    return lambda precision: feeds


def one_by_one(feeds: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the inputs of each text of a batch alone, without the padding that is for the others."""
    for row in range(len(feeds["inputs_embeds"])):
        alone = {name: value[row : row + 1] for name, value in feeds.items()}
        if "end_index" in alone:
            alone["inputs_embeds"] = alone["inputs_embeds"][:, : alone["end_index"][0] + 1]
        yield alone


def measure_graph(request: dict[str, Any]) -> dict[str, Any]:
    """Return what `measure_graph.py` tells of a request, from a process of its own."""
    command = [sys.executable, str(_MEASURE), json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(f"{request['graph']} can't be measured: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def bundled_texts(count: int) -> list[str]:
    """Return texts of the bundled pictures, Chinese and English in turn: long captions first, then short ones."""
    folder = demo_images()
    manifest = read_json(folder / "manifest.json")
    scenes = {language: read_json(folder / path) for language, path in manifest["scene_records"].items()}
    texts: list[str] = []
    for language_pair in zip_longest(scenes["en"], scenes["zh"]):
        texts += [record["caption"] for record in language_pair]
    named = [row for row in manifest["pictures"] if "name_en" in row]
    named.sort(key=lambda row: row["kind"] != "photograph")  # whose names are descriptions
    for row in named:
        texts += [row["name_en"], row["name_zh"]]
    return list(dict.fromkeys(texts))[:count]


def bundled_image_files(count: int) -> list[Path]:
    """Return the files of bundled pictures: photographs and scenes first, then drawings."""
    folder = demo_images()
    rows = read_json(folder / "manifest.json")["pictures"]
    rows.sort(key=lambda row: row["kind"] == "thing")
    return [folder / row["file"] for row in rows[:count]]


def write_report(comparison: Comparison, name: str) -> dict[str, dict[str, Any]]:
    """Compare, and write `report.json` and `README.md` into the folder.

    Returns:
        By precision and output its mean and lowest cosine, with that of squares as `image_square`.
    """
    packages = ("fgclip2", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")
    graphs = comparison.run() if comparison.items else {}
    items = comparison.items  # more than there are, maybe
    counts = {"images": len(bundled_image_files(items)), "texts": len(bundled_texts(items))}
    content: dict[str, Any] = {
        "compared_with": "torch, float32",
        **counts,
        "threads": 1,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        "graphs": graphs,
    }
    report = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    (comparison.folder / "report.json").write_text(report, encoding="utf-8")
    versions = ", ".join(f"{package} {number}" for package, number in content["versions"].items())
    images, texts = counts["images"], counts["texts"]
    about = (
        f"Cosine to torch in float32 on {images} bundled pictures and {texts} texts in both languages; CPU time of one "
        "input on one thread; peak memory of a process with this graph alone.\n\n"
        f"与 torch（float32）的余弦相似度：{images} 张内置图片和 {texts} 条中英文文本；单线程处理一个输入的 CPU 时间；"
        f"仅含该计算图的进程的内存峰值。\n\n{versions}; {content['machine']}, Python {content['python']}"
    )
    readme = _README.substitute(
        name=name,
        title=comparison.manifest["title"],
        about=about if graphs else "Nothing was compared. / 未作比较。",
        table=table(graphs) if graphs else "",
    )
    (comparison.folder / "README.md").write_text(readme, encoding="utf-8")
    cosines: dict[str, dict[str, Any]] = {}
    for precision, of_precision in graphs.items():
        for graph, results in of_precision.items():
            for output, values in results["outputs"].items():
                key = graph if graph == "image_square" else output
                cosines.setdefault(precision, {})[key] = values
    return cosines


def table(graphs: dict[str, dict[str, Any]]) -> str:
    """Return a report as a table of Markdown."""
    lines = ["| precision | graph | output | mean cosine | lowest | ms | peak MB | files MB |", "|" + "---|" * 8]
    for precision, of_precision in graphs.items():
        for graph, results in of_precision.items():
            peak = results["peak_bytes"]
            taken = f"{results['seconds'] * 1000:.1f} | {'-' if peak is None else f'{peak / 1e6:.0f}'}"
            for output, cosine in results["outputs"].items():
                values = f"{cosine['mean']:.7f} | {cosine['lowest']:.7f} | {taken} | {results['bytes'] / 1e6:.1f}"
                lines.append(f"| {precision} | {graph} | {output} | {values} |")
    notes = [f"- {name}: {PRECISIONS[name].title}" for name in graphs]
    return "\n".join([*lines, "", *notes])
