"""The demo with the embedded checkpoint: what it finds, and a page that needs nothing else."""

import json
import re
from html import escape

import numpy as np
import pytest
from PIL import Image

from fgclip2 import FGClip2Embedder
from fgclip2.demo.bundle import Bundle
from fgclip2.demo.page import STYLE, Card, Cards, Cell, Explained, Section, Table, render
from fgclip2.demo.run import run_demo
from fgclip2.demo.scenes import SCENE_HITS, SCENE_QUERIES
from fgclip2.demo.shares import nearest_by_pixels
from fgclip2.demo.whole_pictures import TEXT_QUERIES
from fgclip2.errors import IncompatibleIndexError
from fgclip2.search import ImageIndex


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    output = tmp_path_factory.mktemp("演示")
    page, results = run_demo(output, FGClip2Embedder.from_pretrained(device="cpu"))
    return page, results


def test_text_search_finds_the_thing_in_both_languages(demo):
    _, results = demo
    assert results["indexed"] > 200
    for english, chinese in TEXT_QUERIES:
        for query in (english, chinese):
            names = [hit["name"] for hit in results["text_search"][query][:3]]
            assert any(name.endswith(chinese) for name in names), (query, names)


def test_scenes_are_searched_as_people_write_and_counted(demo):
    page, results = demo
    queries = [query for _, *pair in SCENE_QUERIES for query in pair]
    assert list(results["scene_search"]) == queries
    html = page.read_text(encoding="utf-8")
    for task, order in (
        ("query → scene, by cosine / 查询找场景图，按余弦", "before"),
        ("the same, re-ranked / 同上，重排后", "after"),
    ):
        first_of_its_name = next(share for share in results["right"] if share["task"] == task)
        for offset, language in enumerate(("en", "zh")):
            answers = [results["scene_search"][query][order] for query in queries[offset::2]]
            assert first_of_its_name["right"][language] == sum(hits[0]["is_right"] for hits in answers)
            for number, hits in zip([number for number, *_ in SCENE_QUERIES], answers, strict=True):
                assert [hit["scene"] for hit in hits if hit["is_right"]] == [number]
            if order == "after":
                assert first_of_its_name["right"][language] > len(SCENE_QUERIES) * first_of_its_name["chance"]
    for query, hits in results["scene_search"].items():
        places = [1 + [hit["is_right"] for hit in hits[order]].index(True) for order in ("before", "after")]
        assert f"{escape(query)}  ({places[0]} → {places[1]})" in html
    assert 'style="background:#d55e00"' in html


def test_shares_are_counted_and_above_chance_and_pixels(demo):
    page, results = demo
    html = page.read_text(encoding="utf-8")
    assert len(results["right"]) == 9
    for share in results["right"]:
        for language in ("en", "zh"):
            right = share["right"][language]
            assert f"{right / share['of']:.1%} ({right}/{share['of']})" in html
            if "all 289" not in share["task"]:
                assert right > max(2 * share["chance"] * share["of"], share.get("by_pixels", 0)), share
    counted = {
        "box → name / 由框说出名称": [row["truth"] == row["first"] for row in results["regions"]],
        "name → where / 由名称找位置": [row["peak_in_box"] for row in results["heat_maps"]],
    }
    for share in results["right"]:
        if share["task"] in counted:
            assert sum(share["right"].values()) == sum(counted[share["task"]]) > 0
            assert 2 * share["of"] == len(counted[share["task"]])


def test_nearest_by_pixels_is_the_same_picture():
    pictures = [Image.new("RGB", (10 + size, 12), color) for size, color in enumerate(("red", "green", "blue"))]
    assert nearest_by_pixels([pictures[2], pictures[0]], pictures).tolist() == [2, 0]


def test_right_and_wrong_answers_are_marked(demo):
    """By the names of what was found, which the page does not decide."""
    page, results = demo
    html = page.read_text(encoding="utf-8")
    translations = {query: chinese for english, chinese in TEXT_QUERIES for query in (english, chinese)}
    hits = [hit["name"].endswith(f" / {translations[q]}") for q, its in results["text_search"].items() for hit in its]
    names = {thing["file"]: thing["name_en"] for thing in Bundle.load().things}
    hits += [hit["name"].startswith(names[file] + " /") for file, its in results["image_search"].items() for hit in its]
    hits += [hit["is_right"] for its in results["scene_search"].values() for hit in its["after"][:SCENE_HITS]]
    hits += [True] * 2  # the query whose windows are shown large
    hits += [row["peak_in_box"] for row in results["heat_maps"]]
    named = [row["truth"] == row["top"][0] for row in results["named"]]
    hits += [english and chinese for english, chinese in zip(named[::2], named[1::2], strict=True)]
    assert html.count('class="card right"') == sum(hits)
    assert html.count('class="card wrong"') == len(hits) - sum(hits)


def test_most_pictures_find_their_thing_by_another_artist(demo):
    """Of 273 pictures 265 did when the checkpoint was made, most of them by artists that it was trained on."""
    page, _ = demo
    bundle = Bundle.load()
    names = np.array([thing["name_en"] for thing in bundle.things])
    index = ImageIndex.load(bundle.folder, page.parent / "index")
    rows = {file.path: row for row, file in enumerate(index.files)}
    vectors = index.vectors[[rows[thing["file"]] for thing in bundle.things]]
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    first_six = names[np.argsort(-similarity, axis=1)[:, :6]]
    assert (first_six == names[:, None]).any(1).mean() > 0.9


def test_the_page_needs_nothing_else(demo):
    page, results = demo
    html = page.read_text(encoding="utf-8")
    assert all(source.startswith("data:image/webp;base64,") for source in re.findall(r'src="([^"]{0,40})', html))
    assert "<script" not in html
    assert "红苹果" in html
    assert "CC-BY-4.0" in html  # the pictures' makers are named
    assert json.loads((page.parent / "results.json").read_text(encoding="utf-8")) == json.loads(json.dumps(results))


def test_only_an_index_of_another_checkpoint_is_made_anew(tmp_path, monkeypatch):
    errors, rebuilt = iter([IncompatibleIndexError("another checkpoint"), KeyboardInterrupt]), []

    def build(folder, embedder, *, rebuild=False, **options):
        rebuilt.append(rebuild)
        raise next(errors)

    monkeypatch.setattr(ImageIndex, "build", build)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path, None)
    assert rebuilt == [False, True]


@pytest.mark.parametrize(("kind", "border"), [("right", "3px solid #1a7f37"), ("wrong", "3px dashed #cf222e")])
def test_right_and_wrong_pictures_have_borders_of_their_own(kind, border):
    """Of all rules for such a picture, that with the most classes and then the last one wins."""
    rules = re.findall(r"^((?:\.\w+)+) img \{.*?border: (.*?);", STYLE, re.MULTILINE)
    its_rules = [rule for rule in rules if set(rule[0].split(".")[1:]) <= {"card", kind}]
    assert max(reversed(its_rules), key=lambda rule: rule[0].count("."))[1] == border


def test_texts_are_escaped():
    card = Card(Image.new("RGB", (2, 2)), ['<b>"粗体"</b>'])
    table = Table(["<c>"], [[Cell("<r>")]])
    section = Section("<s>", "<e>", "<z>", [[Cards("<q>", [card]), table], [Explained(card, table)]])
    html = render("<t>", [section], "<f>")
    for raw in ("<t>", "<s>", "<e>", "<z>", "<q>", "<f>", "<b>", "<c>", "<r>"):
        assert raw not in html
