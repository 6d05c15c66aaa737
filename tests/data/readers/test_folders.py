"""Folders of labelled images."""

import pickle

import pytest

from fgclip2.data.readers import read_image_folder
from fgclip2.data.records import InvalidRecordError, open_record_image
from tests.data.samples import write_images


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "图/red_apple/more", 1)
    write_images(tmp_path / "图/黑猫", 2)
    (tmp_path / "图/黑猫/notes.txt").write_text("no image")
    (tmp_path / "图/黑猫/.0.png").write_text("hidden")
    (tmp_path / "图/.cache").mkdir()
    return tmp_path / "图"


def test_labels_are_captions(folder):
    dataset = read_image_folder(folder)
    assert [(record.short_caption, record.language) for record in dataset] == [
        ("red apple", "en"),
        ("黑猫", "zh"),
        ("黑猫", "zh"),
    ]
    assert dataset.languages.tolist() == [0, 1, 1]
    assert dataset[0].image == dataset.source(0) == str(folder / "red_apple/more/0.png")
    assert open_record_image(dataset[2]).size == (8, 6)
    assert list(pickle.loads(pickle.dumps(dataset))) == list(dataset)


def test_templates(folder):
    assert read_image_folder(folder, "photo: {}")[1].short_caption == "photo: 黑猫"
    dataset = read_image_folder(folder, {"en": "a photo of a {}", "zh": "一张{}的照片"})
    assert [record.short_caption for record in dataset] == [
        "a photo of a red apple",
        "一张黑猫的照片",
        "一张黑猫的照片",
    ]
    assert read_image_folder(folder, language="en").languages.tolist() == [0, 0, 0]


def test_what_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"templates\['zh'\] must be a text with {} in it, got '照片'"):
        read_image_folder(folder, {"en": "{}", "zh": "照片"})
    with pytest.raises(ValueError, match=r"templates\['zh'\] must be a text with {} in it, got None"):
        read_image_folder(folder, {"en": "{}"})
    (tmp_path / "空").mkdir()
    with pytest.raises(ValueError, match="空 must hold at least one image"):
        read_image_folder(tmp_path / "空")
    with pytest.raises(ValueError, match="没有 is no folder"):
        read_image_folder(tmp_path / "没有")
    (folder / "_").mkdir()
    write_images(folder / "_", 1)
    dataset = read_image_folder(folder)
    with pytest.raises(InvalidRecordError, match="the name of the subfolder is ''"):
        dataset[0]
    write_images(folder, 1)
    with pytest.raises(ValueError, match=r"0\.png must lie in a subfolder"):
        read_image_folder(folder)
