"""What holds of every set of hard negatives, and generators and lexicons of one's own."""

import json
import random

import pytest

from fgclip2.hard_negatives import (
    LEXICON,
    HardNegative,
    generate_hard_negatives,
    load_vocabulary,
)
from fgclip2.hard_negatives.generation import normalize

from .conftest import texts

SAMPLES = [
    "A small white dog with a blue collar sits on a wooden chair",
    "two women sitting at a table with plates of food",
    "an orange and white cat sleeping under the red car on the left",
    "三只白色的小狗坐在木质椅子上",
    "画面左侧有一辆红色的汽车和两辆自行车",
    "一个穿着黑色衬衫的男人骑着一匹棕色的马",
]


@pytest.mark.parametrize("text", SAMPLES)
def test_sets_are_distinct_mixed_and_say_what_they_changed(text):
    negatives = generate_hard_negatives(text)
    assert len({normalize(negative.text) for negative in [*negatives, HardNegative(text, "", "", "")]}) == 11
    kinds = [negative.kind for negative in negatives]
    assert len(set(kinds)) >= 3
    assert len(set(kinds[: len(set(kinds))])) == len(set(kinds))  # they take turns
    for kind in set(kinds):
        assert kinds.count(kind) >= min(2, len(texts(text, kind)))
    for negative in negatives:
        assert negative.text in {text.replace(negative.replaced, negative.replacement, 1)} | {
            text[:start] + negative.replacement + text[start + len(negative.replaced) :]
            for start in range(len(text))
            if text.startswith(negative.replaced, start)
        }


def test_a_seed_gives_the_same_and_another_seed_others():
    for text in SAMPLES:
        negatives = generate_hard_negatives(text, seed=3)
        assert negatives == generate_hard_negatives(text, seed=3), text
        assert negatives != generate_hard_negatives(text, seed=4), text
        assert negatives[:4] == generate_hard_negatives(text, count=4, seed=3), text


def test_the_drawing_is_fixed():
    assert [negative.text for negative in generate_hard_negatives("a red car", count=3)] == [
        "nine red cars",
        "a white car",
        "a red truck",
    ]
    assert [negative.text for negative in generate_hard_negatives("两只黑狗", count=3)] == [
        "两只黑仓鼠",
        "两只银狗",
        "三只黑狗",
    ]


def test_fewer_where_there_is_less_to_change():
    assert generate_hard_negatives("a photograph") == []
    assert generate_hard_negatives("一张合影") == []
    assert [negative.text for negative in generate_hard_negatives("the cup on the left", kinds=["relation"])] == [
        "the cup on the right"
    ]


def test_kinds_and_language_can_be_chosen():
    only = generate_hard_negatives("two red dogs on the bed", kinds=["count", "relation"], count=50)
    assert {negative.kind for negative in only} == {"count", "relation"}
    assert generate_hard_negatives("一只狗", language="en") == []
    assert generate_hard_negatives("a dog 狗", language="zh", kinds=["object"])[0].text.startswith("a dog ")


def test_replacements_are_drawn_evenly():
    """Each other colour as often as the next: no word is a sign of a negative."""
    counts: dict[str, int] = {}
    for seed in range(600):
        first = generate_hard_negatives("a red house", count=1, seed=seed, kinds=["attribute"])[0]
        counts[first.replacement] = counts.get(first.replacement, 0) + 1
    expected = 600 / len(counts)
    assert len(counts) == len(texts("a red house", "attribute"))
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_every_noun_can_be_replaced_both_ways():
    """If a cat may become a dog, a dog may become a cat."""
    vocabulary = load_vocabulary()
    for word in vocabulary.words:
        for other in vocabulary.alternatives(word):
            assert word in vocabulary.alternatives(other)
            assert not set(word.en) & set(other.en)
            assert not set(word.zh) & set(other.zh)


def test_the_lexicon_has_hundreds_of_nouns_in_both_languages():
    nouns = [word for word in load_vocabulary().words if word.category.section == "object"]
    assert sum(bool(word.en and word.zh and word.measures) for word in nouns) >= 400


# Every noun of the lexicon alone: articles, plurals and measure words


def test_articles_fit_every_noun():
    pick = random.Random(0)
    for text in ("an owl", "a parrot", "an axe", "a hammer", "a orange car"):
        for negative in pick.sample(sorted(texts(text, "object", "attribute")), 5):
            article, word = negative.split()[:2]
            assert (article == "an") == (word[0] in "aeiou" and word != "ukulele") or text == "a orange car"


def test_articles_go_by_sound():
    for text, kept in (("a unicorn and an umbrella", "a unicorn"), ("an hour glass", "an hour")):
        assert all(kept in negative for negative in texts(text, "attribute")), text


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": " "}, "text must be a text that is not empty, got ' '"),
        ({"text": None}, "text must be a text that is not empty, got None"),
        ({"count": 0}, "count must be a positive integer, got 0"),
        ({"count": 2.5}, "count must be a positive integer, got 2.5"),
        ({"language": "fr"}, "language must be None, 'en' or 'zh', got 'fr'"),
        ({"kinds": ["colour"]}, r"kinds must be a sequence of attribute, count, .*, got \['colour'\]"),
        ({"kinds": "count"}, "kinds must be .*, got 'count'"),
        ({"kinds": []}, r"kinds must be .*, got \[\]"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_hard_negatives(**{"text": "一只狗", **arguments})


# A generator of one's own


def test_a_generator_takes_the_place_of_the_rules():
    def generator(text, count, language):
        assert (text, count, language) == ("一只狗在跑", 3, "zh")
        return ["一只猫在跑", "一只猫在跑。", " 两只狗在跑", "一只狗在睡", "一只狗在叫"]

    assert generate_hard_negatives("一只狗在跑", count=3, generator=generator) == [
        HardNegative("一只猫在跑", "generator", "狗", "猫"),
        HardNegative("两只狗在跑", "generator", "一", "两"),
        HardNegative("一只狗在睡", "generator", "跑", "睡"),
    ]
    made = generate_hard_negatives("a red dog runs", generator=lambda *_: ["a blue cat runs"])
    assert made == [HardNegative("a blue cat runs", "generator", "red dog", "blue cat")]


@pytest.mark.parametrize(
    ("text", "produced", "message"),
    [
        ("a dog", ["a cat", ""], r"generator must give a text that is not empty for 'a dog', got '' \(number 1\)"),
        ("a dog", [None], "generator must give a text that is not empty for 'a dog', got None"),
        ("a dog", "a cat", "generator must give a sequence of texts for 'a dog', got 'a cat'"),
        ("a dog", None, "generator must give a sequence of texts for 'a dog', got None"),
        ("a dog", ["A  Dog."], "generator must give a text that differs from it for 'a dog', got 'A  Dog.'"),
        ("一只狗", ["一只狗。"], r"generator must give a text that differs from it for '一只狗', got '一只狗。'"),
        ("a dog", ["一只猫"], "generator must give an English text for 'a dog', got '一只猫'"),
        ("一只狗", ["a cat"], "generator must give a Chinese text for '一只狗', got 'a cat'"),
    ],
)
def test_what_a_generator_gives_is_checked(text, produced, message):
    with pytest.raises(ValueError, match=message):
        generate_hard_negatives(text, generator=lambda *_: produced)


# The lexicon


def lexicon(folder, change) -> str:
    content = json.loads(LEXICON.read_text(encoding="utf-8"))
    change(content)
    path = folder / "词表.json"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return str(path)


def test_a_lexicon_of_ones_own(tmp_path):
    words = [{"en": ["tiger lily"], "zh": ["卷丹"], "measures": ["朵"]}, {"en": ["iris"], "zh": ["鸢尾花"]}]
    path = lexicon(tmp_path, lambda content: content["object"].update({"garden flowers": {"words": words}}))
    vocabulary = load_vocabulary(path)
    assert "an iris" not in texts("a tiger lily", "object")
    made = generate_hard_negatives("a tiger lily", kinds=["object"], vocabulary=vocabulary)
    assert [negative.text for negative in made] == ["an iris"]
    made = generate_hard_negatives("一朵卷丹", kinds=["object"], vocabulary=vocabulary)
    assert made == []  # 鸢尾花 has no measure word that fits 朵


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("relation"), "has no object 'relation'"),
        (
            lambda content: content["object"]["birds"]["words"].append({"measures": ["只"]}),
            "a word of object.birds must have",
        ),
        (
            lambda content: content["object"]["birds"]["words"][0].update(near=["dog"]),
            r"near of 'eagle' must be .* got 'dog'",
        ),
        (lambda content: content["object"]["birds"].update(landmarks=True), "object.birds has wrong.*'landmarks'"),
    ],
)
def test_mistakes_in_a_lexicon_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_vocabulary(lexicon(tmp_path, change))
