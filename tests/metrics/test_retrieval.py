"""Ranks by hand, against a plain reference and scikit-learn, in any blocks and any order."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score
from torch.utils._python_dispatch import TorchDispatchMode

from fgclip2.metrics import (
    count_equal_before,
    mean_rank,
    median_rank,
    pair_ranks,
    pairs_of_owners,
    recall_at_k,
    retrieval,
    retrieval_ranks,
    score_ranks,
)


def unit(rows: int, size: int = 8, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)), dim=-1)


def at_angles(*degrees: float) -> torch.Tensor:
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1).float()


def reference_ranks(queries: torch.Tensor, candidates: torch.Tensor, pairs: torch.Tensor) -> list[int]:
    """One query at a time, in float64."""
    ranks = []
    cosines = queries.double() @ candidates.double().T
    for index, row in enumerate(cosines.tolist()):
        right = {c for q, c in pairs.tolist() if q == index}
        best = max((row[c] for c in right), default=-np.inf)
        ranks.append(1 + sum(x > best - 1e-6 for c, x in enumerate(row) if c not in right))
    return ranks


@st.composite
def tasks(draw):
    """Queries and candidates, of which some are equal, and right pairs."""
    queries, candidates, seed = draw(st.integers(1, 9)), draw(st.integers(1, 12)), draw(st.integers(0, 10_000))
    pool = unit(6, 4, seed)
    some = st.integers(0, 5)
    rows = [pool[draw(st.lists(some, min_size=n, max_size=n))] for n in (queries, candidates)]
    pair = st.tuples(st.integers(0, queries - 1), st.integers(0, candidates - 1))
    pairs = draw(st.lists(pair, max_size=20))
    return *rows, torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


def test_ranks_by_hand():
    queries, candidates = at_angles(0, 90, 45), at_angles(10, 20, 80, 30)
    pairs = torch.tensor([[0, 1], [0, 3], [1, 0], [2, 3]])
    # query 0: 10 degrees first, then its own at 20; query 1: its own last; query 2: 30 degrees is nearest
    assert pair_ranks(queries, candidates, pairs).tolist() == [2, 4, 1]


def test_several_captions_of_an_image_and_several_images_of_a_caption():
    images, captions = at_angles(0, 50, 100), at_angles(5, 52, 95)
    pairs = torch.tensor([[0, 0], [1, 0], [1, 1], [2, 2], [0, 2]])  # (image, caption)
    assert pair_ranks(images, captions, pairs).tolist() == [1, 1, 1]
    assert pair_ranks(captions, images, pairs.flip(1)).tolist() == [1, 1, 1]
    only_far = torch.tensor([[0, 1], [0, 2]])
    assert pair_ranks(images, captions, only_far).tolist() == [2, 4, 4]


def test_no_right_candidate_ranks_behind_all():
    assert pair_ranks(unit(3), unit(5, seed=1), torch.zeros(0, 2, dtype=torch.int64)).tolist() == [6, 6, 6]
    own = torch.tensor([0, 7, 1])
    assert retrieval_ranks(unit(3), own, unit(3), torch.arange(3)).tolist()[1] == 4


def test_ties_and_near_ties_count_against_the_query():
    candidates = at_angles(20, 20, -20, 21)
    query, right = at_angles(0), torch.tensor([[0, 0]])
    assert pair_ranks(query, candidates, right).tolist() == [3]
    nearly = candidates.clone()
    nearly[1] += 1e-7
    nearly[2] -= 1e-7
    assert pair_ranks(query, nearly, right).tolist() == [3]
    assert pair_ranks(query, at_angles(20, 20.001), right).tolist() == [1]  # 6e-6 below


def test_all_embeddings_equal_is_the_worst_rank_of_all():
    same = unit(1, 64)
    own = torch.arange(300)
    assert set(retrieval_ranks(same.expand(300, -1), own, same.expand(300, -1), own).tolist()) == {300}


def test_empty_sets():
    nothing = torch.zeros(0, dtype=torch.int64)
    assert retrieval_ranks(torch.zeros(0, 8), nothing, unit(3), torch.arange(3)).tolist() == []
    assert retrieval_ranks(unit(2), torch.arange(2), torch.zeros(0, 8), nothing).tolist() == [1, 1]


@settings(max_examples=40)
@given(tasks(), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, 1]))
def test_blocks_of_any_shape_equal_the_reference(task, rows, columns, many):
    queries, candidates, pairs = task
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_QUERIES_PER_BLOCK", rows)
        patch.setattr(retrieval, "_CANDIDATES_PER_BLOCK", columns)
        patch.setattr(retrieval, "_PAIRS_PER_BLOCK", 3)
        patch.setattr(retrieval, "_MANY", many)
        in_blocks = pair_ranks(queries, candidates, pairs)
    assert in_blocks.tolist() == reference_ranks(queries, candidates, pairs)


@settings(max_examples=25)
@given(tasks(), st.randoms(use_true_random=False))
def test_the_order_of_candidates_queries_and_pairs_does_not_matter(task, random):
    queries, candidates, pairs = task
    order = random.sample(range(len(candidates)), len(candidates))
    inverse = torch.tensor(order).argsort()
    moved = torch.stack([pairs[:, 0], inverse[pairs[:, 1]]], dim=1)
    moved = torch.cat([moved.flip(0), moved])  # another order, and each twice
    assert pair_ranks(queries, candidates[order], moved).tolist() == pair_ranks(queries, candidates, pairs).tolist()


@pytest.mark.parametrize("many", [0, 1])
def test_cosines_at_the_edge_of_a_tie_are_told_the_same_in_any_block(monkeypatch, many):
    around = unit(1, 768) + 1e-3 * unit(500, 768, seed=1)
    candidates, own = F.normalize(around, dim=-1), torch.arange(500)  # cosines of 1 - 1e-6, give or take some 1e-8
    whole = retrieval_ranks(candidates[:10], own[:10], candidates, own)
    assert 100 < whole.float().mean() < 400
    monkeypatch.setattr(retrieval, "_MANY", many)  # all in float64 one way, or the other
    for columns in (7, 64, 499):
        monkeypatch.setattr(retrieval, "_CANDIDATES_PER_BLOCK", columns)
        assert torch.equal(retrieval_ranks(candidates[:10], own[:10], candidates, own), whole)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(3))
    assert torch.equal(retrieval_ranks(candidates[:10], own[:10], candidates[order], own[order]), whole)


def test_half_precision_is_taken():
    queries, candidates, own = unit(20).bfloat16(), unit(20).bfloat16(), torch.arange(20)
    assert torch.equal(
        retrieval_ranks(queries, own, candidates, own), retrieval_ranks(queries.float(), own, candidates.float(), own)
    )


def test_owners_make_all_pairs():
    query_owner, owner = torch.tensor([3, 1, 3, 9]), torch.tensor([1, 3, 2, 3])
    assert pairs_of_owners(query_owner, owner).tolist() == [[0, 1], [0, 3], [1, 0], [2, 1], [2, 3]]


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that is made."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, torch.Tensor) and not one._is_view():
                self.bytes = max(self.bytes, one.numel() * one.element_size())
        return result


def test_memory_does_not_grow_with_the_number_of_candidates():
    largest = []
    for candidates in (2_000, 8_000, 24_000):
        queries, embeds = unit(1500, 16), unit(candidates, 16, seed=1)
        pairs = torch.stack([torch.arange(1500), torch.arange(1500)], dim=1)
        with LargestTensor() as mode:
            pair_ranks(queries, embeds, pairs)
        largest.append(mode.bytes)
    assert largest[0] == largest[1] == largest[2] < 2**24, largest


def test_scores_rank_as_embeddings_do():
    queries, candidates = unit(30), unit(40, seed=1)
    pairs = torch.stack([torch.arange(30).repeat(2), torch.arange(60) % 40], dim=1)
    ranks = score_ranks((queries @ candidates.T).numpy(), pairs.numpy())
    assert ranks.tolist() == pair_ranks(queries, candidates, pairs).tolist()


def test_ranks_of_scores_by_hand():
    scores = np.array([[3, 3, 1], [0, 2, 1], [1, 2, 3]])
    assert score_ranks(scores, [(0, 0), (1, 0), (1, 2)]).tolist() == [2, 2, 4]


def test_scikit_learn_ranks_the_same():
    scores = np.random.default_rng(0).integers(0, 6, (50, 10)) / 7
    right = np.random.default_rng(1).integers(0, 10, 50)
    for row, column, rank in zip(scores, right, score_ranks(scores, list(enumerate(right))), strict=True):
        # with one right candidate their average precision is the reciprocal of its rank, ties against it
        precision = label_ranking_average_precision_score([np.arange(10) == column], [row])
        assert rank == pytest.approx(1 / precision)


def test_what_is_said_of_ranks():
    ranks = torch.tensor([1, 2, 6, 11])
    assert recall_at_k(ranks) == {1: 0.25, 5: 0.5, 10: 0.75}
    assert recall_at_k(ranks.numpy(), [2]) == {2: 0.5}
    assert mean_rank(ranks) == 5
    assert median_rank(ranks) == 4
    assert median_rank(ranks[:3]) == 2
    nothing = ranks[:0]
    assert np.isnan([recall_at_k(nothing)[1], mean_rank(nothing), median_rank(nothing)]).all()


@settings(max_examples=25)
@given(st.lists(st.integers(1, 100), min_size=1), st.lists(st.integers(1, 100), min_size=1))
def test_recall_grows_with_k(ranks, ks):
    shares = list(recall_at_k(torch.tensor(ranks), sorted(ks)).values())
    assert shares == sorted(shares)


def test_bad_input_is_named():
    queries, candidates, pairs = unit(2), unit(3), torch.tensor([[0, 0], [1, 3]])
    with pytest.raises(ValueError, match=r"pairs\[1\] is \(1, 3\); there are 2 queries and 3 candidates"):
        pair_ranks(queries, candidates, pairs)
    with pytest.raises(ValueError, match=r"it must be integer of shape \(P, 2\)"):
        pair_ranks(queries, candidates, torch.zeros(3))
    candidates[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"embeds\[1\] has values that are not finite"):
        pair_ranks(queries, candidates, pairs[:1])
    with pytest.raises(ValueError, match=r"scores\[1\] has values that are not numbers"):
        score_ranks(np.array([[0, 1], [np.nan, 0]]), [(0, 1)])
    with pytest.raises(ValueError, match=r"pairs\[0\] is \(0, -1\)"):
        score_ranks(np.zeros((2, 2)), [(0, -1)])


def test_equal_candidates_before_the_best_right_one_are_counted():
    """Query 0 has two right of four that are equal, query 1 none right; what is right for query 2 has no equal."""
    queries, candidates = at_angles(0, 10, 50), at_angles(5, 5, 5, 5, 50)
    pairs = torch.tensor([[0, 0], [0, 2], [2, 4]])
    # Before candidate 2 come 0, which is right, and 1, which is wrong.
    assert count_equal_before(queries, candidates, pairs, [0, 0, 0, 0, 1]).tolist() == [1, 0, 0]
    assert pair_ranks(queries, candidates, pairs).tolist() == [3, 6, 1]  # 1 and 3 tie with it


def test_less_the_equal_ones_before_them_ranks_are_those_of_a_stable_sort():
    generator = np.random.default_rng(0)
    number = generator.integers(0, 20, 60)  # 60 captions say 20 things
    queries, candidates = unit(12), unit(20, seed=1)[number]
    pairs = torch.tensor([[caption // 5, caption] for caption in range(60)])
    got = pair_ranks(queries, candidates, pairs).numpy() - count_equal_before(queries, candidates, pairs, number)
    for query, rank in enumerate(got.tolist()):
        cosines = (queries[query].double() * candidates.double()).sum(dim=1)
        from_the_end = cosines.argsort(stable=True).flip(0).tolist()
        assert rank == 1 + min(from_the_end.index(5 * query + place) for place in range(5))
