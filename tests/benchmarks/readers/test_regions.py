"""COCO, LVIS and BoxClass-CN as published, and each thing wrong in turn."""

import json
import re
import time
import zipfile

import pytest
from PIL import ExifTags, Image

from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.readers.regions import read_boxes
from tests.benchmarks.readers.boxed import BOXCLASS, BOXCLASS_SIZE, COCO, LVIS, changed, write_coco, write_pictures
from tests.data.samples import write_json


def test_coco(tmp_path):
    """Ids with gaps and in any order; names come in the order of ids; images without boxes are left out."""
    path, images = write_coco(tmp_path)
    data = read_boxes(path, images)
    assert data.images == [ImageFile(images / "000000000285.jpg"), ImageFile(images / "000000000139.jpg")]
    assert data.boxes == [[(10, 20.5, 40, 60.5)], [(0, 0, 640, 426), (5, 6, 12, 14)]]
    assert data.categories == [[1], [0, 1]]
    assert data.names == {"en": ["person", "toothbrush"]}
    assert (data.items, data.problems) == (3, [])


def test_names_in_another_language(tmp_path):
    path, images = write_coco(tmp_path)
    data = read_boxes(path, images, names={"zh": ["人", "牙刷"]})
    assert data.names == {"en": ["person", "toothbrush"], "zh": ["人", "牙刷"]}
    with pytest.raises(ValueError, match=r"names\['zh'\] has 1 names; .*instances_val2017.json has 2 categories"):
        read_boxes(path, images, names={"zh": ["人"]})


def test_without_crowds(tmp_path):
    path, images = write_coco(tmp_path)
    data = read_boxes(path, images, crowds=False)
    assert data.boxes == [[(10, 20.5, 40, 60.5)], [(5, 6, 12, 14)]]
    assert data.problems == []


def test_folder_of_both_years(tmp_path):
    """The folder above val2017 will do where the address names val2017."""
    path, images = write_coco(tmp_path, changed(COCO, "annotations", 0, image_id=139))
    assert read_boxes(path, images.parent).images == [ImageFile(images / "000000000139.jpg")]


def test_lvis(tmp_path):
    images = write_pictures(tmp_path, "val2017/000000397133.jpg", "train2017/000000000009.jpg")
    data = read_boxes(write_json(tmp_path / "lvis_v1_val.json", LVIS), images)
    assert data.names == {"en": ["aerosol can", "bow (weapon)"]}
    assert [str(image.path.relative_to(tmp_path)) for image in data.images] == [
        "val2017/000000397133.jpg",
        "train2017/000000000009.jpg",
    ]
    assert data.categories == [[1], [0, 1]]
    assert data.problems == []


def test_boxclass_cn(tmp_path):
    """Chinese names, an archive of images, neither sizes nor ids of annotations."""
    path = write_json(tmp_path / "valid_category_data_total_zh.json", BOXCLASS)
    write_pictures(tmp_path / "unpacked", "000010.jpg", "000014.jpg", size=BOXCLASS_SIZE)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in ("000010.jpg", "000014.jpg"):
            archive.write(tmp_path / "unpacked" / name, f"images/{name}")
    data = read_boxes(path, tmp_path / "images.zip", "zh")
    assert data.names == {"zh": ["红色连衣裙", "木制餐桌"]}
    assert [image.member for image in data.images] == ["images/000010.jpg", "images/000014.jpg"]
    assert data.boxes == [[(1, 2, 31, 42), (0, 0, 5, 5)], [(1000, 2, 1030, 42)]]
    assert data.categories == [[0, 1], [1]]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("zipped", [False, True])
def test_sizes_that_are_not_listed_are_those_of_the_upright_images(tmp_path, monkeypatch, suffix, zipped):
    """The good box of an image with a bad one stays; each header is read once."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turned by a quarter
    names = [f"10{suffix}", f"14{suffix}"]
    (tmp_path / "images").mkdir()
    Image.new("RGB", BOXCLASS_SIZE[::-1]).save(tmp_path / "images" / names[0], exif=exif)
    (tmp_path / "images" / names[1]).write_bytes(b"broken")
    if zipped:
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for name in names:
                archive.write(tmp_path / "images" / name, name)
    named = changed(changed(BOXCLASS, "images", 0, file_name=names[0]), "images", 1, file_name=names[1])
    boxes = [*named["annotations"], {"image_id": 10, "bbox": [1000, 2, 30, 60], "category_id": 2}]
    path = write_json(tmp_path / "a.json", named | {"annotations": boxes})
    opened = []
    monkeypatch.setattr(ImageFile, "size", lambda self, size=ImageFile.size: opened.append(self) or size(self))
    data = read_boxes(path, tmp_path / ("images.zip" if zipped else "images"), "zh")
    assert data.boxes == [[(1, 2, 31, 42), (0, 0, 5, 5)], [(1000, 2, 1030, 42)]]  # the broken one fails when it is read
    assert [str(problem) for problem in data.problems] == [
        f"{path}: annotations[3]: bbox is [1000, 2, 30, 60]; it must be a box within the image, 1040 x 60 pixels"
    ]
    assert opened == data.images


def test_listed_sizes_are_trusted(tmp_path, monkeypatch):
    path, images = write_coco(tmp_path)  # of 4 x 3 pixels
    monkeypatch.setattr(ImageFile, "size", lambda self: pytest.fail("opened"))
    assert read_boxes(path, images).items == 3


def test_english_names_where_all_categories_have_them(tmp_path):
    images = write_pictures(tmp_path, "000010.jpg", "000014.jpg", size=BOXCLASS_SIZE)
    both = changed(changed(BOXCLASS, "categories", 0, name_en="red dress"), "categories", 1, name_en="wooden_table")
    assert read_boxes(write_json(tmp_path / "a.json", both), images, "zh").names == {
        "zh": ["红色连衣裙", "木制餐桌"],
        "en": ["red dress", "wooden table"],
    }
    one = changed(BOXCLASS, "categories", 0, name_en="red dress")
    assert set(read_boxes(write_json(tmp_path / "b.json", one), images, "zh").names) == {"zh"}


def test_categories_from_0(tmp_path):
    """All of them would be off by one, silently."""
    from_0 = BOXCLASS | {"categories": [{"id": 0, "name": "红色连衣裙"}, {"id": 1, "name": "木制餐桌"}]}
    images = write_pictures(tmp_path, "000010.jpg", "000014.jpg", size=BOXCLASS_SIZE)
    path = write_json(tmp_path / "a.json", from_0)
    with pytest.raises(
        ValueError,
        match=r"a\.json: categories: id is 0 \('红色连衣裙'\), but .*: add 1 to the ids .* in the file$",
    ):
        read_boxes(path, images, "zh")
    annotations = [each | {"category_id": each["category_id"] - 1} for each in BOXCLASS["annotations"]]
    whole = write_json(tmp_path / "b.json", from_0 | {"annotations": annotations})
    assert read_boxes(whole, images, "zh", one_based=False).categories == [[0, 1], [1]]
    half = write_json(tmp_path / "c.json", BOXCLASS | {"annotations": annotations})
    for one_based in (True, False):
        with pytest.raises(ValueError, match=r"c\.json: annotations\[0\]: category_id is 0, but .*; add 1 to each"):
            read_boxes(half, images, "zh", one_based=one_based)


@pytest.mark.parametrize(
    ("part", "changes", "reason"),
    [
        ("annotations", {"category_id": 91}, r"category_id is 91; it must be an id that 'categories' has"),
        ("annotations", {"category_id": "90"}, r"category_id is '90'; it must be"),
        ("annotations", {"category_id": True}, r"category_id is True; it must be"),
        ("annotations", {"category_id": [90]}, r"category_id is \[90\]; it must be"),
        ("annotations", {"category_id": None}, r"category_id is missing; it must be"),
        ("annotations", {"image_id": 5}, r"image_id is 5; it must be an id that 'images' has"),
        (
            "annotations",
            {"id": 900100000139},
            r"annotations\[1\]: id is 900100000139; it must be",
        ),  # the second to have it
        ("annotations", {"bbox": None}, r"bbox is missing; it must be x, y, width, height in pixels"),
        ("annotations", {"bbox": [1, 2, 3]}, r"bbox is \[1, 2, 3\]; it must be"),
        ("annotations", {"bbox": [1, 2, 0, 4]}, r"bbox is \[1, 2, 0, 4\]; it must be .* width and height positive"),
        ("annotations", {"bbox": [1, 2, 3, -4]}, r"bbox is \[1, 2, 3, -4\]; it must be"),
        ("annotations", {"bbox": [1, 2, 3, float("nan")]}, r"bbox is \[1, 2, 3, nan\]; it must be .* finite"),
        ("annotations", {"bbox": [1, 2, 3, "4"]}, r"bbox is \[1, 2, 3, '4'\]; it must be"),
        ("annotations", {"bbox": [1, 2, 586.5, 4]}, r"bbox is .*; it must be a box within the image, 586 x 640 pixels"),
        ("annotations", {"bbox": [-1.5, 2, 30, 4]}, r"it must be a box within the image"),
        ("annotations", {"bbox": [586, 2, 0.5, 4]}, r"it must be a box within the image"),  # nothing left after the cut
        ("images", {"file_name": None}, r"images\[1\]: file_name is missing; it must be a text"),
        ("images", {"file_name": "other.jpg"}, r"the image is 'other.jpg'; it must be an image in [^;]*$"),
        (
            "images",
            {"file_name": "000000000285.JPG"},
            r"the image is '000000000285\.JPG'; it must be an image in .*val2017; there is 000000000285\.jpg$",
        ),
        (
            "images",
            {"file_name": "../000000000285.jpg"},
            r"the image is '\.\./0.*'; it must be a safe, unambiguous name",
        ),
        ("images", {"width": 0}, r"images\[1\]: width is 0; it must be a positive whole number of pixels"),
        ("images", {"height": "640"}, r"images\[1\]: height is '640'; it must be"),
        ("images", {"id": 139}, r"images\[1\]: id is 139; it must be a whole number or text that no record before has"),
        ("images", {"id": None}, r"images\[1\]: id is missing; it must be"),
        ("categories", {"name": " "}, r"categories\[0\]: name is ' '; it must be a text"),
        ("categories", {"id": [90]}, r"categories\[0\]: id is \[90\]; it must be"),
    ],
)
def test_what_is_wrong_is_left_out_and_named(tmp_path, part, changes, reason):
    index = 0 if part != "images" else 1
    path, images = write_coco(tmp_path, changed(COCO, part, index, **changes))
    data = read_boxes(path, images)
    assert str(path) in data.problems[0].source
    assert re.search(reason, " | ".join(map(str, data.problems)))
    left_out = sum("annotations[" in problem.source for problem in data.problems)
    assert left_out >= 1
    assert data.items + left_out == 3  # nothing is lost without a word
    assert len(data.images) == len(data.boxes) == len(data.categories)
    assert all(data.boxes)


def test_records_that_are_no_objects(tmp_path):
    path, images = write_coco(tmp_path, COCO | {"annotations": [*COCO["annotations"], "text", None]})
    assert [str(problem) for problem in read_boxes(path, images).problems] == [
        f"{path}: annotations[3]: the record is 'text'; it must be one JSON object",
        f"{path}: annotations[4]: the record is missing; it must be one JSON object",
    ]


def test_a_pixel_over_the_edge_is_cut(tmp_path):
    path, images = write_coco(tmp_path, changed(COCO, "annotations", 0, bbox=[-0.5, 20, 587.5, 621]))
    data = read_boxes(path, images)
    assert data.boxes[0] == [(0, 20, 586, 640)]
    assert data.problems == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {key: COCO[key] for key in ("images", "annotations")},
            r"x\.json has no list 'categories', only images, annotations; it must be COCO's format",
        ),
        (COCO | {"images": {}}, r"x\.json has no list 'images'"),
        (
            COCO["annotations"],
            r"x\.json has no list 'categories', only a list; it must be .*not of captions or results",
        ),
        (COCO | {"annotations": []}, r"x\.json has no record that can be used and is empty"),
        (
            COCO | {"images": [COCO["images"][2]]},
            r"no record that can be used; the first problem: .*annotations\[0\]: image_id is 285",
        ),
    ],
)
def test_files_of_another_kind(tmp_path, content, message):
    _, images = write_coco(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_boxes(write_json(tmp_path / "x.json", content), images)


def test_broken_files(tmp_path):
    path, images = write_coco(tmp_path)
    whole = path.read_bytes()
    for content in (whole[:-20], b"", b"\xff\xfe" + whole, b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"instances_val2017\.json is not JSON in UTF-8, or is broken or cut off: .*; get it again"
        ):
            read_boxes(path, images)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(ValueError, match=r"is a pointer of Git LFS, not the file; fetch it with `git lfs pull`"):
        read_boxes(path, images)
    with pytest.raises(ValueError, match=r"nowhere\.json: no such file"):
        read_boxes(tmp_path / "nowhere.json", images)
    path.write_bytes(b"\xef\xbb\xbf" + whole)  # a byte order mark does no harm
    assert read_boxes(path, images).items == 3


def test_arguments(tmp_path):
    path, images = write_coco(tmp_path)
    (tmp_path / "val2017.zip").write_bytes(b"PK cut off")
    with pytest.raises(ValueError, match=r"val2017\.zip is no whole zip archive \(.*; download it again"):
        read_boxes(path, tmp_path)
    with pytest.raises(ValueError, match=r"language is 'cn'; it must be en or zh"):
        read_boxes(path, images, "cn")
    with pytest.raises(ValueError, match="no such folder of images"):
        read_boxes(path, tmp_path / "nowhere")


def test_time_grows_with_the_file_not_faster(tmp_path):
    """All categories of LVIS, half its images, an eighth of its boxes: 0.3 s; quadratic work takes minutes."""
    images = write_pictures(tmp_path, "0.jpg")
    content = {
        "categories": [{"id": number, "name": f"类别{number}"} for number in range(1, 1204)],
        "images": [{"id": number, "file_name": "0.jpg", "width": 640, "height": 480} for number in range(10_000)],
        "annotations": [
            {"id": number, "image_id": number % 10_000, "category_id": number % 1203 + 1, "bbox": [0, 0, 9, 9]}
            for number in range(30_000)
        ],
    }
    path = tmp_path / "large.json"
    path.write_text(json.dumps(content))
    start = time.process_time()
    data = read_boxes(path, images, "zh")
    assert (data.items, data.problems) == (30_000, [])
    assert time.process_time() - start < 5
