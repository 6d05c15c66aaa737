"""How the language of a text is told."""

from fgclip2.languages import LANGUAGES, detect_language

TEXTS = {
    "a black cat": "en",
    "一只黑猫": "zh",
    "一台iPhone手机": "zh",
    "a sign that says 出口 over a door": "en",
    "猫": "zh",
    "猫 cat": "zh",  # as many characters as words
    "𠮷野家": "zh",
    "café": "en",
    "42": "en",
    "": "en",
}


def test_languages_are_told_by_characters():
    assert {text: detect_language(text) for text in TEXTS} == TEXTS


def test_the_order_is_that_of_the_indices_in_data_sets():
    assert LANGUAGES == ("en", "zh")
