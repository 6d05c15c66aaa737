"""Exported graphs on the device by onnxruntime, beside torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fgclip2 import FGClip2Processor, embedded_checkpoint
from fgclip2.hub import export_onnx

from ...perf.reference_encoder import random_pixels
from ..models import random_model
from ..records import Case, Column, NotAvailableError, Part, Settings, Words
from ..timing import seconds_of

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
BOUNDS = {"fp32": 0.9999, "fp16": 0.999}
IMAGES, TEXTS, TOKENS = 32, 128, 64


def providers_of(settings: Settings) -> list[tuple[str, dict[str, Any]]]:
    """Return the execution providers for the device, with their options.

    Raises:
        ImportError: There is no onnxruntime.
        NotAvailableError: It has none for the device.
    """
    import onnxruntime

    if settings.device.type == "cpu":
        return [("CPUExecutionProvider", {})]
    name = f"{settings.device.type.upper()}ExecutionProvider"
    if name not in onnxruntime.get_available_providers():
        raise NotAvailableError(f"onnxruntime {onnxruntime.__version__} has no {name}: it is of onnxruntime-gpu")
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # those of CUDA and cuDNN that torch came with
    return [(name, {"device_id": settings.device.index or 0}), ("CPUExecutionProvider", {})]


def open_on_device(folder: Path, precision: str, settings: Settings) -> Any:
    """Open an exported folder on the device.

    Raises:
        NotAvailableError: The graphs would run on the CPU instead.
    """
    from fgclip2_onnx import OnnxModel
    from fgclip2_onnx.runtimes import OnnxRuntimeGraph

    providers = providers_of(settings)
    model = OnnxModel(folder, precision, providers=providers)
    graph = model.path_of(model.manifest["precisions"][precision]["graphs"]["text"])
    if (its := OnnxRuntimeGraph(graph, providers, None).providers)[0] != (first := providers[0][0]):
        raise NotAvailableError(f"onnxruntime could not load {first}, and took {', '.join(its)}")
    return model


def inputs_of(kind: str, settings: Settings) -> dict[str, torch.Tensor]:
    """Return images or texts on the host."""
    torch.manual_seed(1)
    if kind == "images":
        side = settings.pick(16, 4)
        return random_pixels(settings.pick(IMAGES, 2), (side, side))
    return {"input_ids": torch.randint(3, 1000, (settings.pick(TEXTS, 2), TOKENS))}


@torch.inference_mode()
def measure(kind: str, precision: str, folder: Path, settings: Settings) -> dict[str, Any]:
    """Compare the graphs of a precision with torch in the same, from arrays on the host to vectors there."""
    graphs = open_on_device(folder, precision, settings)
    torch_model = random_model("base", settings, DTYPES[precision])
    inputs = inputs_of(kind, settings)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}

    def by_torch() -> np.ndarray:
        on_device = {name: tensor.to(settings.device) for name, tensor in inputs.items()}
        method = torch_model.get_image_features if kind == "images" else torch_model.get_text_features
        return method(**on_device).float().cpu().numpy()

    def by_graphs() -> np.ndarray:
        if kind == "images":
            return graphs.image_features(arrays)
        return graphs.text_features("caption", arrays["input_ids"])

    cosine = F.cosine_similarity(*map(torch.from_numpy, (by_graphs(), by_torch())), dim=-1).min().item()
    count = len(next(iter(arrays.values())))
    calls: tuple[Callable[[], object], ...] = (by_graphs, by_torch)
    ours, theirs = (count / seconds_of(call, settings) for call in calls)
    bound = BOUNDS[precision]
    return {"cosine": cosine, "bound": bound, "held": cosine >= bound, "rate": ours, "torch": theirs}


def cases(settings: Settings) -> Iterator[Case]:
    """Export base size once, then give images and texts by precision."""
    providers_of(settings)  # before an export that would be of no use
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "graphs")
        model = random_model("base", settings).cpu()
        export_onnx(model, processor, folder, precisions=tuple(DTYPES), compared_items=0)
        del model
        for precision in DTYPES:
            for kind in ("images", "texts"):
                labels = {"kind": kind, "precision": precision}
                yield Case(labels, partial(measure, kind, precision, folder, settings))


PART = Part(
    Words("ONNX", "ONNX"),
    Words(
        f"Base size with random weights: {IMAGES} images of 256 patches, {TEXTS} texts of {TOKENS} tokens at a time, "
        "from arrays in host memory to vectors there. The cosine is the lowest to torch in the same precision; "
        "onnxruntime takes TF32 for fp32 by itself.",
        f"base 尺寸，随机权重：每次 {IMAGES} 张图像（256 个图块）或 {TEXTS} 条文本（{TOKENS} 个 token），"
        "从主机内存中的数组到主机内存中的向量。"
        "余弦是与相同精度的 torch 相比的最低值；fp32 时 onnxruntime 自行使用 TF32。",
    ),
    (
        Column("kind", Words("inputs", "输入")),
        Column("precision", Words("precision", "精度")),
        Column("cosine", Words("lowest cosine", "最低余弦"), ".6f"),
        Column("bound", Words("at least", "下限"), "g"),
        Column("held", Words("held", "满足")),
        Column("rate", Words("per second", "每秒数量"), ",.0f"),
        Column("torch", Words("torch", "torch"), ",.0f"),
    ),
    cases,
)
