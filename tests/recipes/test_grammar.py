"""The caption grammar: each pattern by example, splits apart, and captions that say what is there and nothing else."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.phrases import COLOURS, POSITIONS, SHAPES, SIZES, Description
from fgclip2.drawings.scene_sets import build_scene_set, scene_builder
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer
from recipes.scenes.free_language import free_captions, scene_facts
from recipes.scenes.grammar import (
    FOLDER,
    GRAMMAR_SPLITS,
    LONG_TOKENS,
    SHORT_TOKENS,
    Grammar,
    SceneFacts,
    build_grammars,
    facts_of,
)
from recipes.scenes.unknown_words import made_up

from ..drawings.conftest import make_concept

ASSETS = Path(__file__).parents[2] / "src" / "fgclip2" / "assets"
EXAMPLES = json.loads((Path(__file__).parent / "grammar_examples.json").read_text("utf-8"))
# A plural, a mass, a vowel, names of one character and with 的, and things with and without synonyms.
NAMES = [
    ("toolbox", "工具箱"),
    ("scissors", "剪刀"),
    ("octopus", "章鱼"),
    ("automobile", "汽车"),
    ("bread", "面包"),
    ("horse", "马"),
    ("open book", "打开的书本"),
    ("notebook with decorative cover", "精装笔记本"),
]
LANGUAGE_SPLITS = [(language, split) for language in ("en", "zh") for split in GRAMMAR_SPLITS]


@pytest.fixture(scope="module")
def things() -> ConceptTable:
    return ConceptTable(tuple(make_concept(en, zh) for en, zh in NAMES))


@pytest.fixture(scope="module")
def tokenizer() -> FGClip2Tokenizer:
    return FGClip2Tokenizer.from_pretrained(ASSETS / "checkpoint")


EXAMPLE_SCENES = {
    # synonym share -> background, objects
    0.0: SceneFacts(
        "red",
        (
            Description(0, "large", "purple", "round", (1, 1)),
            Description(1, None, None, None, (1, 2)),
            Description(2, "small", "orange", "square", (0, 0)),
        ),
    ),
    1.0: SceneFacts(
        None,
        (Description(3, "small", "blue", "square", (2, 1)), Description(4, "large", None, None, (1, 0))),
    ),
}


def random_facts(rng: np.random.Generator, count: int) -> SceneFacts:
    objects = []
    for concept_id in rng.permutation(len(NAMES))[:count]:
        size = [None, *SIZES][rng.integers(3)]
        plate = (str(rng.choice(list(COLOURS))), str(rng.choice(list(SHAPES)))) if rng.random() < 0.6 else (None, None)
        position = (int(rng.integers(3)), int(rng.integers(3)))
        objects.append(Description(int(concept_id), size, *plate, position))
    return SceneFacts([None, "red"][rng.integers(2)], tuple(objects))


def examples(things, tokenizer, language, split):
    texts = {}
    for share, facts in EXAMPLE_SCENES.items():
        grammar = Grammar(things, tokenizer, language, split, share)
        for number, pattern in enumerate(grammar.patterns):
            rng = np.random.default_rng(number)
            background = grammar._background(facts, rng)
            key = f"{pattern['whole']} | {pattern['item']}"
            texts.setdefault(key, []).append(grammar.render(pattern, facts.objects, background, rng))
    return texts


@pytest.mark.parametrize(("language", "split"), LANGUAGE_SPLITS)
def test_each_pattern_by_example(things, tokenizer, language, split):
    """The examples are stored as they were read by a careful reader: a change of one is to be read again."""
    assert examples(things, tokenizer, language, split) == EXAMPLES[language][split]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_patterns_and_words_are_split(language):
    patterns = json.loads((FOLDER / f"patterns_{language}.json").read_text("utf-8"))["captions"]
    words = json.loads((FOLDER / f"words_{language}.json").read_text("utf-8"))
    assert len(patterns["train"]) >= 40
    assert min(len(patterns["validation"]), len(patterns["test"])) >= 8
    items = {split: {pattern["item"] for pattern in patterns[split]} for split in GRAMMAR_SPLITS}
    wholes = {split: [(pattern["whole"], pattern["item"]) for pattern in patterns[split]] for split in GRAMMAR_SPLITS}
    for split in GRAMMAR_SPLITS:
        assert len(set(wholes[split])) == len(wholes[split])
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not items[first] & items[second]
        for kind, by_key in words[first].items():
            known = {word for listed in by_key.values() for word in listed}
            assert not known & {word for listed in words[second][kind].values() for word in listed}, kind
    canonical = {text for names in (COLOURS, SHAPES, SIZES, POSITIONS) for pair in names.values() for text in pair}
    for split in GRAMMAR_SPLITS:
        for kind in ("sizes", "colours", "places"):
            assert not canonical & {word for listed in words[split][kind].values() for word in listed}, kind


def mentioned(text: str, names: list[str], language: str) -> Counter:
    """Count the names in a text, longer ones first: "top left" is no "top"."""
    alternatives = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return Counter(re.findall(rf"\b(?:{alternatives})\b" if language == "en" else alternatives, text))


@pytest.mark.parametrize(("language", "split"), LANGUAGE_SPLITS)
def test_a_caption_says_what_is_there_and_nothing_else(things, tokenizer, language, split):
    own = ["en", "zh"].index(language)
    grammar = Grammar(things, tokenizer, language, split, 0.0)
    sides = [re.sub("^.. the ", "", names[own]) for names in POSITIONS.values()]
    colours = [names[own] for names in COLOURS.values()]
    for seed in range(60):
        rng = np.random.default_rng(seed)
        facts = random_facts(rng, 1 + seed % 4)
        text = grammar.caption(facts, rng, LONG_TOKENS).lower().replace("on top of", "on")
        assert not re.search(r"[][{}]|  | [.,;:?]|\ba [aeio]|\ban [^aeio]|的的", text), text
        for one in facts.objects:
            assert NAMES[one.concept_id][own] in text
        assert mentioned(text, sides, language) == Counter(
            re.sub("^.. the ", "", POSITIONS[one.position][own]) for one in facts.objects
        ), text
        said = Counter(COLOURS[one.colour][own] for one in facts.objects if one.colour)
        background = Counter([COLOURS[facts.background_colour][own]] if facts.background_colour else [])
        assert mentioned(text, colours, language) in (said, said + background), text
        sizes = Counter(SIZES[one.size][own] for one in facts.objects if one.size)
        assert mentioned(text, [names[own] for names in SIZES.values()], language) == sizes, text


@pytest.mark.parametrize(("language", "split"), LANGUAGE_SPLITS)
def test_captions_fit_and_follow_from_the_seed(things, tokenizer, language, split):
    def captions(seed, max_tokens):
        rng = np.random.default_rng(seed)
        grammar = Grammar(things, tokenizer, language, split, 1.0, whole_share=0.8)
        return [grammar.caption(random_facts(rng, 5), rng, max_tokens) for _ in range(20)]

    for max_tokens in (SHORT_TOKENS, LONG_TOKENS):
        texts = captions(3, max_tokens)
        assert texts == captions(3, max_tokens)
        assert texts != captions(4, max_tokens)
        lengths = [len(tokenizer(text, padding=False, truncation=False)["input_ids"]) for text in texts]
        assert max(lengths) <= max_tokens
    assert max(lengths) > SHORT_TOKENS


def test_partial_captions_say_fewer_things_and_whole_ones_all(things, tokenizer):
    def counts(whole_share):
        texts = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            grammar = Grammar(things, tokenizer, "zh", "train", 0.0, whole_share)
            text = grammar.caption(random_facts(rng, 4), rng, LONG_TOKENS)
            texts.append(sum(name in text for _, name in NAMES))
        return set(texts)

    assert counts(1.0) == {4}
    assert counts(0.0) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("language", "allowed"),
    [("en", "large toolbox on a round purple plate in the middle"), ("zh", "中间紫色圆形底板上的大工具箱")],
)
def test_region_phrases_name_their_object(things, tokenizer, language, allowed):
    grammar = Grammar(things, tokenizer, language, "train", 0.0)
    said = EXAMPLE_SCENES[0.0].objects[0]
    phrases = {grammar.region_phrase(said, np.random.default_rng(seed)) for seed in range(80)}
    assert len(phrases) >= 12
    assert any(allowed in phrase for phrase in phrases)
    assert all(("toolbox" if language == "en" else "工具箱") in phrase for phrase in phrases)


def test_free_captions_are_of_the_scenes_of_the_set(cache, table, tokenizer):
    facts = scene_facts(cache, table, "validation", 5, 1)
    records = build_scene_set(cache, table, "validation", 5, 1).records
    for language in ("en", "zh"):
        for one, record in zip(facts, records[language], strict=True):
            names = [table[said.concept_id].name(language) for said in one.objects]
            assert names == [info["category"] for info in record["bbox_info"]]
            if language == "en":
                for said in one.objects:
                    assert not said.colour or f"{said.colour} {said.shape} plate" in record["caption"]
                    assert POSITIONS[said.position][0] in record["caption"].lower()
    captions = free_captions(facts, table, tokenizer, "validation", 1)
    assert captions == free_captions(facts, table, tokenizer, "validation", 1)
    assert {language: set(wordings) for language, wordings in captions.items()} == {
        language: {"other_orders", "other_words"} for language in ("en", "zh")
    }
    assert captions["en"]["other_orders"]["long"] != captions["en"]["other_words"]["long"]


def test_medium_sizes_stay_unsaid(cache, table):
    builder = scene_builder(cache, table, "validation")
    scenes = [builder.build(np.random.default_rng(seed)) for seed in range(4)]
    sizes = {one.truth.size for scene in scenes for one in scene.regions}
    assert "medium" in sizes
    assert {one.size for scene in scenes for one in facts_of(scene).objects} <= {None, "small", "large"}


def test_grammars_of_both_languages(things, tokenizer):
    grammars = build_grammars(things, tokenizer, "test", 1.0)
    assert {language: grammar.split for language, grammar in grammars.items()} == {"en": "test", "zh": "test"}


def test_an_adjective_keeps_its_particle_before_short_chinese_nouns_and_phrases(things, tokenizer):
    grammar = Grammar(things, tokenizer, "zh", "train", 0.0)
    texts = [
        grammar.region_phrase(Description(concept_id, "large", None, None, (1, 1)), np.random.default_rng(seed))
        for concept_id in (5, 6, 0)
        for seed in range(20)
    ]
    assert {found for text in texts for found in re.findall("大的?[^的]+", text)} >= {"大的马", "大的打开", "大工具箱"}
    assert not any("大马" in text or "大打开" in text for text in texts)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_made_up_words_stand_in_for_all_but_the_things(things, tokenizer, language):
    own = ["en", "zh"].index(language)
    words = json.loads((FOLDER / f"words_{language}.json").read_text("utf-8"))
    sizes = [word for split in GRAMMAR_SPLITS for listed in words[split]["sizes"].values() for word in listed]
    colours = [names[own] for names in COLOURS.values()]
    grammar = Grammar(things, tokenizer, language, "train", 1.0, unknown_share=1.0)
    said, in_compounds = 0, 0
    for seed in range(100):
        facts = random_facts(np.random.default_rng(seed), 3)
        text = grammar.caption(facts, np.random.default_rng(seed), LONG_TOKENS)
        assert text == grammar.caption(facts, np.random.default_rng(seed), LONG_TOKENS)
        assert not re.search(r"[][{}]|  ", text), text
        assert not mentioned(text, sizes, language), text
        said += sum(one.colour is not None for one in facts.objects)
        in_compounds += sum(mentioned(text, colours, language).values())
    assert 0.5 < in_compounds / said < 0.9  # two of three made-up colours are compounds of the known one


def test_made_up_words_are_those_of_the_run_that_made_what_ships():
    made = [
        made_up(language, "sizes", "", "", np.random.default_rng(seed)) for language in ("en", "zh") for seed in (0, 1)
    ]
    assert made == ["flaimock", "bloaal", "蜒群的", "络铭的"]
