"""Both languages of the interface say the same things."""

import re
import string
from pathlib import Path

import pytest

import fgclip2.app
from fgclip2.app.examples import EXAMPLES, artists, example_path
from fgclip2.app.texts import CHINESE, ENGLISH, TEXTS
from fgclip2.languages import LANGUAGES, detect_language

SOURCE = "".join(path.read_text(encoding="utf-8") for path in Path(fgclip2.app.__file__).parent.glob("*.py"))
# Names that are put together: f"tab_{name}", f"{name}_note" and what `InputError` has.
MADE_UP = re.compile(r"tab_\w+|help_\w+|(score|share)_note|share")


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_every_text():
    assert TEXTS.keys() == set(LANGUAGES) == EXAMPLES.keys()
    assert ENGLISH.keys() == CHINESE.keys()


@pytest.mark.parametrize("key", ENGLISH)
def test_no_text_is_left_untranslated(key):
    english, chinese = ENGLISH[key], CHINESE[key]
    assert fields(english) == fields(chinese)
    if key == "other_language":
        english, chinese = chinese, english  # each names the other in its own words
    assert detect_language(english) == "en"
    assert detect_language(re.sub(r"\{.*?\}|[A-Za-z0-9_.-]+", "", chinese)) == "zh"


@pytest.mark.parametrize("key", ENGLISH)
def test_no_text_is_left_over(key):
    is_asked_for = re.search(rf"""["']{key}["'](?!: ["(])""", SOURCE)
    assert is_asked_for or MADE_UP.fullmatch(key)


def test_examples_ask_for_the_same_in_both_languages():
    english, chinese = EXAMPLES["en"], EXAMPLES["zh"]
    assert len(english.queries) == len(chinese.queries)
    for kind in ("labels", "maps", "contrasts", "pairs"):
        for one, other in zip(getattr(english, kind), getattr(chinese, kind), strict=True):
            assert Path(example_path(one[0])).is_file()
            assert [type(value) for value in one] == [type(value) for value in other]
            assert one[0] == other[0]
            assert (detect_language(one[-1]), detect_language(other[-1])) == ("en", "zh")


def test_who_made_the_pictures_is_said_without_addresses():
    assert "Google Inc." in artists()
    assert not [name for name in artists() if "http" in name or not name]
