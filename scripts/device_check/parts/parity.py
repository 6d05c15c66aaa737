"""The known answers of the official code on the device, in each precision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from fgclip2 import FGClip2ImageProcessor, FGClip2Model
from fgclip2.training import FGClip2Objective
from tests.training import golden

from ..records import Case, Column, Part, Settings, Words

STEP = "w1.full_reduce.step1.rank0"  # of the known training steps
SMALL_GRADIENT = 0.01  # the difference of a gradient is one to its largest value and this
LOSS_SCALE = 1024.0  # of fp16, whose gradients would else be rounded to zero


@dataclass(frozen=True)
class Precision:
    """A way to compute.

    Attributes:
        name: As the page has it.
        dtype: Of weights in inference, and of autocast in training.
        matrix_products: Of float32, as torch names it: "high" allows TF32.
        bound: Of differences to the known answers.
    """

    name: str
    dtype: torch.dtype
    matrix_products: str
    bound: float


PRECISIONS = (
    Precision("fp32", torch.float32, "highest", 1e-4),
    Precision("fp32, TF32", torch.float32, "high", 1e-2),
    Precision("bf16", torch.bfloat16, "highest", 1e-1),
    Precision("fp16", torch.float16, "highest", 2e-2),
)


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Set how products of float32 are computed, by the one function that all releases of torch since 1.12 have."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def known_inputs(device: torch.device) -> dict[str, Tensor]:
    """Return pixels and token ids of the known answers on a device."""
    images = sorted((golden.GOLDEN / "images").glob("*.png"))
    pixels = FGClip2ImageProcessor()(images, max_num_patches=256, do_resize=False, return_tensors="pt")
    inputs = {**load_file(golden.GOLDEN / "inputs.safetensors"), "pixel_values": pixels["pixel_values"]}
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def features(model: FGClip2Model, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return all features of the known answers by their names."""
    description = json.loads((golden.GOLDEN / "inference.json").read_text(encoding="utf-8"))
    pixels = {name: inputs[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}
    regions = model.get_image_region_features(
        **pixels, image_sizes=description["image_sizes_hw"], region_infos=description["region_boxes_xyxy"]
    )
    return {
        "image_features": model.get_image_features(**pixels),
        "dense_features": model.get_image_dense_feature(**pixels),
        **{f"region_features_{number}": rows for number, rows in enumerate(regions)},
        **{
            f"text_features_{walk}": model.get_text_features(inputs[f"input_ids_{walk}"], walk_type=walk)
            for walk in ("short", "long", "box")
        },
    }


@torch.no_grad()
def compare_features(precision: Precision, attention: str, settings: Settings) -> dict[str, Any]:
    """Compare features with the known ones."""
    model = FGClip2Model.from_pretrained(
        golden.GOLDEN / "model", attn_implementation=attention, dtype=precision.dtype
    ).eval()
    with matrix_products(precision.matrix_products):
        found = features(model.to(settings.device), known_inputs(settings.device))
    expected = load_file(golden.GOLDEN / "outputs.safetensors")
    rows = [(found[name].float().cpu(), expected[name]) for name in found if expected[name].numel()]
    differences = [(ours - its).abs().max() / its.abs().max().clamp(min=1) for ours, its in rows]
    # Boxes without area, which are zero, have no cosine.
    cosines = [F.cosine_similarity(ours, its, dim=-1)[its.abs().amax(-1) > 0] for ours, its in rows]
    return {**judged(torch.stack(differences), precision.bound), "cosine": torch.cat(cosines).min().item()}


def judged(differences: Tensor, bound: float) -> dict[str, Any]:
    """Return the values of a row. NaN, which the largest of tensors keeps, is never held."""
    difference = differences.max().item()
    return {"difference": difference, "bound": bound, "held": difference <= bound}


def train(precision: Precision, settings: Settings) -> tuple[float, dict[str, Tensor]]:
    """Return loss and gradients of a known step: weights in float32, as the trainer has them, and autocast."""
    model, device = golden.model().to(settings.device), settings.device
    batch = {name: tensor.to(device) for name, tensor in golden.batch(0).items()}
    objective = FGClip2Objective("released").to(device)
    scale = LOSS_SCALE if precision.dtype == torch.float16 else 1.0
    mixed = precision.dtype != torch.float32
    with matrix_products(precision.matrix_products):
        with torch.autocast(device.type, precision.dtype if mixed else torch.bfloat16, enabled=mixed):
            loss = objective(model(**batch), batch)["loss"]
        (loss * scale).backward()
    gradients = {name: p.grad.float().cpu() / scale for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients


def compare_loss(precision: Precision, settings: Settings) -> dict[str, Any]:
    """Compare the loss of a step with the known one."""
    expected = golden.outputs()[1][STEP]["total_loss"]
    return judged(torch.tensor(abs(train(precision, settings)[0] / expected - 1)), precision.bound)


def compare_gradients(precision: Precision, settings: Settings) -> dict[str, Any]:
    """Compare the gradients of a step with the known ones, but for those of keys' biases, which are rounding."""
    gradients, prefix = train(precision, settings)[1], f"{STEP}.grad."
    rows = [
        (gradients[name.removeprefix(prefix)], tensor)
        for name, tensor in golden.outputs()[0].items()
        if name.startswith(prefix) and not name.endswith("k_proj.bias")
    ]
    differences = [(ours - its.view_as(ours)).abs().max() / (its.abs().max() + SMALL_GRADIENT) for ours, its in rows]
    return judged(torch.stack(differences), precision.bound)


def cases(settings: Settings) -> Iterator[Case]:
    """Give all precisions of features by both kinds of attention, then of a training step."""
    for precision in PRECISIONS:
        for attention in ("sdpa", "eager"):
            labels = {"what": "features", "precision": precision.name, "attention": attention}
            yield Case(labels, partial(compare_features, precision, attention, settings))
    for precision in PRECISIONS:
        labels = {"precision": precision.name, "attention": "sdpa"}
        yield Case({"what": "training loss", **labels}, partial(compare_loss, precision, settings))
        yield Case({"what": "gradients", **labels}, partial(compare_gradients, precision, settings))


PART = Part(
    Words("Known answers", "已知答案"),
    Words(
        "The outputs and the training step of the official code on a tiny checkpoint (`tests/golden`). The difference "
        "is the largest of any value, to the largest value of its output where that is above 1; of gradients to the "
        "largest of the parameter plus 0.01. On the CPU the tests hold 1e-5 for features in fp32.",
        "官方代码在一个极小检查点上的输出和训练步（`tests/golden`）。差值取所有数值中最大的一个；"
        "输出的最大值超过 1 时，除以该最大值；梯度的差值除以该参数梯度的最大值加 0.01。"
        "在 CPU 上，测试保证 fp32 特征的差值不超过 1e-5。",
    ),
    (
        Column("what", Words("what", "内容")),
        Column("precision", Words("precision", "精度")),
        Column("attention", Words("attention", "注意力")),
        Column("difference", Words("largest difference", "最大差值"), ".1e"),
        Column("cosine", Words("lowest cosine", "最低余弦"), ".6f"),
        Column("bound", Words("bound", "上限"), ".0e"),
        Column("held", Words("held", "满足")),
    ),
    cases,
)
