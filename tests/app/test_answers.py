"""What the tabs answer, without Gradio."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fgclip2 import Embedder
from fgclip2.app import answers
from fgclip2.app.answers import HeatMaps, InputError
from fgclip2.app.examples import EXAMPLES, GARDEN, SEA, example_path
from fgclip2.search import ImageIndex

BUDGET = answers.USUAL_BUDGET


@pytest.fixture(scope="module")
def garden() -> Image.Image:
    return answers.read_picture(example_path(GARDEN))


@pytest.fixture(scope="module")
def maps(embedder, garden) -> HeatMaps:
    return answers.map_phrases(embedder, garden, ["carrot", "火箭"], BUDGET)


@pytest.fixture
def uncalibrated(embedder) -> Embedder:
    return Embedder(embedder.model, embedder.processor, device="cpu")


def said(key: str):
    return pytest.raises(InputError, match=f"^{key}$")


def test_phrases_stand_between_commas_of_both_languages_or_on_lines():
    assert answers.read_phrases(" 猫， a dog,狗、cat\n\n猫 ;") == ["猫", "a dog", "狗", "cat"]


def test_what_a_visitor_has_to_change_is_named(tmp_path):
    (tmp_path / "a.png").write_text("no picture", encoding="utf-8")
    with said("no_picture"):
        answers.read_picture(None)
    with said("unreadable_picture"):
        answers.read_picture(tmp_path / "a.png")
    for text in (None, " ", "，,"):
        with said("no_phrases"):
            answers.read_phrases(text)
    with said("too_many_phrases"):
        answers.read_phrases("a,b,c", most=2)
    with said("text_too_long"):
        answers.read_text("x" * (answers.MAX_CHARACTERS + 1))


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(answers, "MAX_PIXELS", 1199)
    with said("unreadable_picture"):
        answers.read_picture(tmp_path / "a.png")


def test_pictures_get_the_usual_patches_where_the_calibration_has_them(embedder, uncalibrated):
    assert answers.budget_of(embedder) == BUDGET
    other = Embedder(embedder.model, embedder.processor, device="cpu")
    other.use_calibration(
        replace(
            embedder.calibration,
            scores=[curve for curve in embedder.calibration.scores if curve.key.max_num_patches != BUDGET],
        )
    )
    assert answers.budget_of(other) is None
    assert answers.budget_of(embedder, 64) == 64
    assert answers.budget_of(uncalibrated) is None


def test_labels_have_calibrated_probabilities_where_there_is_a_curve(embedder, uncalibrated, garden):
    labels = ["a tiger", "茄子、胡萝卜和火箭"]
    best, other = answers.label_picture(embedder, garden, labels, BUDGET)
    cosines = embedder.similarity(embedder.encode_images(garden, BUDGET), embedder.encode_texts(labels))
    expected = embedder.match_probabilities(cosines, labels, max_num_patches=BUDGET, candidates=2)
    assert (best.text, other.text) == (labels[1], labels[0])
    np.testing.assert_allclose([other.probability, best.probability], expected, atol=1e-6)
    np.testing.assert_allclose([other.cosine, best.cosine], cosines, atol=1e-6)
    assert best.probability > 0.5 > other.probability
    without = [
        answers.label_picture(embedder, garden, labels, 64),
        answers.label_picture(uncalibrated, garden, labels, 64),
    ]
    assert {score.probability for scores in without for score in scores} == {None}


def test_boxes_that_can_not_be_used_are_told(embedder, garden):
    for boxes, key in (
        ([], "no_box"),
        ([(0, 0, 9, 9)] * 31, "too_many_boxes"),
        ([(500, 500, 600, 600)], "unusable_box"),
    ):
        with said(key):
            answers.label_boxes(embedder, garden, boxes, ["carrot"], BUDGET)


def test_maps_share_a_scale_and_are_exported_as_they_are(embedder, garden, maps):
    assert maps.low == min(values.min() for values in maps.values)
    assert maps.high == max(values.max() for values in maps.values)
    assert max(maps.pictures[0].size) == answers.DRAWN[0]
    assert maps.overlays(0)[0].tobytes() == maps.pictures[0].tobytes()
    file = io.BytesIO()
    maps.save(file, checkpoint="embedded")
    stored = np.load(io.BytesIO(file.getvalue()), allow_pickle=False)
    assert (str(stored["text_1"]), str(stored["checkpoint"])) == ("火箭", "embedded")
    np.testing.assert_allclose(stored["map_1"], embedder.heatmap(garden, "火箭", False, BUDGET), atol=1e-5)
    np.testing.assert_allclose(stored["scale"], [maps.low, maps.high])


def test_a_difference_has_the_scale_of_the_maps_and_turns_around(maps):
    first, second = np.array([[0.0, 0.4]], np.float32), np.array([[0.4, 0.2]], np.float32)
    picture = Image.new("RGB", (480, 240))
    pair = HeatMaps.of([picture, picture], ["a", "b"], [first, second])
    drawing, half = answers.draw_difference(pair, 1.0)
    assert half == pytest.approx(0.2)
    blue, red = (
        answers.draw_map(picture, np.array([[value]], np.float32), 1.0, -half, half).getpixel((0, 0))
        for value in (-0.4, 0.2)
    )
    assert (drawing.getpixel((0, 0)), drawing.getpixel((479, 0))) == (blue, red)
    turned, _ = answers.draw_difference(replace(pair, values=[second, first]), 1.0)
    assert (turned.getpixel((0, 0)), turned.getpixel((479, 0))) == (red, blue)


def test_an_index_is_searched_by_text_by_picture_and_by_both(embedder, tmp_path):
    for name, example in (("garden.webp", GARDEN), ("sea.webp", SEA)):
        answers.read_picture(example_path(example)).save(tmp_path / name, lossless=True)
    index = ImageIndex.build(tmp_path, embedder, max_num_patches=BUDGET)
    hits = answers.search(embedder, index, "茄子", None, 2, "phrases")
    assert [hit.id for hit in hits] == ["garden.webp", "sea.webp"]
    assert hits[0].phrases[0].text == "茄子"
    assert [hit.id for hit in answers.search(embedder, index, "", tmp_path / "garden.webp", 2, "phrases")] == [
        "sea.webp"
    ]
    assert [hit.id for hit in answers.search(embedder, index, "taxi", tmp_path / "garden.webp", 2, None)] == [
        "sea.webp"
    ]
    with said("no_query"):
        answers.search(embedder, index, " ", None, 2, None)


@pytest.mark.parametrize("language", EXAMPLES)
def test_the_embedded_checkpoint_answers_the_examples_rightly(embedder, language):
    examples = EXAMPLES[language]
    for name, labels in examples.labels:
        names = answers.read_phrases(labels)
        best, second, *_ = answers.label_picture(embedder, answers.read_picture(example_path(name)), names, BUDGET)
        assert best.text == names[0]
        assert best.probability > 0.5 > second.probability
    name, shares, phrases = examples.boxes
    picture = answers.drawn(answers.read_picture(example_path(name)))
    boxes = (np.array(shares) * [*picture.size, *picture.size]).tolist()
    names = answers.read_phrases(phrases)
    found = answers.label_boxes(embedder, picture, boxes, names, BUDGET)
    assert [scores[0].text for scores in found] == [names[0], names[2], names[1]]
    assert all(scores[0].probability > 0.5 for scores in found)
    for name, *captions in examples.contrasts:
        best, _ = answers.label_picture(embedder, answers.read_picture(example_path(name)), captions, BUDGET)
        assert best.text == captions[0]
    for one, other, text in examples.pairs:
        pictures = [answers.read_picture(example_path(name)) for name in (one, other)]
        (right, wrong), _ = answers.compare_pictures(embedder, pictures, text, BUDGET)
        assert right.cosine > wrong.cosine
