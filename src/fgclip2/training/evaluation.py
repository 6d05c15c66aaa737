"""Evaluation of a training model on records: losses, recall@k, region and hard-negative accuracy.

Every rank embeds its share, and reduces what only its own batch needs; then all have the other embeddings, and compute
the same numbers as one process would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor

from ..data.records import RecordDataset
from ..distributed import counts_over_ranks, device, gather_rows, rank, sum_over_ranks, world_size
from ..metrics import hard_negative_accuracy, pair_ranks, recall_at_k
from .collator import raise_error
from .image_rows import INDICES, ROWS_OF, shift
from .objective import FGClip2Objective
from .pixel_values import normalize_pixels
from .sampler import Draw

# Of a batch, beside the embeddings.
_KEPT = (
    "short_image_index",
    "long_image_index",
    "region_index",
    "image_hash",
    "short_text_hash",
    "long_text_hash",
    "region_text_hash",
)


def share_of_rank(records: RecordDataset, batch_size: int) -> list[list[Draw]]:
    """Cut the records into batches, and return this rank's contiguous part of them, as many as every other rank has.

    The batches are the same on any number of ranks. Where a rank has fewer, its last ones are empty: sharded models
    need all ranks in each forward.
    """
    draws = [Draw(index, 0) for index in range(len(records))]
    batches = [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]
    ends = [len(batches) * place // world_size() for place in range(world_size() + 1)]
    own = batches[ends[rank()] : ends[rank() + 1]]
    most = max(stop - start for start, stop in pairwise(ends))
    return own + [[] for _ in range(most - len(own))]


@torch.no_grad()
def embed_batches(
    forward: Callable[..., Mapping[str, Tensor]],
    batches: Iterable[MutableMapping[str, Any]],
    objective: FGClip2Objective,
) -> tuple[dict[str, Tensor], dict[str, float], list[str]]:
    """Embed this rank's batches, compute the losses of each, and gather the embeddings of all ranks.

    Hard negatives, which are most of the embeddings, are reduced to losses and accuracy batch by batch.

    Args:
        forward: The model.
        batches: Batches of the collator with `training=False`, on the model's device.
        objective: Objective of the run, on the model's device.

    Returns:
        - On the CPU, over all records in their order: the model's embeddings but those of hard negatives, its scales,
          and of the batches the indices, the hashes of images and texts, and `region_boxes` (K, 4);
        - `loss` and the named losses (`short_loss`, ...), means over the batches of all ranks, weighted by their
          images, and `hard_negative_accuracy`: the share of regions whose text beats all hard negatives;
        - the reasons for what this rank left out.
    """
    pieces: list[list[dict[str, Tensor]]] = [[] for _ in range(world_size())]  # rank by rank, batch by batch
    scales: dict[str, Tensor] = {}
    sums: dict[str, list[float]] = {}
    skipped: list[str] = []
    was_training = objective.training
    objective.eval()
    for batch in batches:
        raise_error(batch)
        batch = normalize_pixels(batch)
        skipped += batch.get("skipped", [])
        outputs = forward(**{name: value for name, value in batch.items() if isinstance(value, Tensor)})
        for name, (mean, weight) in _reduce(outputs, batch, objective).items():
            total = sums.setdefault(name, [0.0, 0.0])
            total[0] += mean * weight if weight else 0.0  # of no rows it may be NaN
            total[1] += weight
        scales = {name: value.detach().cpu() for name, value in outputs.items() if name not in ROWS_OF}
        rows = {name: outputs[name] for name in outputs if ROWS_OF.get(name, "hard_index") != "hard_index"}
        rows |= {name: batch[name] for name in _KEPT if name in batch}
        if "region_index" in batch:
            rows["region_boxes"] = batch["boxes"][tuple(batch["region_index"].unbind(1))]
        for of_rank, piece in zip(pieces, _gather(rows), strict=True):
            of_rank.append(piece)
    objective.train(was_training)
    totals = sum_over_ranks(torch.tensor([*sums.values()], dtype=torch.float64, device=device())).tolist()  # (names, 2)
    means = {name: total / weight for name, (total, weight) in zip(sums, totals, strict=True) if weight}
    # All ranks' batches as one, with indices into it.
    parts: dict[str, list[Tensor]] = {}
    images = 0
    for piece in chain.from_iterable(pieces):
        for name, value in piece.items():
            parts.setdefault(name, []).append(shift(value, images) if name in INDICES else value)
        images += len(piece["image_embeds"])
    return {**{name: torch.cat(values) for name, values in parts.items()}, **scales}, means, skipped


def _reduce(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Any], objective: FGClip2Objective
) -> dict[str, tuple[float, int]]:
    """Return losses and hard-negative accuracy of a batch, each with its weight: the number of images or regions."""
    images = len(outputs["image_embeds"])
    losses = objective(outputs, batch, across_ranks=False)
    found = {name if name == "loss" else f"{name}_loss": (value.item(), images) for name, value in losses.items()}
    if "hard_negative_embeds" in outputs:
        regions = outputs["hard_region_embeds"]
        accuracy = hard_negative_accuracy(
            regions, outputs["hard_positive_embeds"], outputs["hard_negative_embeds"], batch.get("hard_negative_mask")
        )
        found["hard_negative_accuracy"] = (accuracy, len(regions))
    return found


def _gather(rows: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return each rank's rows, on the CPU: a batch at a time, since a device may not have room for all."""
    counted = ["image_embeds", *(name for name in INDICES if name in rows)]
    counts = counts_over_ranks([len(rows[name]) for name in counted], rows["image_embeds"].device)
    of_index = {name: [row[number] for row in counts] for number, name in enumerate(counted)}
    gathered: list[dict[str, Tensor]] = [{} for _ in counts]
    for name, value in rows.items():
        of_ranks = of_index[name if name in INDICES else ROWS_OF[name] or "image_embeds"]
        for part, piece in zip(gathered, gather_rows(value, of_ranks).cpu().split(of_ranks), strict=True):
            part[name] = piece
    return gathered


def evaluation_metrics(embedded: Mapping[str, Tensor]) -> dict[str, float]:
    """Compute recalls and region accuracy of what `embed_batches` returned.

    Equal images are one image, and equal texts (by what the tokenizer makes of them) one text, however many records
    they are in. Right are all texts of an image and all images of a text; a query counts once.

    Args:
        embedded: Embeddings, indices and scales of all records.

    Returns:
        For short and long captions `short_image_to_text_recall@1` and so on, among all captions or images of the set;
        `region_accuracy`: regions nearest to a text of their own among all texts of regions.
    """
    metrics: dict[str, float] = {}
    image, first_image = distinct(embedded["image_hash"])
    images = embedded["image_embeds"][first_image]
    for caption in ("short", "long"):
        if len(embedded.get(f"{caption}_text_embeds", ())):
            text, first_text = distinct(embedded[f"{caption}_text_hash"])
            texts = embedded[f"{caption}_text_embeds"][first_text]
            pairs = torch.stack([image[embedded[f"{caption}_image_index"]], text], dim=1)
            for name, recall in recalls(images, texts, pairs).items():
                metrics[f"{caption}_{name}"] = recall
    if len(embedded.get("region_embeds", ())):
        metrics["region_accuracy"] = _region_accuracy(embedded, image)
    return metrics


def recalls(images: Tensor, texts: Tensor, pairs: Tensor) -> dict[str, float]:
    """Compute recalls of retrieval in both directions; a query counts once.

    Args:
        images, texts: Embeddings, (N, D) and (M, D), of distinct images and texts.
        pairs: Integer, shape (P, 2), (image, text) of each pair that belongs together.

    Returns:
        `image_to_text_recall@1` and so on.
    """
    ranks = {
        "image_to_text": pair_ranks(images, texts, pairs)[pairs[:, 0].unique()],
        "text_to_image": pair_ranks(texts, images, pairs.flip(1)),
    }
    return {
        f"{direction}_recall@{k}": recall
        for direction, its_ranks in ranks.items()
        for k, recall in recall_at_k(its_ranks).items()
    }


def _region_accuracy(embedded: Mapping[str, Tensor], image: Tensor) -> float:
    """Regions are equal if they are the same box of equal images, `image` being the number of each record's."""
    owner = image[embedded["region_index"][:, 0]]
    region, first_region = distinct(torch.cat([owner[:, None], embedded["region_boxes"].double()], dim=1))
    text, first_text = distinct(embedded["region_text_hash"])
    ranks = pair_ranks(
        embedded["region_embeds"][first_region],
        embedded["region_text_embeds"][first_text],
        torch.stack([region, text], dim=1),
    )
    return recall_at_k(ranks, [1])[1]


def distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Number rows by their content: (N, ...) -> numbers (N,) from 0 to M - 1, and the first row of each (M,)."""
    distinct, number = torch.unique(rows, dim=0, return_inverse=True)
    first = torch.full((len(distinct),), len(number))
    return number, first.scatter_reduce(0, number, torch.arange(len(number)), "amin")
