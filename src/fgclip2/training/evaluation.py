"""Evaluation of a training model on records: losses, recall@k, region and hard-negative accuracy.

Every rank embeds its share; then all have all embeddings and compute the same numbers as one process would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..data.records import RecordDataset
from ..distributed import counts_over_ranks, gather_rows, rank, world_size
from ..metrics import hard_negative_accuracy, pair_ranks, recall_at_k
from .collator import raise_error
from .image_rows import INDICES, ROWS_OF, shift, take_images
from .objective import FGClip2Objective
from .sampler import Draw

# Of a batch, beside the embeddings.
_KEPT = (*INDICES, "image_hash", "short_input_ids", "long_input_ids", "region_input_ids", "hard_negative_mask")


def share_of_rank(records: RecordDataset, batch_size: int) -> list[list[Draw]]:
    """Cut this rank's contiguous part of the records into batches, as many as on every other rank.

    Where a rank has fewer, its last batches are empty: sharded models need all ranks in each forward.
    """
    total, world = len(records), world_size()
    parts = [range(total * r // world, total * (r + 1) // world) for r in range(world)]
    batches = max(-(-len(part) // batch_size) for part in parts)
    own = parts[rank()]
    return [
        [Draw(index, 0) for index in own[number * batch_size : (number + 1) * batch_size]] for number in range(batches)
    ]


@torch.no_grad()
def embed_batches(
    forward: Callable[..., Mapping[str, Tensor]], batches: Iterable[MutableMapping[str, Any]]
) -> tuple[dict[str, Tensor], list[str]]:
    """Embed this rank's batches and gather those of all ranks.

    Args:
        forward: The model.
        batches: Batches of the collator with `training=False`, on the model's device.

    Returns:
        On the CPU, over all records in their order: the model's embeddings and scales, and of the batches the indices,
        `image_hash`, the input ids of captions and regions' texts, `region_boxes` (K, 4) and `hard_negative_mask`; and
        the reasons for what this rank left out.
    """
    pieces: list[list[dict[str, Tensor]]] = [[] for _ in range(world_size())]  # rank by rank, batch by batch
    scales: dict[str, Tensor] = {}
    skipped: list[str] = []
    for batch in batches:
        raise_error(batch)
        skipped += batch.get("skipped", [])
        outputs = forward(**{name: value for name, value in batch.items() if isinstance(value, Tensor)})
        scales = {name: value.detach().cpu() for name, value in outputs.items() if name not in ROWS_OF}
        rows = {name: value for name, value in outputs.items() if name in ROWS_OF}
        rows |= {name: batch[name] for name in _KEPT if name in batch}
        if "region_index" in batch:
            rows["region_boxes"] = batch["boxes"][tuple(batch["region_index"].unbind(1))]
        for of_rank, piece in zip(pieces, _gather(rows), strict=True):
            of_rank.append(piece)
    # All ranks' batches as one, with indices into it.
    parts: dict[str, list[Tensor]] = {}
    images = 0
    for piece in chain.from_iterable(pieces):
        for name, value in piece.items():
            parts.setdefault(name, []).append(shift(value, images) if name in INDICES else value)
        images += len(piece["image_embeds"])
    return {**{name: torch.cat(values) for name, values in parts.items()}, **scales}, skipped


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


def evaluation_metrics(
    embedded: Mapping[str, Tensor], objective: FGClip2Objective, batch_size: int
) -> dict[str, float]:
    """Compute losses, recalls and accuracies of what `embed_batches` returned.

    Equal images are one image, and equal texts (by what the tokenizer makes of them) one text, however many records
    they are in. Right are all texts of an image and all images of a text; a query counts once. Hard negatives are of
    each record by itself.

    Args:
        embedded: Embeddings, indices and scales of all records.
        objective: Its losses are means over batches of `batch_size` records in their order.
        batch_size: Records per batch of the losses, whatever the number of processes.

    Returns:
        `loss` and the named losses (`short_loss`, ...); for short and long captions `short_image_to_text_recall@1`
        and so on, among all captions or images of the set; `region_accuracy`: regions nearest to a text of their own
        among all texts of regions; `hard_negative_accuracy`: regions whose text beats all hard negatives.
    """
    metrics = _losses(embedded, objective, batch_size)
    image, first_image = _distinct(embedded["image_hash"])
    images = embedded["image_embeds"][first_image]
    for caption in ("short", "long"):
        if len(embedded.get(f"{caption}_text_embeds", ())):
            text, first_text = _distinct(embedded[f"{caption}_input_ids"])
            texts = embedded[f"{caption}_text_embeds"][first_text]
            pairs = torch.stack([image[embedded[f"{caption}_image_index"]], text], dim=1)
            ranks = {
                "image_to_text": pair_ranks(images, texts, pairs)[pairs[:, 0].unique()],
                "text_to_image": pair_ranks(texts, images, pairs.flip(1)),
            }
            for direction, its_ranks in ranks.items():
                for k, recall in recall_at_k(its_ranks).items():
                    metrics[f"{caption}_{direction}_recall@{k}"] = recall
    if len(embedded.get("region_embeds", ())):
        metrics["region_accuracy"] = _region_accuracy(embedded, image)
    if len(embedded.get("hard_region_embeds", ())):
        metrics["hard_negative_accuracy"] = hard_negative_accuracy(
            embedded["hard_region_embeds"],
            embedded["hard_positive_embeds"],
            embedded["hard_negative_embeds"],
            embedded["hard_negative_mask"],
        )
    return metrics


def _region_accuracy(embedded: Mapping[str, Tensor], image: Tensor) -> float:
    """Regions are equal if they are the same box of equal images, `image` being the number of each record's."""
    owner = image[embedded["region_index"][:, 0]]
    region, first_region = _distinct(torch.cat([owner[:, None], embedded["region_boxes"].double()], dim=1))
    text, first_text = _distinct(embedded["region_input_ids"])
    ranks = pair_ranks(
        embedded["region_embeds"][first_region],
        embedded["region_text_embeds"][first_text],
        torch.stack([region, text], dim=1),
    )
    return recall_at_k(ranks, [1])[1]


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Number rows by their content: (N, ...) -> numbers (N,) from 0 to M - 1, and the first row of each (M,)."""
    distinct, number = torch.unique(rows, dim=0, return_inverse=True)
    first = torch.full((len(distinct),), len(number))
    return number, first.scatter_reduce(0, number, torch.arange(len(number)), "amin")


def _losses(embedded: Mapping[str, Tensor], objective: FGClip2Objective, batch_size: int) -> dict[str, float]:
    images = len(embedded["image_embeds"])
    scales = {name: value for name, value in embedded.items() if name not in (*ROWS_OF, *INDICES)}
    sums: dict[str, float] = {}
    was_training = objective.training
    objective.eval()
    for start in range(0, images, batch_size):
        part = {**take_images(embedded, start, start + batch_size), **scales}
        weight = len(part["image_embeds"]) / images
        for name, value in objective(part, part, across_ranks=False).items():
            name = name if name == "loss" else f"{name}_loss"
            sums[name] = sums.get(name, 0.0) + weight * value.item()
    objective.train(was_training)
    return sums
