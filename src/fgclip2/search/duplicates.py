"""Groups of near-duplicates: images whose vectors are nearly the same as that of the best of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checks import check_number
from .index import ImageIndex

# Of the embedded checkpoint, on its drawings: 91% of pictures at half their size, 92% as JPEGs of quality 50 and 76%
# cropped by 3% on each side reach it, and 2 of 137 among other pictures, the same peach by two artists.
DEFAULT_THRESHOLD = 0.95
ROWS_PER_BLOCK = 1024
COLUMNS_PER_BLOCK = 16384  # a product of a block has 64 MB


class Duplicate(NamedTuple):
    """An image of a group.

    Attributes:
        path: See [`SearchHit`].
        size: Of its file in bytes.
        score: Its cosine with the best image of the group.
        id: Of the entry: in a folder or an archive its path there.
    """

    path: Path
    size: int
    score: float
    id: str


class DuplicateGroup(NamedTuple):
    """An image and those that nearly equal it.

    Attributes:
        best: The largest file of the group.
        others: Each at least as similar to `best` as the threshold says, most similar first.
    """

    best: Duplicate
    others: list[Duplicate]


def star_groups(vectors: np.ndarray, order: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Put vectors into groups around centres, so that each has at least some cosine with the centre of its group.

    In the given order, a vector joins the nearest centre that there is so far, or becomes one where none is near
    enough. So no two centres are that near each other, and chains don't grow, as they would in connected groups, in
    which the first and the last photo of a slow pan would count as the same. Memory grows with the number of vectors,
    not of pairs, even if all are equal: vectors meet centres in blocks.

    Args:
        vectors: Float32 (N, D), L2-normalised.
        order: Int (N,), the rows in the order in which they may become centres.
        threshold: The lowest cosine with a centre.

    Returns:
        The row of the centre of each vector, int64 (N,), its own for a centre, and the cosines with it, float32 (N,).
    """
    centre_of = np.arange(len(vectors))
    cosines = np.ones(len(vectors), np.float32)
    centres = np.empty(len(vectors), np.int64)
    count = 0
    for start in range(0, len(order), ROWS_PER_BLOCK):
        rows = order[start : start + ROWS_PER_BLOCK]
        block = vectors[rows]  # (B, D)
        best = np.full(len(rows), -2, np.float32)
        nearest = np.zeros(len(rows), np.int64)
        for first in range(0, count, COLUMNS_PER_BLOCK):
            some = centres[first : min(first + COLUMNS_PER_BLOCK, count)]
            products = block @ vectors[some].T  # (B, some centres)
            columns = products.argmax(1)
            found = products[np.arange(len(rows)), columns]
            nearer = found > best
            best[nearer], nearest[nearer] = found[nearer], some[columns[nearer]]
        within = block @ block.T  # (B, B): those that become centres of this block meet the rows behind them
        for place, row in enumerate(rows):
            if best[place] >= threshold:
                centre_of[row], cosines[row] = nearest[place], best[place]
                continue
            centres[count] = row
            count += 1
            behind = within[place, place + 1 :]
            nearer = np.flatnonzero(behind > best[place + 1 :]) + place + 1
            best[nearer], nearest[nearer] = within[place, nearer], row
    return centre_of, cosines


def find_duplicates(index: ImageIndex, threshold: float = DEFAULT_THRESHOLD) -> list[DuplicateGroup]:
    """Find the near-duplicates among the images of an index; nothing is deleted or changed.

    Args:
        index: Of a folder, an archive or another source.
        threshold: The lowest cosine with the best image of a group. Its meaning differs from model to model: look at
            some groups before you rely on it.

    Returns:
        Groups of two images at least, the largest first, of equal ones the first by path.

    Raises:
        ValueError: `threshold` is no number from 0 to 1.
    """
    check_number("threshold", threshold, 0, 1)
    sizes = np.array([file.size for file in index.files], np.int64)
    order = np.argsort(-sizes, kind="stable")  # the largest file first, of equal ones the first by path
    centre_of, cosines = star_groups(index.vectors, order, threshold)
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(centre_of != np.arange(len(centre_of))).tolist():
        members.setdefault(int(centre_of[row]), []).append(row)

    def image(row: int) -> Duplicate:
        file = index.files[row]
        return Duplicate(index.source.shown_path(file.path), file.size, float(cosines[row]), file.path)

    groups = [
        DuplicateGroup(image(centre), [image(row) for row in sorted(rows, key=lambda row: (-cosines[row], row))])
        for centre, rows in members.items()
    ]
    return sorted(groups, key=lambda group: (-len(group.others), group.best.path))
