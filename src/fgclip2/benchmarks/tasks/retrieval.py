"""Retrieval of captions by images and of images by captions."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...checks import check_choice
from ...embedding.reranker import CANDIDATES
from ...metrics import bootstrap, count_equal_before, median_rank
from ..base import CaptionSettings, DataSet
from ..encoding import Encoder
from ..reranking import rerank_both_ways, reranked_ranks
from ..scores import Estimate, Scores, mean, ranks_of, recalls

KS = (1, 5, 10)


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
class RetrievalSettings(CaptionSettings):
    """Settings of image-text retrieval."""

    equal_captions: str = "one"  # captions that say the same: "one" candidate, or "separate" ones

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("equal_captions", self.equal_captions, ("one", "separate"))


def evaluate(
    data: RetrievalData,
    encoder: Encoder,
    settings: RetrievalSettings,
    language: str,
    rerank: str | None = None,
    candidates: int = CANDIDATES,
) -> Scores:
    """Compute recall at 1, 5 and 10, mean and median rank, both ways; ties count as wrong.

    An image that can't be read is left out, and with it a caption that has no other image. Images without a caption
    are candidates only, and so are captions that never had an image. As queries captions that say the same have each
    its own image to find, as published. As candidates they are one with `equal_captions="one"`, right for each of its
    images: no image is to be told apart from another by equal texts. With `"separate"` each stays a candidate of its
    own, and the later one comes first, as FG-CLIP 2's released scripts sort them: a stable sort by rising similarity,
    whose end counts.

    With `rerank`, "phrases" or "model", so many first candidates of each query are re-ranked as well, and scores whose
    names begin with `reranked/` are of that order, in which captions that say the same tie.

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
    # From here on rows: of the images that can be read, of the captions that stay, and of the candidates among these.
    image_rows, rows = np.searchsorted(encoded.owners, pairs[:, 0]), np.searchsorted(captions, pairs[:, 1])
    is_separate = settings.equal_captions == "separate"
    candidate = (
        np.arange(len(captions)) if is_separate else _numbers(_said(data, captions, settings))
    )  # of each caption
    _, firsts = np.unique(candidate, return_index=True)
    scores: dict[str, Estimate] = {}
    per_item: dict[str, np.ndarray] = {}
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if rerank:
        said = [data.captions[index] for index in captions[firsts].tolist()]
        pictures = [data.images[index] for index in encoded.owners.tolist()]
        both = (texts[firsts], encoded.vectors)
        found = rerank_both_ways(encoder, settings, said, pictures, *both, rerank, candidates)
        rows_of_texts, scores_of_texts = found["text_to_image"]
        found["text_to_image"] = rows_of_texts[candidate], scores_of_texts[candidate]  # of each caption
    for name, queries, among, its_pairs, owners, size in (
        (
            "image_to_text",
            encoded.vectors,
            texts[firsts],
            np.stack([image_rows, candidate[rows]], axis=1),  # (pairs, 2)
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
        ranks = ranks_of(queries, among, its_pairs, encoder.model)
        if is_separate and name == "image_to_text":  # a tie of equal texts goes by their order
            equal = _numbers(vector.tobytes() for vector in texts)
            ranks = ranks - count_equal_before(queries, among, its_pairs, equal)
        # The captions of one image are not independent.
        groups = query if name == "image_to_text" else its_pairs[first, 1]
        orders = {name: ranks}
        if found:
            orders[f"reranked/{name}"] = reranked_ranks(ranks, *found[name], its_pairs)
        for order, its_ranks in orders.items():
            scores |= scores_of_ranks(f"{order}/", its_ranks[query], groups)
            per_item[f"{order}/rank"] = np.zeros(size, dtype=np.int64)
            per_item[f"{order}/rank"][owners[query]] = its_ranks[query]
    return Scores(scores, per_item, encoded.problems)


def _said(data: RetrievalData, captions: np.ndarray, settings: RetrievalSettings) -> Iterator[str]:
    """Yield what each of some captions says, however it is spaced and, unless case counts, spelled."""
    for index in captions.tolist():
        text = " ".join(data.captions[index].split())
        yield text.lower() if settings.lower_case else text


def _numbers(values: Iterable[Hashable]) -> np.ndarray:
    """Return int64 (N,), the same number for values that are equal."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(value, len(number)) for value in values])


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
