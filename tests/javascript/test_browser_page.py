"""The page of examples/browser, used in a headless Chromium: its hits are those of Python, all it loads is its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgclip2.assets import demo_images
from scripts.browser_page import build_page

QUERIES = ["a red APPLE", "消防车", "crown"]
PICTURE = "pictures/cat-face-twemoji.webp"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return build_page(tmp_path_factory.mktemp("page") / "页面")


@pytest.fixture(scope="module")
def large_picture(tmp_path_factory) -> Path:
    """The picture with 20 times its side, under stripes that vanish where all pixels are averaged.

    Both pixels in the middle of the twenty are in a bright stripe.
    """
    with Image.open(demo_images() / PICTURE) as image:
        pixels = np.asarray(image.convert("RGB"), np.int16).repeat(20, axis=0).repeat(20, axis=1)
    striped = pixels // 2 + np.where((np.arange(pixels.shape[1]) + 1) // 2 % 2, 127, 0)[:, None]
    path = tmp_path_factory.mktemp("large") / "large.png"
    Image.fromarray(striped.astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def shown(page, large_picture, run_node) -> dict:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "needs Chromium; on Debian: apt-get install chromium"
    no_picture = page.parent / "a.png"
    no_picture.write_text("text", encoding="utf-8")
    pictures = [str(large_picture), str(demo_images() / PICTURE)]
    request = {"queries": QUERIES, "pictures": pictures, "noPicture": str(no_picture), "executable": chromium}
    (page.parent / "request.json").write_text(json.dumps(request, ensure_ascii=False), encoding="utf-8")
    script = Path(__file__).with_name("search.mjs")
    return json.loads(run_node(script, page, page.parent / "request.json"))


def test_hits_are_those_of_python(embedder, page, shown):
    files = [row["file"] for row in json.loads((page / "pictures.json").read_text(encoding="utf-8"))]
    vectors = embedder.encode_images([demo_images() / file for file in files])
    cosines = embedder.encode_texts(QUERIES, role="caption") @ vectors.T
    for query, hits, expected in zip(QUERIES, shown["hits"], cosines, strict=True):
        assert hits[0]["file"] == files[expected.argmax()], query
        by_file = dict(zip(files, expected, strict=True))
        scores = [hit["score"] for hit in hits]
        assert scores == sorted(scores, reverse=True)
        # The page's texts have weights in 8 bit.
        np.testing.assert_allclose(scores, [by_file[hit["file"]] for hit in hits], atol=0.02)


def test_a_picture_of_the_visitor_finds_itself(shown):
    _, hits = shown["own"]
    assert hits[0]["file"] == PICTURE
    assert hits[0]["score"] > 0.99


def test_every_pixel_of_a_large_picture_counts(embedder, large_picture, shown):
    hits, _ = shown["own"]
    (vector,) = embedder.encode_images([large_picture])
    expected = embedder.encode_images([demo_images() / hit["file"] for hit in hits]) @ vector
    np.testing.assert_allclose([hit["score"] for hit in hits], expected, atol=0.05)


def test_a_hit_is_searched_for_by_the_keyboard_which_stays_there(shown):
    assert shown["byKeyboard"]["hits"][0]["file"] == PICTURE
    assert shown["byKeyboard"]["focus"] == "BUTTON"
    assert shown["byKeyboard"]["chosen"] == ""


def test_what_an_input_method_composes_is_not_searched_for(shown):
    assert set(shown["searched"]) == {"消防车"}


def test_what_fails_is_said_and_leaves_no_hits(shown):
    assert shown["failures"]["withoutVectors"] == {
        "status": "It does not work here: vectors.bin: 404 Not Found",
        "hits": 0,
    }
    assert shown["failures"]["noPicture"]["status"].startswith("在这里无法运行：")
    assert shown["failures"]["noPicture"]["hits"] == 0


def test_the_page_speaks_both_languages_and_asks_for_nothing_outside(shown):
    assert shown["languages"] == {"en": "Search pictures in Chinese and English", "zh": "用中文和英文搜索图片"}
    assert shown["outside"] == []
    assert shown["problems"] == []
