"""The load of scripts/serving_load.py: always the same work, answers compared, and none lost in a short form of it."""

import itertools
import json

import pytest

from scripts import serving_load


def test_the_work_is_always_the_same_and_of_every_kind():
    first, again, other = (list(itertools.islice(serving_load.requests_of(client, ["图"]), 12)) for client in (0, 0, 1))
    assert first == again != other
    assert {path for path, _ in first} == {"/v1/embeddings", "/v1/classify", "/v1/regions", "/v1/search"}
    assert json.dumps(first)


def test_answers_are_compared_but_for_rounding():
    answer = {"data": [{"embedding": "AACAPw=="}], "score": 0.5, "label": "狗"}  # 1.0 in float32
    assert serving_load.is_same(answer, {**answer, "data": [{"embedding": [1.00001]}], "score": 0.50001})
    for other in ({"score": 0.51}, {"label": "猫"}, {"data": [{"embedding": [1.1]}]}, {"data": []}, {"more": 1}):
        assert not serving_load.is_same(answer, {**answer, **other})


@pytest.mark.slow
def test_many_clients_lose_nothing():
    one, many = serving_load.measure(32, 5)
    assert one.lost == many.lost == []
    assert many.refused == 0
    assert len(many.milliseconds) > 32
