"""Controls that need no picture: hard negatives told apart by their texts alone.

A text that gives itself away as true or false would let a model win without looking, so each reported number stands
beside these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F


def text_features(text: str, language: str) -> list[str]:
    """Return what a classifier of texts sees: words and pairs of words in "en", one to three characters in "zh"."""
    units = ["^", *(text.lower().split() if language == "en" else text), "$"]
    longest = 2 if language == "en" else 3
    return [" ".join(units[i : i + n]) for n in range(1, longest + 1) for i in range(len(units) - n + 1)]


def fit_text_scorer(
    groups: Sequence[Sequence[str]], language: str, epochs: int = 5, lr: float = 0.02, seed: int = 0
) -> dict[str, float]:
    """Learn to pick the true text among its hard negatives without any picture.

    A weight for each feature, by a softmax over the texts of a group (conditional logistic regression, L2 1e-4). It
    scores a text by itself, as a model with separate towers does; comparing the texts of a group with each other would
    of course find the true one, which all the others are variations of.

    Args:
        groups: texts, the true one first; all groups of one size.
        language: "en" or "zh".
        epochs, lr, seed: of Adam on batches of 256 groups.

    Returns:
        Weights by feature.
    """
    names: dict[str, int] = {}
    encoded = [
        [[names.setdefault(f, len(names)) for f in text_features(text, language)] for text in group] for group in groups
    ]
    weights = torch.zeros(len(names), 1, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=lr)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(encoded))
        for start in range(0, len(order), 256):
            texts = [text for index in order[start : start + 256] for text in encoded[index]]
            offsets = torch.tensor([0, *(len(text) for text in texts[:-1])]).cumsum(0)
            features = torch.tensor([feature for text in texts for feature in text])
            logits = F.embedding_bag(features, weights, offsets, mode="sum").view(-1, len(groups[0]))
            loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)) + 1e-4 * weights.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return dict(zip(names, weights.detach().flatten().tolist(), strict=True))


def text_scores(weights: Mapping[str, float], groups: Sequence[Sequence[str]], language: str) -> np.ndarray:
    """(R, K) float64: the scores of R groups of K texts by `fit_text_scorer`'s weights; unknown features count 0."""
    return np.array(
        [[sum(weights.get(f, 0.0) for f in text_features(text, language)) for text in group] for group in groups]
    )


def constant_image_scores(text_embeds: np.ndarray, region_embeds: np.ndarray) -> np.ndarray:
    """Score texts by a text tower alone, with the mean region in place of the picture.

    Args:
        text_embeds: (R, K, D), L2-normalised.
        region_embeds: (N, D), L2-normalised.

    Returns:
        (R, K) cosines.
    """
    mean = region_embeds.mean(axis=0)
    return text_embeds @ (mean / np.linalg.norm(mean))
