import random
from collections import Counter

import pytest

from fgclip2.drawings.backgrounds import PHOTOGRAPHS
from fgclip2.drawings.sources import ARTWORK, PERMISSIVE_LICENCES
from fgclip2.drawings.splits import ARTIST_SPLITS, BACKGROUND_SPLITS, artists, held_out_keys


def keys(group: str, count: int) -> list[str]:
    return [f"{group} {number}" for number in range(count)]


def test_only_permissive_works_are_trained_on():
    assert {ARTWORK[artist].licence for artist in artists("train")} <= PERMISSIVE_LICENCES
    trained_on = [photo for photo in PHOTOGRAPHS if BACKGROUND_SPLITS[photo.name] == "train"]
    assert len(trained_on) == 7
    assert all(photo.is_permissive for photo in trained_on)


def test_every_source_has_a_split():
    assert set(ARTIST_SPLITS) == set(ARTWORK)
    assert set(BACKGROUND_SPLITS) == {photo.name for photo in PHOTOGRAPHS}
    assert artists("test") == ["twemoji"]
    assert artists("validation") == ["emojione-v1"]
    assert "openmoji" not in artists("train")


def test_each_split_has_a_photograph_that_may_ship():
    permissive = Counter(BACKGROUND_SPLITS[photo.name] for photo in PHOTOGRAPHS if photo.is_permissive)
    assert permissive == {"train": 7, "validation": 1, "test": 2}


def test_held_out_concepts_are_in_proportion_to_the_groups():
    sizes = {"animals": 60, "food": 30, "tools": 13}
    groups = [group for group, size in sizes.items() for _ in range(size)]
    chosen = held_out_keys(groups, {group: keys(group, size) for group, size in sizes.items()}, count=10)
    assert Counter(key.split()[0] for key in chosen) == {"animals": 6, "food": 3, "tools": 1}


def test_held_out_concepts_depend_on_no_order_and_only_on_eligible_ones():
    groups = ["animals"] * 30 + ["food"] * 30
    eligible = {group: keys(group, 30)[::2] for group in ("animals", "food")}
    chosen = held_out_keys(groups, eligible, count=10)
    assert chosen <= {*eligible["animals"], *eligible["food"]}
    shuffled = {group: random.Random(0).sample(of_group, 15) for group, of_group in reversed(eligible.items())}
    assert held_out_keys(groups[::-1], shuffled, count=10) == chosen


def test_too_few_eligible_concepts_are_an_error():
    with pytest.raises(ValueError, match="group 'animals' must have 5 concepts that can be held out, and has 1"):
        held_out_keys(["animals"] * 10, {"animals": ["koala"]}, count=5)
