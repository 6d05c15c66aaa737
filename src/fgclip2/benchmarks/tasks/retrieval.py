"""Retrieval of captions by images and of images by captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...checks import check_choice, check_flag
from ...metrics import bootstrap, median_rank
from ...modeling.interface import Role
from ..base import DataSet, Settings
from ..encoding import Encoder
from ..scores import Estimate, Scores, mean, ranks_of, recalls

KS = (1, 5, 10)

_ROLES: dict[str, Role] = {"short": "caption", "long": "long_caption"}  # of `walk_type`


@dataclass(frozen=True)
class RetrievalData(DataSet):
    """Images and captions; an image may have several captions, and a caption several images."""

    captions: Sequence[str]
    pairs: Sequence[tuple[int, int]]  # (image, caption) that belong together

    @property
    def items(self) -> int:
        """See the base class."""
        return len(self.captions)

    @property
    def own_texts(self) -> Sequence[str]:
        """See the base class."""
        return self.captions


@dataclass(frozen=True)
class RetrievalSettings(Settings):
    """Settings of image-text retrieval."""

    walk_type: str = "short"  # "short" or "long" captions; models of one text head ignore it
    lower_case: bool = True  # False: FG-CLIP 2 reads texts as they are written, though it was trained otherwise

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("walk_type", self.walk_type, _ROLES)
        check_flag("lower_case", self.lower_case)

    @property
    def role(self) -> Role:
        """See the base class."""
        return _ROLES[self.walk_type]


def evaluate(data: RetrievalData, encoder: Encoder, settings: RetrievalSettings, language: str) -> Scores:
    """Compute recall at 1, 5 and 10, mean and median rank, both ways; ties count as wrong.

    An image that can't be read is left out, and with it a caption that has no other image. Images without a caption
    are candidates only, and so are captions that never had an image. Captions of several images that say the same are
    one candidate, right for each of them: no image is to be told apart from another by equal texts. As queries each has
    its own image to find, as published.

    Returns:
        Scores; `per_item` has the rank of each image and caption, 0 for what is no query.

    Raises:
        ValueError: No image with a caption can be read.
    """
    encoded = encoder.images(data.images, settings.max_num_patches)
    all_pairs = np.asarray(data.pairs, dtype=np.int64).reshape(-1, 2)
    pairs = all_pairs[encoded.rows[all_pairs[:, 0]] > 0]
    encoded.check_some(len(pairs))
    is_orphan = np.zeros(len(data.captions), dtype=bool)
    is_orphan[all_pairs[:, 1]] = True
    is_orphan[pairs[:, 1]] = False
    captions = np.flatnonzero(~is_orphan)
    texts = encoder.texts([data.captions[index] for index in captions.tolist()], settings.role, settings.lower_case)
    # From here on rows: of the images that can be read, of the captions that stay, and of these each text once.
    image_rows, rows = np.searchsorted(encoded.owners, pairs[:, 0]), np.searchsorted(captions, pairs[:, 1])
    number: dict[str, int] = {}
    said = (" ".join(data.captions[index].lower().split()) for index in captions.tolist())
    distinct = np.array([number.setdefault(text, len(number)) for text in said])
    _, firsts = np.unique(distinct, return_index=True)
    scores: dict[str, Estimate] = {}
    per_item: dict[str, np.ndarray] = {}
    for name, queries, candidates, its_pairs, owners, size in (
        (
            "image_to_text",
            encoded.vectors,
            texts[firsts],
            np.stack([image_rows, distinct[rows]], axis=1),  # (pairs, 2)
            encoded.owners,
            len(data.images),
        ),
        (
            "text_to_image",
            texts,
            encoded.vectors,
            np.stack([rows, image_rows], axis=1),  # (pairs, 2)
            captions,
            len(data.captions),
        ),
    ):
        query, first = np.unique(its_pairs[:, 0], return_index=True)
        ranks = ranks_of(queries, candidates, its_pairs, encoder.model)[query]
        # The captions of one image are not independent.
        groups = query if name == "image_to_text" else its_pairs[first, 1]
        scores |= scores_of_ranks(f"{name}/", ranks, groups)
        per_item[f"{name}/rank"] = np.zeros(size, dtype=np.int64)
        per_item[f"{name}/rank"][owners[query]] = ranks
    return Scores(scores, per_item, encoded.problems)


def scores_of_ranks(prefix: str, ranks: np.ndarray, groups: np.ndarray) -> dict[str, Estimate]:
    """Return recalls, their mean, mean and median rank of the queries of one direction.

    Args:
        prefix: What the names of the scores begin with.
        ranks: Int64 (N,), from 1.
        groups: Int64 (N,); queries of one group are not independent.
    """
    recall = np.mean([ranks <= k for k in KS], axis=0)  # (N,)
    return {
        **recalls(ranks, groups, f"{prefix}recall@", KS),
        f"{prefix}mean_recall": mean(recall, groups),
        f"{prefix}mean_rank": mean(ranks, groups),
        f"{prefix}median_rank": Estimate(
            median_rank(ranks), len(ranks), lambda: bootstrap(median_rank, ranks, groups=groups)
        ),
    }
