"""Streams of work: order, bounds and errors."""

import itertools
import threading

import pytest

from fgclip2.streams import batches_of_a_kind, bounded_map


def test_results_come_in_order_whatever_finishes_first():
    barrier = threading.Barrier(2, timeout=5)

    def work(item: int) -> int:
        if item < 2:  # 0 ends only once 1 is at work too, so two threads there are
            barrier.wait()
        return item * item

    assert list(bounded_map(work, range(20), workers=2, ahead=4)) == [item * item for item in range(20)]


@pytest.mark.parametrize("ahead", [1, 3])
def test_endless_streams_are_taken_only_so_far_ahead(ahead):
    taken = []

    def stream():
        for item in itertools.count():
            taken.append(item)
            yield item

    results = bounded_map(str, stream(), workers=2, ahead=ahead)
    assert [next(results) for _ in range(5)] == list("01234")
    assert len(taken) <= 5 + ahead


def test_an_error_is_raised_where_its_result_is_asked_for_and_ends_the_work():
    done = []

    def work(item: int) -> int:
        if item == 2:
            raise ValueError("item 2")
        done.append(item)
        return item

    results = bounded_map(work, itertools.count(), workers=1, ahead=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(results)
    assert max(done) <= 5


def test_batches_have_one_kind_and_keep_every_item():
    items = [("b", 1), ("a", 2), ("b", 3), ("b", 4), ("a", 5), ("b", 6), ("b", 7)]
    capacity = {"a": 5, "b": 2}
    batches = list(batches_of_a_kind(items, lambda item: item[0], capacity.__getitem__))
    assert batches == [[("b", 1), ("b", 3)], [("b", 4), ("b", 6)], [("a", 2), ("a", 5)], [("b", 7)]]
    assert list(batches_of_a_kind([], lambda item: 0, lambda kind: 3)) == []
