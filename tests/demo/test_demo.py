"""The demo with the embedded checkpoint: what it finds, and a page that needs nothing else."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fgclip2 import FGClip2Embedder
from fgclip2.demo.page import STYLE, Card, Row, Section, render
from fgclip2.demo.run import CLASSIFIED, LABELS, SCENE_QUERIES, TEXT_QUERIES, Bundle, run_demo
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
    scores = results["scene_search_right"]
    assert (scores["queries"], scores["pictures"]) == (len(SCENE_QUERIES), results["indexed"])
    html = page.read_text(encoding="utf-8")
    for offset, language in enumerate(("en", "zh")):
        for order in ("before", "after"):
            answers = [results["scene_search"][query][order] for query in queries[offset::2]]
            assert scores[language][order] == sum(hits[0]["is_right"] for hits in answers)
            for number, hits in zip([number for number, *_ in SCENE_QUERIES], answers, strict=True):
                assert [hit["scene"] for hit in hits if hit["is_right"]] == [number]
        assert scores[language]["after"] > len(SCENE_QUERIES) / scores["scenes"]  # which chance would give
    shown = sum(
        hit["is_right"] for its in results["scene_search"].values() for hits in its.values() for hit in hits[:3]
    )
    assert html.count('class="card right"') == shown
    assert html.count('class="card wrong"') == 2 * 3 * len(queries) - shown
    assert 'style="background:#d55e00"' in html


def test_image_search_finds_the_same_thing_by_another_artist(demo):
    _, results = demo
    for file, hits in results["image_search"].items():
        assert any(hit["name"].split(" / ")[0] in file for hit in hits), (file, hits)


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


def test_classification_prefers_the_right_label_in_each_language(demo):
    _, results = demo
    translations = dict(LABELS)
    for name in CLASSIFIED:
        best = {label for label, _ in results["classify"][name][:2]}
        assert best == {name, translations[name]}


def test_regions_and_heat_maps_are_far_above_chance(demo):
    """91 labels: chance is 1 in 91 for the first, 1 in 23 for the first four."""
    _, results = demo
    hits = [row["truth"] in [label for label, _ in row["top"]] for row in results["regions"]]
    assert len(hits) >= 20
    assert sum(hits) / len(hits) > 0.25
    lifted = [row["inside"] > row["mean"] for row in results["heat_maps"]]
    assert sum(lifted) / len(lifted) > 0.75


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


@pytest.mark.parametrize(
    ("kind", "border"), [("right", "3px solid #1a7f37"), ("wrong", "3px dashed #cf222e"), ("wide", "1px solid #eee")]
)
def test_right_and_wrong_pictures_have_borders_of_their_own(kind, border):
    """Of all rules for such a picture, that with the most classes and then the last one wins."""
    rules = re.findall(r"^((?:\.\w+)+) img \{.*?border: (.*?);", STYLE, re.MULTILINE)
    its_rules = [rule for rule in rules if set(rule[0].split(".")[1:]) <= {"card", kind}]
    assert max(reversed(its_rules), key=lambda rule: rule[0].count("."))[1] == border


def test_texts_are_escaped():
    card = Card(Image.new("RGB", (2, 2)), ['<b>"粗体"</b>'])
    html = render("<t>", [Section("<s>", "&", [Row("<q>", [card])])], "<f>")
    for raw in ("<t>", "<s>", "<q>", "<f>", "<b>"):
        assert raw not in html
