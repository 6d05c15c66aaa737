"""Folders of labelled images."""

import os
import pickle
from pathlib import Path

import pytest

from fgclip2.data.readers import read_image_folder
from fgclip2.data.records import InvalidRecordError, open_record_image
from fgclip2.errors import UnreadableImageError
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


def test_one_bad_entry_does_not_end_a_folder(tmp_path):
    """Links out, to themselves and to nothing, and folders too deep to be listed, are records that can't be read."""
    outside = write_images(tmp_path / "elsewhere", 1)
    folder = tmp_path / "照片"
    write_images(folder / "猫", 1)
    (folder / "猫" / "a.png").symlink_to(outside / "0.png")
    (folder / "猫" / "b.png").symlink_to(folder / "猫" / "b.png")
    (folder / "猫" / "c.png").symlink_to(folder / "猫" / "0.png")
    (folder / "dog").symlink_to(outside)  # a link to a folder is not followed
    descriptor = os.open(folder, os.O_RDONLY)
    for name in ("deep", *["x" * 250] * 17):  # 4,271 bytes: made one by one, for no path is so long
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    dataset = read_image_folder(folder)
    names = [Path(dataset.source(index)).name[:5] for index in range(len(dataset))]
    assert names == ["xxxxx", "0.png", "a.png", "b.png", "c.png"]
    with pytest.raises(InvalidRecordError, match=r"xxx: the folder is unreadable \(File name too long\)"):
        dataset[0]
    with pytest.raises(InvalidRecordError, match=r"猫/a\.png: the image is .*a link that leads out of its folder"):
        dataset[2]
    with pytest.raises(UnreadableImageError, match=r"猫/b\.png"):
        open_record_image(dataset[3])
    for index in (1, 4):
        assert open_record_image(dataset[index]).size == (8, 6)
    assert open_record_image(read_image_folder(folder, follow_links=True)[2]).size == (8, 6)
