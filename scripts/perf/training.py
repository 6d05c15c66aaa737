"""Speed and memory of training: the step of the full objective, its sigmoid loss over ranks, gradient cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip2 import FGClip2Config
from fgclip2.distributed import world_size
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.gradient_cache import cached_step
from fgclip2.training.losses.sigmoid_over_ranks import SIGMOID_FORMS, SigmoidForm, sigmoid_loss_over_ranks
from fgclip2.training.objective import FGClip2Objective
from fgclip2.training.patch_dropout import draw_kept_patches, take_patches

from .measuring import Row, added_peak_memory, in_fresh_process, on_ranks, paired_ratio, peak_memory
from .reference_training import padded_batch, reference_loss

EXPLANATION = """\
Random weights, CPU, float32. For each image a batch has a short and a long caption and 1 to 4 boxes, 2.5 on average, of
which a third has ten hard negatives. *Added memory* is the peak of one step (forward and backward, gradients included)
above what the process holds with the model and the batch loaded. The *plain step* computes the same objective with the
same parameters; it encodes every slot of a batch padded to 4 boxes per image, each kind of text by itself, loops over
images and boxes, and masks with floats of N x N (`scripts/perf/reference_training.py`)."""

# Grids that the image processor makes within 256 patches: of 640x480, 480x640, squares and 16:9.
GRIDS = ((13, 18), (18, 13), (16, 16), (12, 21))
BOX_COUNTS = (4, 3, 2, 1)
STEP_SHAPE = {"width": 384, "layers": 6, "vocabulary": 64_000}  # the published 768, 12, 256,000, in proportion
# What the plain step encodes beside what is there: bounds by figure.
SLOTS: dict[str, dict[str, float]] = {
    "all slots": {"speed": 1.5, "added memory": 0.7},
    "no hard negatives of empty slots": {},
}
LARGEST_LOGITS = 2**26  # of the form "gather": 268 MB a copy, of which it has several on each rank
RING_GROWTH = 1.15  # from one process to four
CACHE_SHAPE = {"width": 64, "layers": 2, "vocabulary": 1_000}


def row_groups(runs: int) -> list[Callable[[], list[Row]]]:
    """The measurements, quick ones first."""
    return [
        gradient_cache_rows,
        sigmoid_rows,
        lambda: patch_dropout_rows(max(2, runs // 3)),
        lambda: step_rows(max(2, runs // 3)),
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Models and batches
# ---------------------------------------------------------------------------------------------------------------------


def random_model(width: int, layers: int, vocabulary: int) -> FGClip2ForTraining:
    torch.manual_seed(0)
    tower = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
    }
    config = FGClip2Config(text_config={**tower, "vocab_size": vocabulary}, vision_config=tower)
    return FGClip2ForTraining(config).train()


def random_batch(images: int, vocabulary: int, num_patches: int = 256) -> dict[str, Tensor]:
    """Make a batch as the collator makes it of `images` records; every 12 images have the same counts."""
    rng = np.random.default_rng(0)
    grids = torch.tensor(list(islice(cycle(GRIDS), images))) * math.isqrt(num_patches // 256)
    counts = list(islice(cycle(BOX_COUNTS), images))
    regions = torch.tensor([(image, box) for image, count in enumerate(counts) for box in range(count)])
    hard = regions[::3]
    region_ids = random_ids(rng, len(regions), 64, (3, 15), vocabulary)
    hard_ids = random_ids(rng, 11 * len(hard), 64, (3, 15), vocabulary).view(len(hard), 11, 64)
    hard_ids[::2, 0] = region_ids[::3][
        ::2
    ]  # of half of the regions the long text is drawn, so these have the short one
    corners = torch.from_numpy(rng.uniform(0, 0.6, (images, 4, 2))).float()
    sizes = torch.from_numpy(rng.uniform(0.1, 0.4, (images, 4, 2))).float()
    boxes = torch.cat([corners, corners + sizes], -1)
    boxes[torch.arange(4) >= torch.tensor(counts)[:, None]] = 0
    return {
        "pixel_values": torch.from_numpy(rng.uniform(-1, 1, (images, num_patches, 768)).astype(np.float32)),
        "pixel_attention_mask": (torch.arange(num_patches) < grids.prod(1)[:, None]).int(),
        "spatial_shapes": grids,
        "short_input_ids": random_ids(rng, images, 64, (6, 20), vocabulary),
        "long_input_ids": random_ids(rng, images, 196, (60, 160), vocabulary),
        "boxes": boxes,
        "region_index": regions,
        "region_input_ids": region_ids,
        "hard_index": hard,
        "hard_input_ids": hard_ids,
    }


def random_ids(rng: np.random.Generator, texts: int, length: int, words: tuple[int, int], vocabulary: int) -> Tensor:
    """Texts of so many tokens, an end and padding; (texts, length)."""
    ids = rng.integers(3, vocabulary, (texts, length))
    ends = rng.integers(*words, (texts, 1))
    position = np.arange(length)
    return torch.from_numpy(np.where(position < ends, ids, np.where(position == ends, 1, 0)))


# ---------------------------------------------------------------------------------------------------------------------
# The step of the full objective
# ---------------------------------------------------------------------------------------------------------------------


def our_step(model: FGClip2ForTraining, batch: dict[str, Tensor]) -> Tensor:
    """Forward and backward; the loss."""
    model.zero_grad()
    loss = FGClip2Objective("released")(model(**batch), batch)["loss"]
    loss.backward()
    return loss.detach()


def reference_step(model: FGClip2ForTraining, batch: dict[str, Tensor]) -> Tensor:
    """Compute the same objective on a [`padded_batch`]."""
    model.zero_grad()
    loss = reference_loss(model, batch)
    loss.backward()
    return loss.detach()


def step_rows(runs: int, images: int = 8, shape: dict[str, int] = STEP_SHAPE) -> list[Row]:
    model, batch = random_model(**shape), random_batch(images, shape["vocabulary"])
    padded = padded_batch(batch)
    rows = equality_rows(model, batch, padded)
    our_peak = in_fresh_process(step_memory, "ours", images, shape)
    for slots, bounds in SLOTS.items():
        padded = padded_batch(batch, pad_hard_negatives=slots == "all slots")
        ratio = paired_ratio(partial(reference_step, model, padded), partial(our_step, model, batch), runs)
        peak = in_fresh_process(step_memory, slots, images, shape)
        name = f"full-objective step / plain step ({slots}), {images} images"
        rows.append(bounded_row(f"{name}, samples per second", ratio, bounds.get("speed"), ">="))
        for kind, ours, theirs in zip(("added memory", "peak memory of the process"), our_peak, peak, strict=True):
            note = f"{ours / 1e9:.2f} / {theirs / 1e9:.2f} GB"
            rows.append(bounded_row(f"{name}, {kind}", ours / theirs, bounds.get(kind), "<=", note))
    return rows


def equality_rows(model: FGClip2ForTraining, batch: dict[str, Tensor], padded: dict[str, Tensor]) -> list[Row]:
    """How far our loss and gradients are from those of the plain step."""
    theirs, their_gradients = reference_step(model, padded), _gradients(model)
    ours, our_gradients = our_step(model, batch), _gradients(model)
    loss = abs(ours / theirs - 1).item()
    gradient = max(
        ((our_gradients[name] - gradient).abs().max() / gradient.abs().max()).item()
        for name, gradient in their_gradients.items()
    )
    return [
        bounded_row("full-objective step and plain step, relative difference of the loss", loss, 1e-5, "<=", unit=""),
        bounded_row("the same, difference of a gradient to its parameter's largest", gradient, 1e-3, "<=", unit=""),
    ]


def _gradients(model: FGClip2ForTraining) -> dict[str, Tensor]:
    # The keys' bias has a gradient of zero, but for rounding: softmax does not see what is added to all scores.
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.endswith("k_proj.bias")
    }


def step_memory(kind: str, images: int, shape: dict[str, int]) -> tuple[int, int]:
    """Added and whole peak memory of one step, "ours" or one on padded slots."""
    model, batch = random_model(**shape), random_batch(images, shape["vocabulary"])
    if kind == "ours":
        step = partial(our_step, model, batch)
    else:
        step = partial(reference_step, model, padded_batch(batch, pad_hard_negatives=kind == "all slots"))
    added = added_peak_memory(step)
    return added, peak_memory()


# ---------------------------------------------------------------------------------------------------------------------
# Patch dropout
# ---------------------------------------------------------------------------------------------------------------------


def patch_dropout_rows(runs: int, images: int = 8, shape: dict[str, int] = STEP_SHAPE) -> list[Row]:
    """Time and added memory of a step on captions alone with half of the patches, beside one with all."""
    dropped, whole = (partial(_captions_step, *_captions_batch(kind, images, shape)) for kind in ("half", "all"))
    peaks = [in_fresh_process(captions_memory, kind, images, shape) for kind in ("half", "all")]
    name = f"step on captions with half of the patches / with all, {images} images"
    note = " / ".join(f"{peak / 1e9:.2f}" for peak in peaks) + " GB"
    return [
        Row(f"{name}, time", paired_ratio(dropped, whole, runs), "x"),
        Row(f"{name}, added memory", peaks[0] / peaks[1], "x", note=note),
    ]


def captions_memory(kind: str, images: int, shape: dict[str, int]) -> int:
    return added_peak_memory(partial(_captions_step, *_captions_batch(kind, images, shape)))


def _captions_batch(kind: str, images: int, shape: dict[str, int]) -> tuple[FGClip2ForTraining, dict[str, Tensor]]:
    batch = random_batch(images, shape["vocabulary"])
    batch = {name: value for name, value in batch.items() if not name.startswith(("boxes", "region_", "hard_"))}
    if kind == "half":
        counts = batch["pixel_attention_mask"].sum(1).tolist()
        rngs = [np.random.default_rng(number) for number in range(images)]
        kept = batch["kept_patches"] = draw_kept_patches(counts, 0.5, rngs)
        batch["pixel_values"], batch["pixel_attention_mask"] = take_patches(batch["pixel_values"], kept)
    return random_model(**shape), batch


def _captions_step(model: FGClip2ForTraining, batch: dict[str, Tensor]) -> None:
    model.zero_grad()
    FGClip2Objective("released")(model(**batch), batch)["loss"].backward()


# ---------------------------------------------------------------------------------------------------------------------
# The sigmoid loss over ranks
# ---------------------------------------------------------------------------------------------------------------------


def sigmoid_rows(
    batches: Sequence[int] = (1024, 4096, 8192), world_sizes: Sequence[int] = (1, 2, 3, 4), width: int = 256
) -> list[Row]:
    """Added memory of the sigmoid loss alone by form, pairs per rank and number of processes."""
    rows = []
    for form in SIGMOID_FORMS:
        for batch in batches:
            peaks = [
                max(on_ranks(sigmoid_memory, world_size, form, batch, width)) / 1e6
                for world_size in world_sizes
                if form != "gather" or batch**2 * world_size <= LARGEST_LOGITS
            ]
            cells = [f"{peak:.0f}" for peak in peaks] + ["-"] * (len(world_sizes) - len(peaks))
            name = f"sigmoid loss, {form}, {batch:,} pairs per rank, added memory of a rank"
            note = f"{' / '.join(cells)} MB with {' / '.join(map(str, world_sizes))} processes"
            rows.append(Row(name, None, "", note=note))
            if form == "ring":
                growth = peaks[-1] / peaks[0]
                name = f"the same, {world_sizes[-1]} processes / {world_sizes[0]}"
                rows.append(bounded_row(name, growth, RING_GROWTH, "<="))
    return rows


def sigmoid_memory(form: SigmoidForm, batch: int, width: int) -> float:
    """Added memory of this rank's forward and backward with `batch` pairs."""
    images, texts = (F.normalize(torch.randn(batch, width), dim=-1).requires_grad_() for _ in "it")
    scale, bias = torch.tensor([2.3], requires_grad=True), torch.tensor([-10.0], requires_grad=True)
    _sigmoid_step(images[:8], texts[:8], scale, bias, form)  # opens the connections
    return added_peak_memory(partial(_sigmoid_step, images, texts, scale, bias, form))


def _sigmoid_step(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, form: SigmoidForm) -> None:
    counts = [len(images)] * world_size()
    sigmoid_loss_over_ranks(images, texts, scale, bias, counts, form).backward()


# ---------------------------------------------------------------------------------------------------------------------
# Gradient cache
# ---------------------------------------------------------------------------------------------------------------------


def gradient_cache_rows(runs: int = 3, sizes: Sequence[int] = (8, 32, 128), chunk_size: int = 8) -> list[Row]:
    """Added memory of a step by number of images, plain and cached, and what the second forward pass costs.

    That of cached steps, which has a bound, is the least of `runs` processes: what else a machine does at the time can
    only add to it.
    """
    peaks = {
        kind: [
            min(in_fresh_process(cache_memory, kind, images, chunk_size) for _ in range(times)) / 1e6
            for images in sizes
        ]
        for kind, times in (("plain", 1), ("cached", runs))
    }
    growth = max(peaks["cached"]) / min(peaks["cached"])
    rows = []
    for kind, values in peaks.items():
        note = f"{' / '.join(f'{peak:.0f}' for peak in values)} MB with {' / '.join(map(str, sizes))} images"
        rows.append(Row(f"{kind} step, added memory", None, "", note=note))
    rows.append(bounded_row(f"cached step, chunks of {chunk_size}, largest added memory / smallest", growth, 1.3, "<="))
    model, batch = random_model(**CACHE_SHAPE), random_batch(sizes[1], CACHE_SHAPE["vocabulary"])
    steps = (partial(CACHE_STEPS[kind], model, batch, chunk_size) for kind in ("cached", "plain"))
    rows.append(Row(f"cached step / plain step, time, {sizes[1]} images", paired_ratio(*steps, runs), "x"))
    return rows


def cache_memory(kind: str, images: int, chunk_size: int) -> int:
    model, batch = random_model(**CACHE_SHAPE), random_batch(images, CACHE_SHAPE["vocabulary"])
    return added_peak_memory(partial(CACHE_STEPS[kind], model, batch, chunk_size))


def _plain(model: FGClip2ForTraining, batch: dict[str, Tensor], chunk_size: int) -> None:
    our_step(model, batch)


def _cached(model: FGClip2ForTraining, batch: dict[str, Tensor], chunk_size: int) -> None:
    model.zero_grad()
    cached_step(model, FGClip2Objective("released"), batch, chunk_size)


CACHE_STEPS = {"plain": _plain, "cached": _cached}


def bounded_row(name: str, value: float, bound: float | None, sign: str, note: str = "", unit: str = "x") -> Row:
    if bound is None:
        return Row(name, value, unit, note=note)
    return Row(name, value, unit, f"{sign} {bound:g}", value >= bound if sign == ">=" else value <= bound, note)
