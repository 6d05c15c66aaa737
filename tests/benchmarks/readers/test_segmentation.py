"""Pairs of image and mask, and masks that can't be measured by."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.readers.segmentation import read_segmentation
from fgclip2.benchmarks.tasks.segmentation import check_masks, read_mask
from fgclip2.errors import UnreadableImageError
from tests.benchmarks.readers.boxed import write_pictures
from tests.data.samples import write_json

NAMES = {"en": ["wall", "sky", "tree"], "zh": ["墙", "天空", "树"]}


def write_mask(path, values, mode="L", size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.resize(np.array(values, dtype=np.uint16 if mode == "I;16" else np.uint8), size[::-1])
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(path)
    return path


@pytest.fixture
def folders(tmp_path):
    images = write_pictures(tmp_path / "images", "b.jpg", "city/a.jpg", "c.jpg")
    write_mask(tmp_path / "masks/b.png", [0, 1, 2, 255])
    write_mask(tmp_path / "masks/city/a.png", [0, 1, 2], mode="P")
    write_mask(tmp_path / "masks/c.tif", [0, 1, 255], mode="I;16")
    return images, tmp_path / "masks"


def test_pairs(tmp_path, folders):
    images, masks = folders
    for names in (NAMES, write_json(tmp_path / "names.json", NAMES)):
        data = read_segmentation(images, masks, names)
        assert data.images == [ImageFile(images / each) for each in ("b.jpg", "c.jpg", "city/a.jpg")]
        assert data.masks == [ImageFile(masks / each) for each in ("b.png", "c.tif", "city/a.png")]
        assert (data.names, data.ignored, data.items, data.problems) == (NAMES, 255, 3, [])
    assert check_masks(data) == data


def test_values(folders):
    _, masks = folders
    assert read_mask(ImageFile(masks / "b.png"), 3, 255).tolist() == [[0, 1, 2, 255]] * 3
    assert read_mask(ImageFile(masks / "city/a.png"), 3, None)[0].tolist() == [0, 1, 2, 0]  # indices, not colours
    assert read_mask(ImageFile(masks / "c.tif"), 2, 255).shape == (3, 4)


def test_images_and_masks_without_a_partner(folders):
    images, masks = folders
    (masks / "b.png").rename(masks / "other.png")
    write_mask(masks / "c.jpg", [0])
    write_pictures(images, "c.png")
    data = read_segmentation(images, masks, NAMES)
    assert [image.path.name for image in data.images] == ["c.jpg", "a.jpg"]
    assert [str(problem) for problem in data.problems] == [
        f"{images / 'c.png'}: the name is that of {images / 'c.jpg'} too; it must be there once",
        f"{masks / 'c.jpg'}: the mask is compressed with loss; it must be .png or .tif",
        f"{images / 'b.jpg'}: the image has no mask, which would be b.png in {masks}",
        f"{masks / 'other.png'}: the mask has no image, which would be named other in {images}",
    ]


@pytest.mark.parametrize("prefix", ["", "图像/"])
def test_archives(tmp_path, folders, prefix):
    for folder in folders:
        with zipfile.ZipFile(tmp_path / f"{folder.name}.zip", "w") as archive:
            for path in sorted(folder.rglob("*.*")):
                archive.write(path, f"{prefix}{path.relative_to(folder).as_posix()}")
            archive.writestr(f"__MACOSX/{prefix}._b.png", b"")
    images, masks = tmp_path / "images.zip", tmp_path / "masks.zip"
    data = check_masks(read_segmentation(images, masks, NAMES))
    assert data.images == [ImageFile(images, f"{prefix}{each}") for each in ("b.jpg", "c.jpg", "city/a.jpg")]
    assert data.masks == [ImageFile(masks, f"{prefix}{each}") for each in ("b.png", "c.tif", "city/a.png")]
    assert data.problems == []
    assert read_segmentation(folders[0], folders[1], NAMES).items == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: write_mask(path, [0, 7]), "the mask has the value 7; values must be 0 to 2, or 255"),
        (lambda path: write_mask(path, [0], size=(3, 4)), "the mask has 3 x 4 pixels, but "),
        (lambda path: Image.new("RGB", (4, 3)).save(path), "the mask's mode is RGB, but 8- or 16-bit grey"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), ""),
        (lambda path: path.write_text("no image"), "the mask is of no known image format"),
    ],
)
def test_masks_that_can_not_be_used(folders, change, reason):
    images, masks = folders
    change(masks / "b.png")
    data = check_masks(read_segmentation(images, masks, NAMES))
    assert [image.path.name for image in data.images] == ["c.jpg", "a.jpg"]
    assert [mask.path.name for mask in data.masks] == ["c.tif", "a.png"]
    (problem,) = data.problems
    assert problem.source == str(masks / "b.png")
    assert problem.reason.startswith(reason)


def test_upright_images(folders):
    """A mask belongs to the image as it is shown."""
    images, masks = folders
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (3, 4)).save(images / "b.jpg", exif=exif)
    assert check_masks(read_segmentation(images, masks, NAMES)).problems == []


def test_broken_images(folders):
    images, masks = folders
    (images / "b.jpg").write_bytes(b"no image")
    (problem,) = check_masks(read_segmentation(images, masks, NAMES)).problems
    assert problem.reason == f"{images / 'b.jpg'}: 8 bytes of no known image format"
    with pytest.raises(UnreadableImageError, match=r"gone\.png"):
        read_mask(ImageFile(masks / "gone.png"), 3, 255)


def test_arguments(tmp_path, folders):
    images, masks = folders
    with pytest.raises(
        ValueError, match="names must be a list in the order of the masks' values, but they are by folder"
    ):
        read_segmentation(images, masks, {"zh": {"墙": "墙"}})
    with pytest.raises(ValueError, match="nowhere is no folder"):
        read_segmentation(images, tmp_path / "nowhere", NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"images has no record that can be used; the first problem: .*has no mask"):
        read_segmentation(images, tmp_path / "empty", NAMES)
    for name in ("b.png", "city/a.png", "c.tif"):
        write_mask(masks / name, [9])
    with pytest.raises(ValueError, match=r"masks has no pair that can be used; the first problem: .*the value 9"):
        check_masks(read_segmentation(images, masks, NAMES))
