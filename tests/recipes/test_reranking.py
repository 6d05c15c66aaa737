"""The recipe of re-ranking: its captions say what scenes are made of, its splitters, weights and table."""

from types import SimpleNamespace

import numpy as np
import pytest

from fgclip2.drawings.phrases import Description
from fgclip2.embedding import split_phrases
from recipes.reranking import evidence
from recipes.reranking.ablation import SPLITTERS, Setting, markdown, variations, wins
from recipes.reranking.texts import clauses, words

BONE = SimpleNamespace(name_en="bone", name_zh="骨头")
TRUTH = Description(0, "small", "brown", "round", (1, 0))


@pytest.mark.parametrize(
    ("of_thing", "language", "text", "phrase"),
    [
        (
            *(clauses, "en", "a bone on the left that is small and has a round brown plate beneath it"),
            "a small bone on the left on a round brown plate",
        ),
        (clauses, "zh", "骨头在左侧，看上去很小，底下是棕色的圆形板。", "左侧的棕色的圆形板上的小的骨头"),
        (words, "en", "a tiny bone standing on a brown round base", "a tiny bone standing on a brown round base"),
        (words, "zh", "左侧能看到一个小小的骨头摆在棕色圆形垫子上", "左侧的棕色圆形垫子上的一个小小的骨头"),
    ],
)
def test_captions_and_their_phrases(of_thing, language, text, phrase):
    assert of_thing(BONE, TRUTH, language) == text
    assert split_phrases(text) == [phrase]


def test_the_plain_splitter_cuts_at_signs_and_and():
    assert SPLITTERS["signs and “and”"]("a cat, a dog and a hand.") == ["a cat", "a dog", "a hand"]
    assert SPLITTERS["signs and “and”"]("猫、狗和手。") == ["猫", "狗", "手"]


def test_wins_and_their_table():
    scores, matches = np.array([[0.5, 0.4], [0.5, 0.4]]), np.array([[0.1, 0.3], [0.1, 0.1]])
    is_right = np.array([[False, True], [False, True]])
    assert wins(scores, matches, 1.0, is_right).tolist() == [True, False]
    rows = [
        {"setting": None, "recall@1": {"long en": 10.0}},
        {"setting": Setting().__dict__, "recall@1": {"long en": 20.0}},
    ]
    *_, first, second = markdown(rows, [("long", "en")], 4).splitlines()
    assert first == "| - | - | - | - | - | 10.0 | 10.0 |"
    assert second.startswith("| rules | 0.2, 0.3, 0.4, 0.6 | 20 | spread x 3 | own | 20.0 |")
    assert len(set(variations())) == len(variations())


def test_evidence_counts_what_comes_first_before_and_after():
    rows = np.array([[0, 1], [0, 1], [3, 0], [3, 2]])
    ablation = SimpleNamespace(nearest={("long", "en"): (None, rows)}, recall=lambda setting, *key: 75.0)
    measured = evidence.measure(ablation, "long", "en")
    assert measured == {"before, recall@1": 50.0, "before, recall@20": 75.0, "after, recall@1": 75.0}
    assert evidence.markdown({"long en": measured}, 4).splitlines()[-1] == "| long en | 50.0 | 75.0 | 75.0 | 25.0 |"
