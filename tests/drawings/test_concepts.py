import numpy as np
import pytest

from fgclip2.drawings.concepts import load_concepts, near_synonym_matrix, select_concepts, split_concepts

from .conftest import make_concept

MESSAGES = {
    "groups": [
        {"order": 1, "key": "people-body"},
        {"order": 3, "key": "animals-nature"},
        {"order": 5, "key": "travel-places"},
        {"order": 9, "key": "flags"},
    ],
    "subgroups": [
        {"order": 24, "key": "person-role"},
        {"order": 34, "key": "old-name"},
        {"order": 34, "key": "animal-mammal"},
        {"order": 58, "key": "time"},
        {"order": 98, "key": "country-flag"},
    ],
}
# emoji, group, subgroup, English, Chinese
ROWS = [
    ("🐕", 3, 34, "dog", "狗"),
    ("🐕‍🦺", 3, 34, "service dog", "服务犬"),
    ("🦙", 3, 34, "llama", "美洲鸵"),
    ("🕐", 5, 58, "one o’clock", "一点"),
    ("🕰️", 5, 58, "mantelpiece clock", "座钟"),
    ("🧑‍⚕️", 1, 24, "health worker", "卫生工作者"),
    ("👩‍⚕️", 1, 24, "woman health worker", "女卫生工作者"),
    ("👨‍👦", 1, 24, "family: man, boy", "家庭"),
    ("🖕", 1, 24, "middle finger", "竖中指"),
    ("🇨🇳", 9, 98, "flag: China", "中国国旗"),
]


def names(concepts):
    return [concept.name_en for concept in concepts]


@pytest.fixture
def selected():
    emoji = [{"emoji": e, "group": g, "subgroup": s, "label": en} for e, g, s, en, _ in ROWS]
    emoji.append({"emoji": "🇦", "label": "regional indicator A"})  # without a group
    annotations = {
        language: {
            e.replace("\ufe0f", ""): {"tts": [text], "default": [text, "x"]}
            for e, _, _, *texts in ROWS
            for text in [texts[column]]
        }
        for column, language in enumerate(("en", "zh"))
    }
    return select_concepts(emoji, MESSAGES, annotations)


def test_doubles_flags_and_insults_are_left_out(selected):
    assert names(selected) == ["dog", "service dog", "llama", "one o’clock", "mantelpiece clock", "health worker"]


def test_concepts_carry_names_groups_and_keys(selected):
    dog, clock = selected[0], selected[4]
    assert (dog.key, dog.name_zh, dog.keywords_zh) == ("1f415", "狗", ("狗", "x"))
    assert (dog.group, dog.subgroup) == ("animals-nature", "animal-mammal")  # the newer of two subgroup names
    assert clock.key == "1f570"  # no variation selector
    assert (dog.name("en"), dog.name("zh")) == ("dog", "狗")


def test_things_are_no_people_and_no_clock_faces(selected):
    assert names(concept for concept in selected if concept.is_thing) == [
        "dog",
        "service dog",
        "llama",
        "mantelpiece clock",
    ]


def test_the_llama_is_no_bird(selected):
    assert selected[2].name_zh == "美洲驼"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("dog", "狗脸"), ("guide dog", "导盲犬"), True),  # English name contained
        (("apple", "苹果"), ("fruit", "红苹果"), True),  # Chinese name contained
        (("hotdog", "热"), ("dog", "狗"), False),  # not a whole word
        (("mouse face", "鼠"), ("face", "脸"), False),  # "face" alone says nothing
        (("books", "书"), ("open book", "本"), True),  # plural
    ],
)
def test_names_that_contain_each_other_are_near_synonyms(first, second, expected):
    matrix = near_synonym_matrix([make_concept(*first), make_concept(*second)])
    assert matrix.tolist() == [[False, expected], [expected, False]]


def test_keyword_overlap():
    left = make_concept("a1", "甲", keywords_zh=("p", "q", "r"))
    more_than_half = make_concept("b2", "乙", keywords_zh=("q", "r", "p", "s"))
    half = make_concept("c3", "丙", keywords_zh=("p", "q", "s"))  # 2 of 4 in all, 2 of the smaller 3
    concepts = [left, more_than_half, half]
    assert near_synonym_matrix(concepts)[0].tolist() == [False, True, False]
    assert near_synonym_matrix(concepts, strict=True)[0].tolist() == [False, True, True]


def test_held_out_concepts_leave_no_name_in_other_keywords():
    concepts = [
        make_concept("koala", "考拉", keywords_en=("koala", "marsupial")),
        make_concept("tree", "树", keywords_en=("koala tree", "koalas", "leaf"), keywords_zh=("考拉树", "叶子")),
    ]
    table = split_concepts(concepts, choose=lambda groups, eligible: {"koala"})
    assert table.is_held_out.tolist() == [True, False]
    assert table[0].keywords_en == ("koala", "marsupial")
    assert (table[1].keywords_en, table[1].keywords_zh) == (("leaf",), ("叶子",))


def test_only_things_without_near_synonyms_are_eligible():
    concepts = [
        make_concept("dog", "狗"),
        make_concept("dog face", "脸", is_thing=False),
        make_concept("axe", "斧头"),
        make_concept("smile", "笑", is_thing=False),
    ]
    offered = []
    split_concepts(concepts, choose=lambda groups, eligible: offered.extend([groups, eligible]) or set())
    assert offered == [["objects", "objects"], {"objects": ["axe"]}]


def test_table_columns(table):
    assert table.names_en[1:3] == ["dog", "guide dog"]
    assert table.names_zh[1] == "狗"
    assert table.thing_ids.tolist() == list(range(1, 19))
    assert set(table.thing_ids) - set(table.train_ids) == set(np.flatnonzero(table.is_held_out)) == {6, 12}
    assert table.near_synonyms[1, 2]


def test_saved_table_is_read_back(cache, table):
    assert load_concepts(cache) == table


def test_missing_table_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m fgclip2\.drawings --cache"):
        load_concepts(tmp_path)
