"""Negatives mined from a dual encoder: records whose images it takes for each other share a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from ..checks import check_positive_integer
from ..data.records import Record, RecordDataset, open_record_image
from ..embedding import Embedder
from .collator import hash_images
from .mixture import sampling_rates_of

_QUERIES_PER_BLOCK = 1024


class NeighbouringRecords(RecordDataset):
    """Records with their neighbours, which the trainer puts into the same batches.

    Args:
        records: The records.
        neighbours: Integer, shape (N, K), from [`mine_neighbours`].
        group_size: Records that follow each other; a batch may end within a group.

    Raises:
        ValueError: There are not as many rows of neighbours as records.
    """

    def __init__(self, records: RecordDataset, neighbours: np.ndarray, group_size: int = 4):
        check_positive_integer("`group_size`", group_size)
        if len(neighbours) != len(records):
            raise ValueError(
                f"`neighbours` must have a row for each of the {len(records)} records, got {len(neighbours)}"
            )
        if any(rate != 1 for rate in sampling_rates_of(records)):
            raise ValueError(
                "`records` with neighbours must be concatenated without sampling rates: each is drawn once"
            )
        self.records, self.neighbours, self.group_size = records, neighbours, group_size
        self.languages = records.languages

    def _read(self, index: int) -> Record:
        return self.records[index]

    def _source(self, index: int) -> str:
        return self.records.source(index)


def mine_neighbours(
    embedder: Embedder, records: RecordDataset, count: int = 20, max_num_patches: int | str | None = None
) -> np.ndarray:
    """Find for each record those of its language whose images a dual encoder ranks first for its caption.

    Records of an equal picture are left out: what describes one of them is true of the others.

    Args:
        embedder: Of the dual encoder, which stays as it is.
        records: All are read, their images and their captions, long ones where there are any.
        count: Neighbours of a record; fewer where the language has fewer records of other pictures.
        max_num_patches: Of the images.

    Returns:
        Integer, shape (N, count), the nearest first; -1 where there are no more.
    """
    texts = [record.long_caption or record.short_caption or "" for record in records]
    hashes: list[torch.Tensor] = []

    def opened() -> Iterator[Image.Image]:  # one after the other: together they may not fit into memory
        for record in records:
            image = open_record_image(record)
            hashes.append(hash_images([image]))
            yield image

    images = torch.from_numpy(embedder.encode_images(opened(), max_num_patches))
    pictures = torch.cat(hashes)
    captions = torch.from_numpy(embedder.encode_texts(texts))
    neighbours = np.full((len(records), count), -1)
    for language in np.unique(records.languages):
        rows = torch.from_numpy(np.flatnonzero(records.languages == language))
        kept = min(count, len(rows) - 1)
        for block in rows.split(_QUERIES_PER_BLOCK):
            cosines = captions[block] @ images[rows].T  # (block, records of the language)
            cosines[pictures[block, None] == pictures[rows]] = -torch.inf
            nearest = cosines.topk(kept)
            neighbours[block, :kept] = rows[nearest.indices].where(nearest.values > -torch.inf, -1)
    return neighbours
