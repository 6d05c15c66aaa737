"""Pages of results: complete in themselves, escaped, bounded, in two languages."""

import base64
import hashlib
import io
import re

import pytest
from PIL import Image

from fgclip2.pages import Window
from fgclip2.search import html
from fgclip2.search.html import Card, Section, render_results, sections_of_results

NASTY = "<img src=x onerror=alert(1)>\"'&\u202e\n.png"
TITLE = ("Results", "结果")


def picture(width: int = 640, height: int = 400) -> Image.Image:
    return Image.effect_noise((width, height), 90).convert("RGB")


def test_every_text_is_escaped_and_nothing_is_fetched():
    windows = [Window((0, 0, 10, 10), NASTY)]
    page = render_results(TITLE, [Section(NASTY, [Card(picture, [NASTY, "0.5"], windows)])])
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;&amp;") == 4  # heading, alt, line, window
    assert not re.findall(r"""(?:src|href|action|data)=["']?(?!data:)[^"'\s>]+""", page.replace(" src=x", ""))
    assert "url(" not in page
    assert "@import" not in page


def test_the_only_script_is_the_one_that_the_policy_names():
    page = render_results(TITLE, [])
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert 'name="viewport"' in page


def test_texts_are_in_both_languages_and_the_browser_chooses():
    page = render_results(TITLE, [Section("猫", [])])
    for english, chinese in (TITLE, ("Nothing was found.", "没有找到。")):
        assert f'<span class="en">{english}</span><span class="zh" lang="zh">{chinese}</span>' in page
    assert ':root[lang|="zh"] .en, :root:not([lang|="zh"]) .zh { display: none; }' in page


def test_thumbnails_are_small_and_windows_lie_on_them():
    windows = [Window((64, 100, 320, 200), "狗 0.3"), Window((-50, 0, 9999, 400), "all")]
    page = render_results(TITLE, [Section("狗", [Card(picture, ["a.png"], windows)])])
    (content,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert (image.format, image.size) == ("WEBP", (320, 200))
    assert "left:10.00%;top:25.00%;width:40.00%;height:25.00%;border-color:#d55e00" in page
    assert "left:0.00%;top:0.00%;width:100.00%;height:100.00%;border-color:#0072b2" in page


def test_only_the_first_results_have_pictures(monkeypatch):
    monkeypatch.setattr(html, "MOST_PICTURES", 2)
    page = render_results(TITLE, [Section("a", [Card(picture, ["1"])]), Section("b", [Card(picture, ["2"])] * 2)])
    assert page.count("<img ") == 2
    assert page.count("<figcaption>") == 3
    assert "Only the first 2 have pictures" in page


@pytest.mark.parametrize("error", [ValueError("<b>坏"), OSError("gone")])
def test_what_cannot_be_read_has_its_reason(error):
    def gone() -> Image.Image:
        raise error

    page = render_results(TITLE, [Section("q", [Card(gone, ["x.png"])])])
    assert "无法读取" in page
    assert str(error).replace("<b>", "&lt;b&gt;") in page


def test_results_of_the_command_become_sections():
    phrase = {"text": "红色的球", "box": [1, 2, 3, 4], "cosine": 0.25}
    hits = [
        {"path": "a.png", "score": 0.5, "reranked": 0.75, "phrases": [phrase]},
        {"path": "b.png", "score": 0.4, "box": (0, 0, 9, 9)},
    ]
    (section,) = sections_of_results([{"query": "球", "hits": hits}], lambda hit: picture())
    first, second = section.cards
    assert (section.heading, first.lines) == ("球", ["1. a.png", "0.7500 · 0.5000"])
    assert first.windows == [Window([1, 2, 3, 4], "红色的球 0.250")]
    assert second.windows == [Window((0, 0, 9, 9), "[0, 0, 9, 9]")]
