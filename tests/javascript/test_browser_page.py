"""The page of examples/browser, used in a headless Chromium: its hits are those of Python, all it loads is its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fgclip2.assets import demo_images
from scripts.browser_page import build_page

QUERIES = ["a red APPLE", "消防车", "crown"]
PICTURE = "pictures/cat-face-twemoji.webp"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return build_page(tmp_path_factory.mktemp("page") / "页面")


@pytest.fixture(scope="module")
def shown(page, run_node) -> dict:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "needs Chromium; on Debian: apt-get install chromium"
    request = {"queries": QUERIES, "picture": str(demo_images() / PICTURE), "executable": chromium}
    (page.parent / "request.json").write_text(json.dumps(request, ensure_ascii=False), encoding="utf-8")
    script = Path(__file__).with_name("search.mjs")
    return json.loads(run_node(script, page, page.parent / "request.json"))


def test_hits_are_those_of_python(embedder, page, shown):
    pictures = json.loads((page / "pictures.json").read_text(encoding="utf-8"))
    vectors = embedder.encode_images([demo_images() / row["file"] for row in pictures])
    cosines = embedder.encode_texts(QUERIES, role="caption") @ vectors.T
    for query, hits, expected in zip(QUERIES, shown["hits"], cosines, strict=True):
        assert hits[0]["file"] == pictures[expected.argmax()]["file"], query
        by_file = dict(zip((row["file"] for row in pictures), expected, strict=True))
        scores = [hit["score"] for hit in hits]
        assert scores == sorted(scores, reverse=True)
        # The page's texts have weights in 8 bit.
        np.testing.assert_allclose(scores, [by_file[hit["file"]] for hit in hits], atol=0.02)


def test_a_picture_of_the_visitor_finds_itself(shown):
    assert shown["own"][0]["file"] == PICTURE
    assert shown["own"][0]["score"] > 0.99


def test_the_page_speaks_both_languages_and_asks_for_nothing_outside(shown):
    assert shown["languages"] == {"en": "Search pictures in Chinese and English", "zh": "用中文和英文搜索图片"}
    assert shown["outside"] == []
    assert shown["problems"] == []
