"""FineHARD's schema: what it means, both path layouts, and every field wrong in turn."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from torch.utils.data import DataLoader

from fgclip2.data.readers import read_finehard, read_fineregion_cn
from fgclip2.data.readers.finehard import item_of_record, record_of_item
from fgclip2.data.records import InvalidRecordError, Record, Region, open_record_image
from tests.data.samples import APPLE, LONG, NEGATIVES, SHORT, item, items, region, write_images, write_json, write_lines


def read_one(tmp_path, images, row, **options) -> Record:
    return read_finehard(write_lines(tmp_path / "a.jsonl", [row]), images, **options)[0]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_record(tmp_path, images, language):
    """Chinese records may have boxes too."""
    negatives = tuple(NEGATIVES[language].format(number) for number in range(10))
    assert read_one(tmp_path, images, item(language)) == Record(
        image=str(images / "0.png"),
        short_caption=SHORT[language],
        long_caption=LONG[language],
        language=language,
        regions=(Region((0.1, 0.2, 0.5, 0.75), APPLE[language], LONG[language], negatives),),
        source=f"{tmp_path / 'a.jsonl'}:1",
    )


def test_what_may_be_missing(tmp_path, images):
    record = read_one(tmp_path, images, item(caption=None, bbox_info=None))
    assert (record.short_caption, record.long_caption, record.regions) == (SHORT["en"], None, ())
    record = read_one(tmp_path, images, item("zh", short_caption=None, bbox_info=[]))
    assert (record.short_caption, record.long_caption, record.regions) == (None, LONG["zh"], ())
    bare = {"bbox": [0, 0, 1, 1], "short_expr": "苹果"}
    assert read_one(tmp_path, images, item("zh", bbox_info=[bare])).regions == (Region((0, 0, 1, 1), "苹果"),)


@pytest.mark.parametrize(
    "changes", [{"flag_short_neg": 0}, {"short_expr_negs": None}, {"short_expr_negs": {}}, {"flag_short_neg": False}]
)
def test_regions_without_hard_negatives(tmp_path, images, changes):
    (found,) = read_one(tmp_path, images, item(bbox_info=[region(**changes)])).regions
    assert found.hard_negatives == ()


def test_hard_negatives_as_a_list(tmp_path, images):
    (found,) = read_one(tmp_path, images, item(bbox_info=[region(short_expr_negs=["a pear", "梨"])])).regions
    assert found.hard_negatives == ("a pear", "梨")


def test_languages(tmp_path, images):
    """By option, else by `is_cn`, else by the characters."""
    rows = [item("en"), item("zh"), item("zh", is_cn=None), item("en", is_cn=True), item("zh", is_cn=False)]
    path = write_json(tmp_path / "a.json", rows)
    dataset = read_finehard(path, images)
    assert [record.language for record in dataset] == ["en", "zh", "zh", "zh", "en"]
    assert dataset.languages.tolist() == [0, 1, 1, 1, 0]
    assert dataset.languages.dtype == np.uint8
    assert {record.language for record in read_finehard(path, images, language="zh")} == {"zh"}
    assert read_finehard(path, images, language="zh").languages.tolist() == [1] * 5
    with pytest.raises(ValueError, match="language must be 'en', 'zh' or None, got 'cn'"):
        read_finehard(path, images, language="cn")


@pytest.mark.parametrize("prefix", ["grit-20m/data-12m/", "data/down-grit-12m/"])
def test_both_published_layouts(tmp_path, prefix):
    path = write_json(tmp_path / "a.json", [item(path=f"{prefix}coyo_image_0/00069/0.png")])
    stripped = write_images(tmp_path / "stripped/coyo_image_0/00069", 1)
    direct = write_images(tmp_path / f"direct/{prefix}coyo_image_0/00069", 1)
    for root, folder in ((tmp_path / "stripped", stripped), (tmp_path / "direct", direct)):
        record = read_finehard(path, root)[0]
        assert record.image == str(folder / "0.png")
        assert open_record_image(record).size == (8, 6)
    nowhere = read_finehard(path, tmp_path)[0]
    assert nowhere.image == str(tmp_path / f"{prefix}coyo_image_0/00069/0.png")


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "../0.png", "a/../../0.png", "..", "grit-20m/data-12m/../../0.png", "a\0b.png"),
        *("C:\\0.png", "C:0.png", "\\\\server\\0.png", "a\\..\\0.png"),
        *("https://example.com/0.png", "file:///etc/passwd", "", " ", 3, None),
    ],
)
def test_paths_do_not_leave_the_folder(tmp_path, images, path):
    with pytest.raises(InvalidRecordError, match=r"a\.jsonl:1: f_path is .*; it must be (a path relative|a text)"):
        read_one(tmp_path, images, item(path=path))


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        ([-0.0005, 0.2, 1.0009, 0.75], (0.0, 0.2, 1.0, 0.75)),  # rounding is clipped
        ([0, 0, 1, 1, 0.87], (0.0, 0.0, 1.0, 1.0)),
    ],
)
def test_boxes(tmp_path, images, box, corners):
    assert read_one(tmp_path, images, item(bbox_info=[region(bbox=box)])).regions[0].box == corners


@pytest.mark.parametrize(
    "box",
    [
        [0.5, 0.2, 0.1, 0.75],  # inverted
        [0.1, 0.75, 0.5, 0.2],
        [0.1, 0.2, 0.1, 0.75],  # no area
        [0.1, 0.2, 0.5, 0.2],
        [-0.0009, 0.2, -0.0001, 0.75],  # none within the image
        [0.1, 0.2, 1.01, 0.75],
        [-0.01, 0.2, 0.5, 0.75],
        [10, 20, 50, 75],  # pixels
        [0.1, 0.2, 0.5, float("nan")],
        [0.1, 0.2, 0.5, float("inf")],
        [0.1, 0.2, 0.5, 0.75, float("nan")],
        [0.1, 0.2, 0.5],
        [0.1, 0.2, 0.5, 0.75, 0.9, 1],
        ["0.1", 0.2, 0.5, 0.75],
        [False, False, True, True],
        [[0.1, 0.2, 0.5, 0.75]],
        {"x1": 0.1},
        "0.1 0.2 0.5 0.75",
        10**400,
        [0, 0, 10**400, 1],
        None,
    ],
)
def test_wrong_boxes(tmp_path, images, box):
    with pytest.raises(InvalidRecordError, match=r"a\.jsonl:1: bbox_info\[1\]\.bbox is .*; it must be x1, y1, x2, y2"):
        read_one(tmp_path, images, item(bbox_info=[region(), region(bbox=box)]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"caption": None, "short_caption": None},
            "short_caption or caption is missing; it must be a text, in at least one",
        ),
        ({"caption": " \n"}, r"caption is ' \\n'; it must be a text that is not blank"),
        ({"short_caption": ""}, "short_caption is ''; it must be"),
        ({"short_caption": "　"}, "short_caption is .*; it must be"),  # a Chinese space
        ({"short_caption": ["猫"]}, r"short_caption is \['猫'\]; it must be"),
        ({"caption": "\ud83d"}, r"caption is '\\ud83d'; it must be valid Unicode"),
        ({"is_cn": "yes"}, "is_cn is 'yes'; it must be true or false"),
        ({"bbox_info": {}}, "bbox_info is {}; it must be a list"),
        ({"bbox_info": ["苹果"]}, r"bbox_info\[0\] is '苹果'; it must be one JSON object"),
        ({"bbox_info": [region(short_expr=None)]}, r"bbox_info\[0\]\.short_expr is missing; it must be"),
        ({"bbox_info": [region(long_expr="")]}, r"bbox_info\[0\]\.long_expr is ''; it must be"),
        ({"bbox_info": [region(flag_short_neg=2)]}, r"bbox_info\[0\]\.flag_short_neg is 2; it must be 0 or 1"),
        ({"bbox_info": [region(short_expr_negs="pear")]}, r"short_expr_negs is 'pear'; it must be a JSON object or"),
        (
            {"bbox_info": [region(short_expr_negs={"0": "梨", "1": 5})]},
            r"short_expr_negs\['1'\] is 5; it must be a text",
        ),
        ({"bbox_info": [region(short_expr_negs=["梨", " "])]}, r"short_expr_negs\[1\] is ' '; it must be a text"),
    ],
)
def test_wrong_fields(tmp_path, images, changes, message):
    row = {key: value for key, value in item(**changes).items() if value is not None}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([item("zh"), row]))  # as ASCII, so that lone surrogates can be written
    dataset = read_finehard(path, images)
    assert dataset[0].language == "zh"
    with pytest.raises(InvalidRecordError, match=rf"a\.json:2: .*{message}"):
        dataset[1]


def test_long_values_are_cut_in_messages(tmp_path, images):
    with pytest.raises(InvalidRecordError, match="characters") as error:
        read_one(tmp_path, images, item(bbox_info="很长" * 10_000))
    assert len(str(error.value)) < 400


def test_items_that_are_none(tmp_path, images):
    dataset = read_finehard(write_json(tmp_path / "a.json", [[1], "text", 5]), images)
    for number in range(3):
        with pytest.raises(
            InvalidRecordError, match=rf"a\.json:{number + 1}: the record is .*it must be one JSON object"
        ):
            dataset[number]


def test_no_such_image_folder(tmp_path):
    with pytest.raises(ValueError, match="没有 is no folder"):
        read_finehard(write_json(tmp_path / "a.json", [item()]), tmp_path / "没有")


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_the_same(tmp_path, images, context):
    dataset = read_finehard(write_json(tmp_path / "a.json", items(4)), images)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=list, multiprocessing_context=context)
    assert [record for batch in loader for record in batch] == list(dataset)


def test_pickles_hold_offsets_not_records(tmp_path, images):
    path = write_json(tmp_path / "a.json", [item(caption="word " * 10_000)] * 4)
    assert len(pickle.dumps(read_finehard(path, images))) < 5000


@pytest.mark.parametrize("language", ["en", "zh"])
def test_items_can_be_written_back(tmp_path, images, language):
    changes = {"is_cn": language == "en", "caption": None}  # so that the texts don't tell the language
    record = read_one(tmp_path, images, item(language, **changes))
    assert record_of_item(item_of_record(record), record.image, record.source, None) == record
    bare = replace(record, regions=(Region((0, 0, 1, 1), "苹果"),), long_caption="x", short_caption=None)
    assert record_of_item(item_of_record(bare), record.image, record.source, None) == bare


def test_fineregion_cn_is_a_guess(tmp_path, images):
    path = write_json(tmp_path / "a.json", [item("zh", is_cn=None)])
    with pytest.warns(UserWarning, match="has not been found in public.*guess"):
        dataset = read_fineregion_cn(path, images)
    assert dataset[0].regions[0].short_text == APPLE["zh"]
    assert dataset[0].language == "zh"
