"""Answers as HTML."""

import re

import pytest
from PIL import Image

from fgclip2.app import rendering
from fgclip2.app.answers import Score
from fgclip2.app.texts import TEXTS
from fgclip2.embedding import PhraseMatch
from fgclip2.search import RerankedSearchHit

NASTY = "<img src=x onerror=alert(1)>"
WORDS = TEXTS["zh"]
PICTURE = Image.new("RGB", (100, 50), "red")


class OnePicture:
    """An index whose images are all the same."""

    def image(self, entry: str) -> Image.Image:
        return PICTURE


def test_a_score_is_called_a_probability_only_where_it_is_calibrated():
    calibrated = rendering.render_scores([Score("狗", 0.4, 0.1, 0.9), Score("猫", 0.3, 0.2, 0.1)], WORDS)
    assert "概率" in calibrated
    assert "90.0%" in calibrated
    assert "分数" not in calibrated
    for name, word in (("score", "分数"), ("share", "份额")):
        plain = rendering.render_scores([Score("狗", 0.4, 0.7, 0.9), Score("a dog", 0.3, 0.2, None)], WORDS, name)
        assert f"<th>{word}</th>" in plain
        assert "<th>概率</th>" not in plain
        assert "70.0%" in plain


def test_it_is_said_that_nothing_is_probable():
    assert WORDS["none_probable"] in rendering.render_scores([Score("狗", 0.1, 0.9, 0.4)], WORDS)
    assert WORDS["none_probable"] not in rendering.render_scores([Score("狗", 0.1, 0.9, 0.6)], WORDS)
    boxes = [(0, 0, 50, 50), (50, 0, 100, 50)]
    found = [[Score("狗", 0.5, 0.9, 0.9), Score("猫", 0, 0.1, 0)], [Score("猫", 0.1, 0.6, 0.2), Score("狗", 0, 0.4, 0)]]
    page = rendering.render_boxes(PICTURE, boxes, found, WORDS)
    assert re.findall(r"</span>([^<]+)</div></?(?:div|fig)", page) == ["1 狗", "2 都不合适（最接近：猫）"]
    assert "left:50.00%" in page


def test_hits_have_the_windows_of_their_phrases_and_every_text_is_escaped():
    phrase = PhraseMatch(NASTY, (0, 0, 50, 25), 0.25)
    page = rendering.render_hits(OnePicture(), [RerankedSearchHit(None, 0.5, 0.7, [phrase], 0.31, NASTY)], WORDS)
    assert "<img src=x" not in page
    assert "left:0.00%;top:0.00%;width:50.00%;height:50.00%" in page
    assert "余弦 0.500 · 概率 31%" in page
    assert WORDS["no_hits"] in rendering.render_hits(OnePicture(), [], WORDS)
    others = [rendering.render_scores([Score(NASTY, 0, 0, 0)], WORDS), rendering.render_error(NASTY)]
    assert "<img src=x" not in "".join([*others, rendering.render_note(NASTY)])


def test_a_scale_has_the_colours_of_the_maps_and_its_ends():
    scale = rendering.render_scale(-0.1, 0.4, WORDS, "scale_maps")
    assert scale.startswith('<div class="scale">-0.10 ')
    assert "rgb(40, 40, 140), " in scale
    assert "rgb(220, 40, 30))" in scale


@pytest.mark.parametrize("large", [False, True])
def test_the_picture_in_memory_is_left_as_it_is(large):
    picture = Image.new("RGB", (2000, 1000))
    rendering.render_cards([rendering.picture_card(picture)], large)
    assert picture.size == (2000, 1000)
