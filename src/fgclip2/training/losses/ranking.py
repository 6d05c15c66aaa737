"""Losses of R2D2: contrast of embeddings with several positives (GCPR), and match or no match of pairs (FGR)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import check_choice
from ...distributed import counts_over_ranks, gather_rows
from ...modeling.modeling_r2d2 import mean_probabilities
from .arithmetic import cosines

MatchingForm = Literal["fgr", "nll", "released"]
MATCHING_FORMS: tuple[MatchingForm, ...] = ("fgr", "nll", "released")
MATCH_WEIGHTS = (1.0, 2.0)  # of [no match, match] in FGR: there are two negatives for each positive


class PairRows(NamedTuple):
    """Embeddings of pairs, row i of both being pair i.

    Attributes:
        images, texts: Shape (N, D), L2-normalised.
        ids: Integer, shape (N,): pairs of equal ids belong together.
    """

    images: Tensor
    texts: Tensor
    ids: Tensor


def contrastive_ranking_loss(image_embeds: Tensor, text_embeds: Tensor, temperature: Tensor, ids: Tensor) -> Tensor:
    """Contrast this rank's pairs with the images and texts of all ranks; equal ids share the target (GCPR).

    Args:
        image_embeds, text_embeds: Shape (N, D), this rank's, L2-normalised, text i belonging to image i.
        temperature: One element, by which cosines are divided.
        ids: Integer, shape (N,): pairs of equal ids, on any rank, belong together.

    Returns:
        Scalar: the mean over this rank's rows of both cross-entropies, halved. Gradients reach other ranks' rows; the
        mean over ranks of equally many pairs is the loss of one process with all of them.
    """
    counts = [count for (count,) in counts_over_ranks([len(ids)], ids.device)]
    gathered = (gather_rows(rows, counts) for rows in (image_embeds, text_embeds, ids))
    return gathered_contrastive_ranking_loss(image_embeds, text_embeds, temperature, ids, *gathered)


def gathered_contrastive_ranking_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    temperature: Tensor,
    ids: Tensor,
    all_images: Tensor,
    all_texts: Tensor,
    all_ids: Tensor,
) -> Tensor:
    """Compute [`contrastive_ranking_loss`] of rows that were gathered before: of all ranks, (M, D) and (M,)."""
    equal = ids[:, None] == all_ids  # (N, M)
    target = equal / equal.sum(1, keepdim=True)
    of_images = cosines(image_embeds, all_texts) / temperature  # (N, M)
    of_texts = cosines(text_embeds, all_images) / temperature
    return (F.cross_entropy(of_images, target) + F.cross_entropy(of_texts, target)) / 2


@torch.no_grad()
def negative_weights(
    query_embeds: Tensor, embeds: Tensor, temperature: Tensor, query_ids: Tensor, ids: Tensor
) -> Tensor:
    """Return how likely each candidate is to be drawn as the negative of a query: the more similar, the likelier.

    Args:
        query_embeds: Shape (N, D), L2-normalised.
        embeds: Shape (M, D), candidates of the other kind, likewise.
        temperature: One element, by which cosines are divided.
        query_ids, ids: Integer, shapes (N,) and (M,): candidates of the query's id are never drawn.

    Returns:
        Shape (N, M): a softmax over the candidates, zero where ids are equal, not normalised again.
    """
    shares = (cosines(query_embeds, embeds) / temperature).softmax(1)
    # With a low temperature a query's own candidate may take all that float32 has, and leave the others nothing.
    shares = shares.clamp(min=torch.finfo(shares.dtype).tiny)
    return shares.masked_fill(query_ids[:, None] == ids, 0.0)


def draw_negatives(weights: Tensor) -> Tensor:
    """Draw a candidate for each query.

    Args:
        weights: Shape (N, M), from [`negative_weights`].

    Returns:
        Integer, shape (N,).

    Raises:
        ValueError: A query has no candidate of another id.
    """
    without = (weights > 0).any(1).logical_not()
    if bool(without.any()):
        row = int(without.nonzero()[0])
        raise ValueError(
            f"pair {row} has no negative: no candidate of another id has any weight; the pairs of a step must have two "
            "ids at least"
        )
    return torch.multinomial(weights, 1)[:, 0]


def check_negatives(name: str, negatives: Tensor, ids: Tensor, all_ids: Tensor) -> None:
    """Raise a `ValueError` unless each of the given negatives (N,) is a row of all ranks' pairs, of another id."""
    outside = (negatives < 0) | (negatives >= len(all_ids))
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"`{name}` must be rows of the pairs of all ranks, 0 to {len(all_ids) - 1}, got {int(negatives[row])} in "
            f"row {row}"
        )
    same = all_ids[negatives] == ids
    if bool(same.any()):
        row = int(same.nonzero()[0])
        raise ValueError(
            f"`{name}` must be pairs of other ids, got {int(negatives[row])} in row {row}: both have the id "
            f"{int(ids[row])}"
        )


def matching_loss(
    text_joint_logits: Tensor, img_joint_logits: Tensor, labels: Tensor, form: MatchingForm = "fgr"
) -> Tensor:
    """Compute how badly two heads tell pairs that match from pairs that do not.

    Args:
        text_joint_logits, img_joint_logits: Shape (P, 2), [no match, match], from `R2D2Model.match`.
        labels: Integer, shape (P,), 1 for a match, else 0.
        form: `"fgr"`: the mean of both heads' cross-entropies, a match counting twice. `"nll"`: the negative logarithm
            of the mean of both heads' probabilities. `"released"`: what the released matching code has in its place; it
            takes a softmax of these probabilities, so that the loss cannot fall below 0.313.

    Returns:
        Scalar.

    Raises:
        ValueError: The form is unknown, or the labels are not one 0 or 1 for each pair.
    """
    check_choice("`form`", form, MATCHING_FORMS)
    labels = checked_labels(labels, len(text_joint_logits))
    heads = [logits.float() for logits in (text_joint_logits, img_joint_logits)]
    if form == "fgr":
        weights = heads[0].new_tensor(MATCH_WEIGHTS)
        return torch.stack([F.cross_entropy(logits, labels, weights) for logits in heads]).mean()
    if form == "nll":
        # The logarithm of the mean of the probabilities, without leaving the logarithms.
        logs = torch.stack([logits.log_softmax(-1) for logits in heads])  # (2, P, 2)
        return F.nll_loss(logs.logsumexp(0) - torch.log(logs.new_tensor(2.0)), labels)
    return F.cross_entropy(mean_probabilities(*heads), labels)


def checked_labels(labels: Tensor, pairs: int) -> Tensor:
    """Return labels as int64, or raise a `ValueError` unless they are as many integers 0 or 1 as there are pairs."""
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.shape != (pairs,):
        raise ValueError(
            f"`labels` must be integers of shape ({pairs},), 1 for a match, else 0, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
    wrong = (labels != 0) & (labels != 1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(f"`labels` must be 1 for a match, else 0, got {int(labels[row])} in row {row}")
    return labels.long()
