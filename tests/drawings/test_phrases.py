from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.phrases import (
    AWKWARD_NAMES,
    COLOURS,
    POSITIONS,
    Description,
    count_sentence,
    expression,
    is_plural,
    largest_sentence,
    listing,
    look_alikes,
    object_sentence,
    related_expression,
    relation_sentence,
    similar_colours,
    with_article,
)

from .conftest import make_concept


def of(table, name_en, **attributes) -> Description:
    return Description(table.names_en.index(name_en), **attributes)


def test_articles():
    expected = (
        "a bone",
        "an axe",
        "a unicorn",
        "a uniform",
        "a UFO",
        "a ewe",
        "a euro banknote",
        "a one-piece swimsuit",
        "an hourglass done",
        "an umbrella",
        "an x-ray",
        "an American football",
        "glasses",
        "bread",
    )
    names = [phrase.removeprefix("an ").removeprefix("a ") for phrase in expected]
    assert tuple(with_article(name, name) for name in names) == expected


def test_the_article_follows_the_first_word_and_its_use_the_noun():
    assert with_article("small axe", "axe") == "a small axe"
    assert with_article("orange book", "open book") == "an orange book"
    assert with_article("small scissors", "scissors") == "small scissors"


def test_listing():
    for language, expected in {"en": ["a", "a and b", "a, b and c"], "zh": ["a", "a和b", "a、b和c"]}.items():
        assert [listing(list("abc"[:count]), language) for count in (1, 2, 3)] == expected


def test_expressions(table):
    full = of(table, "axe", size="small", colour="orange", shape="round", position=(1, 0))
    assert expression(full, table, "en") == "a small axe on an orange round plate on the left"
    assert expression(full, table, "zh") == "左侧的橙色圆形底板上的小斧头"
    bare = of(table, "scissors")
    assert (expression(bare, table, "en"), expression(bare, table, "zh")) == ("scissors", "剪刀")
    plated = of(table, "scissors", size="large", colour="black", shape="square")
    assert expression(plated, table, "en") == "large scissors on a black square plate"
    assert expression(plated, table, "zh") == "黑色方形底板上的大剪刀"


def test_related_expressions(table):
    axe, egg = of(table, "axe"), table[table.names_en.index("egg")]
    assert related_expression(axe, "left", egg, table, "en") == "an axe, to the left of an egg"
    assert related_expression(axe, "above", egg, table, "zh") == "斧头，在蛋的上面"


def test_sentences_agree_in_number(table):
    scissors, axe = of(table, "scissors", position=(0, 0)), of(table, "axe", position=(2, 2))
    assert object_sentence(scissors, table, "en") == "At the top left are scissors."
    assert object_sentence(axe, table, "en") == "At the bottom right is an axe."
    assert object_sentence(axe, table, "zh") == "右下方是斧头。"
    one, other = table[scissors.concept_id], table[axe.concept_id]
    assert relation_sentence(one, "below", other, "en") == "The scissors are below the axe."
    assert relation_sentence(other, "right", one, "en") == "The axe is to the right of the scissors."
    assert relation_sentence(other, "right", one, "zh") == "斧头在剪刀的右边。"
    assert largest_sentence(one, "en") == "Nothing is larger than the scissors."
    assert largest_sentence(one, "zh") == "最大的物体是剪刀。"


def test_counts_and_backgrounds():
    assert count_sentence(3, "green", "en") == "Three objects on a plain green background."
    assert count_sentence(2, None, "en") == "Two objects in front of a photograph."
    assert count_sentence(2, "green", "zh") == "纯绿色背景上有两个物体。"
    assert count_sentence(5, None, "zh") == "一张照片上有五个物体。"


def test_all_nine_positions_have_their_own_words():
    for language in (0, 1):
        assert len({words[language] for words in POSITIONS.values()}) == 9


def test_awkward_names_are_no_plurals_of_natural_ones():
    assert is_plural("glasses")
    assert not is_plural("axe")
    assert {"foggy", "unlocked"} <= AWKWARD_NAMES
    assert not {"dog", "axe", "fire"} & AWKWARD_NAMES


def test_masses_have_a_size_by_the_portion(table):
    bread = of(table, "bread", size="small", position=(1, 0))
    assert expression(bread, table, "en") == "a small piece of bread on the left"
    assert expression(bread, table, "zh") == "左侧的小面包"
    assert with_article("luggage", "luggage") == "luggage"


def test_chinese_sizes():
    expected = {
        "斧头": "大斧头",
        "蛋": "大的蛋",  # one character: 大豆 and 小票 are other words
        "微笑的太阳": "大的微笑的太阳",
        "小鸡": "大的小鸡",
        "大象": "大的大象",
        "熊猫": "大的熊猫",
        "便利店": "大的便利店",
        "日本城堡": "大的日本城堡",
    }
    concepts = ConceptTable(tuple(make_concept("thing", name) for name in expected))
    large = [expression(Description(place, size="large"), concepts, "zh") for place in range(len(expected))]
    assert large == list(expected.values())


def test_look_alikes_are_symmetric_and_reach_what_words_do_not_show():
    names = ["bird", "parrot", "fireworks", "sparkler", "dog", "poodle", "axe"]
    matrix = look_alikes(names)
    assert (matrix == matrix.T).all()
    assert {(names[i], names[j]) for i, j in zip(*matrix.nonzero(), strict=True) if i < j} == {
        ("bird", "parrot"),
        ("fireworks", "sparkler"),
        ("dog", "poodle"),
    }


def test_each_colour_has_two_similar_ones_and_is_similar_to_two():
    assert set(similar_colours("cyan")) == {"green", "blue"}
    assert set(similar_colours("red")) == {"orange", "brown"}
    similar = [other for colour in COLOURS for other in similar_colours(colour)]
    assert all(similar.count(colour) == 2 for colour in COLOURS)


def test_awkward_names_are_left_to_single_pictures():
    assert {"tennis", "bow and arrow", "glass of milk", "small airplane", "fork and knife with plate"} <= AWKWARD_NAMES
