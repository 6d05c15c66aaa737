import random
from collections import Counter

import pytest

from fgclip2.drawings.backgrounds import PHOTOGRAPHS
from fgclip2.drawings.sources import ARTWORK, PERMISSIVE_LICENCES
from fgclip2.drawings.splits import ARTIST_SPLITS, BACKGROUND_SPLITS, artists, held_out_keys

from .conftest import make_concept


def concepts(group: str, count: int):
    return [make_concept(f"{group} {number}", f"{group}{number}", group=group) for number in range(count)]


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
    things = concepts("animals", 60) + concepts("food", 30) + concepts("tools", 13)
    chosen = held_out_keys(things, things, count=10)
    assert Counter(key.split()[0] for key in chosen) == {"animals": 6, "food": 3, "tools": 1}


def test_held_out_concepts_depend_on_no_order_and_only_on_eligible_ones():
    things = concepts("animals", 30) + concepts("food", 30)
    eligible = things[::2]
    chosen = held_out_keys(things, eligible, count=10)
    assert chosen <= {concept.key for concept in eligible}
    shuffled = random.Random(0).sample(eligible, len(eligible))
    assert held_out_keys(things, shuffled, count=10) == chosen


def test_too_few_eligible_concepts_are_an_error():
    things = concepts("animals", 10)
    with pytest.raises(ValueError, match="group 'animals' has 1 eligible concepts, 5 are to be held out"):
        held_out_keys(things, things[:1], count=5)
