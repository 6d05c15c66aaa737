"""Accuracies by hand and against scikit-learn."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import recall_score, roc_auc_score, top_k_accuracy_score

from fgclip2.metrics import (
    best_threshold,
    hard_negative_accuracy,
    hard_negative_wins,
    matching_accuracy,
    retrieval_ranks,
    roc_auc,
    score_ranks,
    topk_accuracy,
)

pairs_of_scores = st.lists(st.tuples(st.integers(-3, 3).map(lambda x: x / 4), st.booleans()), min_size=1, max_size=30)


def random_scores(items: int = 200, classes: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, classes - 2, items)  # two classes never occur
    return random.random((items, classes)) + 0.4 * np.eye(classes)[labels], labels


def test_top_k_by_hand():
    ranks, classes = np.array([1, 3, 1, 2]), np.array([0, 0, 0, 5])
    assert topk_accuracy(ranks, classes, [1, 2, 3]) == {1: 0.5, 2: 0.75, 3: 1.0}
    assert topk_accuracy(ranks, classes, [1, 2], average="macro") == pytest.approx({1: 1 / 3, 2: 5 / 6})
    assert np.isnan(topk_accuracy(ranks[:0], classes[:0])[5])


def test_top_k_equals_scikit_learn():
    scores, classes = random_scores()
    ranks = score_ranks(scores, list(enumerate(classes)))
    for k, share in topk_accuracy(ranks, classes, [1, 3, 5]).items():
        assert share == pytest.approx(top_k_accuracy_score(classes, scores, k=k, labels=np.arange(12)))
    macro = topk_accuracy(ranks, classes, [1], average="macro")[1]
    assert macro == pytest.approx(recall_score(classes, scores.argmax(1), labels=np.unique(classes), average="macro"))


def test_ties_between_classes_are_wrong():
    ranks = score_ranks(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), [(0, 0), (1, 2)])
    assert topk_accuracy(ranks, [0, 2], [1, 2]) == {1: 0.5, 2: 1.0}


def test_top_k_of_embeddings():
    names = F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    images = names[[0, 1, 2, 3, 0, 1]]
    ranks = retrieval_ranks(images, classes, names, torch.arange(5))
    assert topk_accuracy(ranks, classes, [1]) == pytest.approx({1: 4 / 6})
    assert topk_accuracy(ranks, classes, [1], "macro") == pytest.approx({1: 3.5 / 5})


def test_bad_accuracy_arguments_are_named():
    with pytest.raises(ValueError, match="average must be 'micro' or 'macro', got 'mean'"):
        topk_accuracy([1], [0], average="mean")
    with pytest.raises(ValueError, match=r"ranks has shape \(2,\) and classes \(1,\)"):
        topk_accuracy([1, 2], [0])


def test_hard_negatives_by_hand():
    scores = np.array([[3.0, 1.0, 2.0], [3.0, 3.0, 2.0], [1.0, 2.0, 0.0]])
    assert hard_negative_wins(scores).tolist() == [True, False, False]
    assert hard_negative_wins(scores, ties="right").tolist() == [True, True, False]
    ragged = [[0.5, 0.4], [0.5, 0.1, 0.2, 0.6], torch.tensor([0.5, 0.5])]
    assert hard_negative_wins(ragged).tolist() == [True, False, False]
    assert hard_negative_wins([]).tolist() == []


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=6), min_size=1, max_size=8))
def test_hard_negatives_are_ranks_of_the_first(rows):
    wrong, right = hard_negative_wins(rows), hard_negative_wins(rows, ties="right")
    assert wrong.tolist() == [int(score_ranks([row], [(0, 0)])[0]) == 1 for row in rows]
    assert right.tolist() == [row[0] == max(row) for row in rows]
    assert hard_negative_wins([[row[0], *row[:0:-1]] for row in rows]).tolist() == wrong.tolist()


def test_bad_hard_negatives_are_named():
    with pytest.raises(ValueError, match=r"scores\[1\] is \[1\]; it must be the true text's score and its negatives'"):
        hard_negative_wins([[1, 0], [1]])
    with pytest.raises(ValueError, match=r"scores\[0\] is \[1.0, nan\]"):
        hard_negative_wins([[1.0, float("nan")]])
    with pytest.raises(ValueError, match="ties must be 'wrong' or 'right', got 'half'"):
        hard_negative_wins([[1, 0]], ties="half")


def test_hard_negatives_of_embeddings():
    region = torch.tensor([[1.0, 0.0]]).expand(3, -1)
    positive = torch.tensor([[0.8, 0.6], [0.6, 0.8], [0.6, 0.8]])
    negative = torch.tensor([[[0.6, 0.8], [0.0, 1.0]], [[0.6, 0.8], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    assert hard_negative_accuracy(region, positive, negative) == pytest.approx(1 / 3)
    mask = torch.tensor([[True, True], [False, True], [True, False]])
    assert hard_negative_accuracy(region, positive, negative, mask) == 1
    assert np.isnan(hard_negative_accuracy(region[:0], positive[:0], negative[:0]))


def test_equal_texts_tie_whatever_their_place():
    generator = torch.Generator().manual_seed(0)
    region, text = (F.normalize(torch.randn(64, 769, generator=generator), dim=-1) for _ in range(2))
    assert hard_negative_accuracy(region, text, text[:, None].repeat(1, 7, 1)) == 0


def test_matching_by_hand():
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert roc_auc(scores, labels) == 0.75
    assert best_threshold(scores, labels) == 0.35
    assert matching_accuracy(scores, labels, 0.35) == 0.75
    assert matching_accuracy(scores, labels, 0.5) == 0.75
    assert matching_accuracy(scores, labels, 0.9) == 0.5


def test_a_threshold_for_none_and_for_all():
    scores = np.array([0.1, 0.5])
    assert matching_accuracy(scores, [False, False], best_threshold(scores, [False, False])) == 1
    assert best_threshold(scores, [True, True]) == 0.1
    assert np.isnan(roc_auc(scores, [True, True]))


@settings(max_examples=30)
@given(pairs_of_scores)
def test_the_best_threshold_is_the_best(pairs):
    scores, labels = map(np.array, zip(*pairs, strict=True))
    best = matching_accuracy(scores, labels, best_threshold(scores, labels))
    assert best == max(matching_accuracy(scores, labels, threshold) for threshold in np.arange(-1, 1.1, 0.125))


@settings(max_examples=30)
@given(pairs_of_scores, st.randoms(use_true_random=False))
def test_auc_equals_scikit_learn_in_any_order(pairs, random):
    scores, labels = map(np.array, zip(*pairs, strict=True))
    if labels.all() or not labels.any():
        return
    order = random.sample(range(len(pairs)), len(pairs))
    assert roc_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert roc_auc(scores[order], labels[order]) == pytest.approx(roc_auc(scores, labels))
    assert roc_auc(-scores, labels) == pytest.approx(1 - roc_auc(scores, labels))


def test_bad_matching_is_named():
    with pytest.raises(ValueError, match=r"scores\[1\] is not finite"):
        roc_auc([0.1, np.nan], [True, False])
    with pytest.raises(ValueError, match="scores must have at least 1 pair, and is empty"):
        matching_accuracy([], [], 0.5)
    with pytest.raises(ValueError, match=r"scores has shape \(2,\) and labels \(1,\)"):
        best_threshold([0.1, 0.2], [True])
