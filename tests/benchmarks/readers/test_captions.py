"""Data sets of captions, small ones in each published format, whole and broken."""

import json
import zipfile
from pathlib import Path

import pytest

from fgclip2.benchmarks.readers import captions as readers
from fgclip2.benchmarks.readers.captions import (
    read_coco_cn,
    read_dci,
    read_dci_cn,
    read_docci,
    read_docci_cn,
    read_flickr30k,
    read_flickr30k_cna,
    read_icr,
    read_iqr,
    read_lit_cn,
    read_mscoco,
    read_sharegpt4v_1k,
    read_urban_1k,
    read_xm3600,
)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_json(path, content):
    return write(path, json.dumps(content, ensure_ascii=False))


def write_json_lines(path, *records):
    return write(path, "\n".join(json.dumps(record, ensure_ascii=False) for record in records))


def write_images(folder, *names):
    for name in names:
        write(folder / name, f"image {Path(name).name}")


def write_archive(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, f"image {Path(name).name}")


def pairs(data):
    """(content of the image, caption) of each pair."""
    return [
        (data.images[image].read().decode().removeprefix("image "), data.captions[text]) for image, text in data.pairs
    ]


def problems(data, folder):
    """With paths relative to the folder of the data set."""
    return [str(problem).replace(f"{folder}/", "") for problem in data.problems]


# ---------------------------------------------------------------------------------------------------------------------
# Lines of text
# ---------------------------------------------------------------------------------------------------------------------

PATH_READERS = [
    (read_lit_cn, "LIT-CN", "image_caption_long_cn.txt"),
    (read_dci_cn, "DCI-CN", "image_caption_trans.txt"),
    (read_docci_cn, "DOCCI-CN", "image_caption_trans.txt"),
]


@pytest.mark.parametrize(("read", "name", "file_name"), PATH_READERS)
@pytest.mark.parametrize("nested", [False, True])
def test_lines_of_path_and_caption(tmp_path, read, name, file_name, nested):
    folder = tmp_path / name if nested else tmp_path
    write_images(folder, "images/a b.jpg", "web/2.jpg")
    lines = (
        "\ufeffdata/LIT-CN/images/a b.jpg\t一只黑猫坐在沙发上。\r\n\nweb/2.jpg\ta red car\u2028停在路边 \t两个制表符\n"
    )
    write(folder / file_name, lines)
    data = read(tmp_path)
    assert pairs(data) == [("a b.jpg", "一只黑猫坐在沙发上。"), ("2.jpg", "a red car\u2028停在路边 \t两个制表符")]
    assert not data.problems
    assert data.items == 2


def test_images_in_several_archives(tmp_path):
    write_archive(tmp_path / "images/images_1.zip", "images/1.jpg")
    write_archive(tmp_path / "images/images_2.zip", "images/2.jpg")
    write(tmp_path / "image_caption_trans.txt", "images/1.jpg\t一座桥\nimages/2.jpg\ta bridge\n")
    assert pairs(read_dci_cn(tmp_path)) == [("1.jpg", "一座桥"), ("2.jpg", "a bridge")]


def test_images_lie_elsewhere(tmp_path):
    write_archive(tmp_path / "elsewhere.zip", "docci/1.jpg")
    write(tmp_path / "texts/image_caption_trans.txt", "docci/1.jpg\t一座桥\n")
    assert pairs(read_docci_cn(tmp_path / "texts", tmp_path / "elsewhere.zip")) == [("1.jpg", "一座桥")]


def test_bad_lines_become_problems(tmp_path):
    write_images(tmp_path, "1.jpg")
    lines = ["1.jpg 没有制表符", "1.jpg\t", "\t没有路径", "2.jpg\t图片不见了", "../1.jpg\toutside", "1.jpg\t好的"]
    write(tmp_path / "image_caption_long_cn.txt", "\n".join(lines).encode() + "\n1.jpg\t乱码".encode("gb18030"))
    data = read_lit_cn(tmp_path)
    assert pairs(data) == [("1.jpg", "好的")]
    assert len(data.images) == 1
    found = problems(data, tmp_path)
    file = "image_caption_long_cn.txt"
    assert found[:4] == [
        f"{file}:1: the line is '1.jpg 没有制表符'; it must be a path, a tab and a caption",
        f"{file}:2: caption is ''; it must be a text that is not blank",
        f"{file}:3: the path is ''; it must be a text that is not blank",
        f"{file}:4: the path is '2.jpg'; it must be an image in {tmp_path}",
    ]
    assert found[4].startswith(f"{file}:5: the path is '../1.jpg'; it must be ")
    assert found[5] == f"{file}:7: the line is broken at byte 6; it must be UTF-8"
    assert len(found) == 6


@pytest.mark.parametrize(("read", "name", "file_name"), PATH_READERS)
def test_a_missing_file_says_what_was_looked_for(tmp_path, read, name, file_name):
    with pytest.raises(
        ValueError, match=f"has no file {file_name} or {name}/{file_name}; get it from https://.*{name}"
    ):
        read(tmp_path)
    with pytest.raises(ValueError, match="nowhere is no folder"):
        read(tmp_path / "nowhere")


def test_a_truncated_archive_is_an_error(tmp_path):
    write_archive(tmp_path / "images.zip", "1.jpg")
    write(tmp_path / "images.zip", (tmp_path / "images.zip").read_bytes()[:-30])
    write(tmp_path / "image_caption_trans.txt", "1.jpg\t一座桥\n")
    with pytest.raises(ValueError, match=r"images\.zip is no whole zip archive"):
        read_docci_cn(tmp_path)


def test_no_images_at_all_is_an_error(tmp_path):
    write(tmp_path / "image_caption_trans.txt", "1.jpg\t一座桥\n2.jpg\ta bridge")
    with pytest.raises(
        ValueError, match=r"has no record that can be used.*:1: the path is '1.jpg'; it must be an image in"
    ):
        read_dci_cn(tmp_path)
    write(tmp_path / "image_caption_trans.txt", "\n")
    with pytest.raises(ValueError, match="has no record that can be used"):
        read_dci_cn(tmp_path)
    with pytest.raises(ValueError, match="nowhere: no such folder of images"):
        read_dci_cn(tmp_path, tmp_path / "nowhere")


def test_a_pointer_of_git_lfs_is_an_error(tmp_path):
    write(tmp_path / "image_caption_trans.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match="pointer of Git LFS"):
        read_dci_cn(tmp_path)


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("test/", "Flickr30k-images/"), ("", "flickr30k-images/"), ("", ""), ("", "images/")],
)
def test_flickr30k_cna(tmp_path, annotations, images):
    write_images(tmp_path / images, "100.jpg", "200.jpg")
    lines = [f"100#{index}\t第{index}句" for index in range(5)] + ["200#0\ta dog 跑", "200 没有编号"]
    write(tmp_path / annotations / "flickr30k_cna_test.txt", "\n".join(lines))
    data = read_flickr30k_cna(tmp_path)
    assert pairs(data)[:5] == [("100.jpg", f"第{index}句") for index in range(5)]
    assert pairs(data)[5:] == [("200.jpg", "a dog 跑"), ("200.jpg", "没有编号")]
    assert len(data.images) == 2
    assert data.items == 7


def test_flickr30k_cna_with_bad_lines(tmp_path):
    write_images(tmp_path, "100.jpg")
    write(tmp_path / "flickr30k_cna_test.txt", "100#0\n100#1\t \n300#0\t一条狗\n100#2\t一只猫\n")
    data = read_flickr30k_cna(tmp_path)
    assert pairs(data) == [("100.jpg", "一只猫")]
    line = "; it must be an id, # and a number, a tab and a caption"
    assert problems(data, tmp_path) == [
        f"flickr30k_cna_test.txt:1: the line is '100#0'{line}",
        f"flickr30k_cna_test.txt:2: the line is '100#1\\t '{line}",
        f"flickr30k_cna_test.txt:3: the image's id is '300.jpg'; it must be an image in {tmp_path}",
    ]


TRAIN, VAL = "COCO_train2014_000000000101", "COCO_val2014_000000000202"


@pytest.mark.parametrize("separator", ["\t", " "])
def test_coco_cn_of_fg_clip(tmp_path, separator):
    write_images(tmp_path / "coco", f"train2014/{TRAIN}.jpg")
    write_archive(tmp_path / "coco/val2014.zip", f"val2014/{VAL}.jpg")
    lines = [f"{name}#zhm#{index}{separator}第{index} 句" for name in (TRAIN, VAL) for index in range(5)]
    write(tmp_path / "pair.txt", "\n".join([*lines, f"cat.jpg#zhm#0{separator}猫"]))
    data = read_coco_cn(tmp_path, tmp_path / "coco")
    assert pairs(data) == [(f"{name}.jpg", f"第{index} 句") for name in (TRAIN, VAL) for index in range(5)]
    assert len(data.images) == 2
    (problem,) = problems(data, tmp_path)
    assert problem.startswith("pair.txt:11: the image's id is 'cat.jpg'; it must be COCO_train2014_ or COCO_val2014_")


def test_coco_cn_as_released(tmp_path):
    write_images(tmp_path, f"train2014/{TRAIN}.jpg", f"val2014/{VAL}.jpg")
    write(tmp_path / "imageid.manually-translated-caption.txt", f"{VAL}#0\t译文\n{VAL}#1\tanother 译文\n")
    write(tmp_path / "imageid.human-written-caption.txt", f"{TRAIN}#0\t训练\n{VAL}#0\t测试\n{VAL}#1\ttest 二\n")
    write(tmp_path / "coco-cn_test.txt", f"{VAL}\r\n")
    assert pairs(read_coco_cn(tmp_path)) == [(f"{VAL}.jpg", "译文"), (f"{VAL}.jpg", "another 译文")]
    written = read_coco_cn(tmp_path, captions="human-written")
    assert pairs(written) == [(f"{VAL}.jpg", "测试"), (f"{VAL}.jpg", "test 二")]
    assert not written.problems  # a caption of another split is none
    with pytest.raises(ValueError, match="captions must be 'manually-translated' or 'human-written', got 'machine'"):
        read_coco_cn(tmp_path, captions="machine")
    (tmp_path / "coco-cn_test.txt").unlink()
    with pytest.raises(ValueError, match=r"has no file coco-cn_test\.txt"):
        read_coco_cn(tmp_path, captions="human-written")


# ---------------------------------------------------------------------------------------------------------------------
# CCMB
# ---------------------------------------------------------------------------------------------------------------------

CCMB_READERS = [(read_icr, "ICR", "long_itr_val.json"), (read_iqr, "IQR", "short_itr_val.json")]


@pytest.mark.parametrize(("read", "task", "name"), CCMB_READERS)
@pytest.mark.parametrize("in_root", [True, False])
def test_ccmb(tmp_path, read, task, name, in_root):
    write_images(tmp_path / "IQR_IQM_ICR_ICM_images", "0a.jpg", "0b.jpg")
    records = [
        {"text": "春天的花", "image_path": "IQR_IQM_ICR_ICM_images/0a.jpg"},
        {"text": "spring 花", "image_path": "somewhere/else/0a.jpg"},
        {"text": "春天的花", "image_path": "0b.jpg"},
    ]
    write_json_lines(tmp_path / task / "val" / name, *records)
    data = read(tmp_path) if in_root else read(tmp_path / task, tmp_path / "IQR_IQM_ICR_ICM_images")
    assert pairs(data) == [("0a.jpg", "春天的花"), ("0a.jpg", "spring 花"), ("0b.jpg", "春天的花")]
    assert len(data.images) == 2
    assert data.items == 3  # captions count as published, also if they are equal
    assert not data.problems


@pytest.mark.parametrize(("read", "task", "name"), CCMB_READERS)
def test_ccmb_with_bad_lines(tmp_path, read, task, name):
    write_images(tmp_path, "0a.jpg")
    lines = [
        '{"text": "花", "image_path": "0a.jpg"',
        '["花", "0a.jpg"]',
        '{"image_path": "0a.jpg"}',
        '{"text": "花"}',
        '{"text": 3, "image_path": "0a.jpg"}',
        '{"text": "好花", "image_path": "0a.jpg"}',
        '{"text": "\\ud800", "image_path": "0a.jpg"}',
    ]
    write(tmp_path / name, "\n".join(lines))
    data = read(tmp_path)
    assert pairs(data) == [("0a.jpg", "好花")]
    found = problems(data, tmp_path)
    assert [problem.split(": ")[0] for problem in found] == [f"{name}:{number}" for number in (1, 2, 3, 4, 5, 7)]
    assert "it must be one JSON object" in found[0]
    assert "it must be one JSON object" in found[1]
    assert found[2].endswith("text is missing; it must be a text that is not blank")
    assert found[3].endswith("image_path is missing; it must be a text that is not blank")
    assert found[4].endswith("text is 3; it must be a text that is not blank")
    assert found[5].endswith("it must be valid Unicode")


# ---------------------------------------------------------------------------------------------------------------------
# Long captions
# ---------------------------------------------------------------------------------------------------------------------

SHAREGPT4V = "share-captioner_coco_lcs_sam_1246k_1107.json"


def conversation(image, caption):
    turns = [{"from": "human", "value": "What is it?\n<image>"}, {"from": "gpt", "value": caption}]
    return {"id": "0", "image": image, "conversations": turns}


def test_sharegpt4v_reads_the_first_records_only(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "SHAREGPT4V_IMAGES", 2)
    write_images(tmp_path / "sam/images", "sa_1.jpg", "sa_2.jpg", "sa_3.jpg")
    items = [
        conversation(f"sam/images/sa_{index}.jpg", text) for index, text in enumerate(("A cat.\n", "一只猫。", "3"), 1)
    ]
    write_json(tmp_path / SHAREGPT4V, items)
    expected = [("sa_1.jpg", "A cat.\n"), ("sa_2.jpg", "一只猫。")]  # as published
    assert pairs(read_sharegpt4v_1k(tmp_path)) == expected
    assert pairs(read_sharegpt4v_1k(tmp_path, tmp_path / "sam/images")) == expected
    text = (tmp_path / SHAREGPT4V).read_text(encoding="utf-8")
    write(tmp_path / SHAREGPT4V, text[:-20])  # broken beyond what is read
    assert pairs(read_sharegpt4v_1k(tmp_path)) == expected


def test_sharegpt4v_with_bad_records(tmp_path):
    write_images(tmp_path, "sa_1.jpg")
    without_answer = {"image": "sa_1.jpg", "conversations": [{"value": "?"}]}
    items = [7, {"image": "sa_1.jpg"}, without_answer, conversation("sa_1.jpg", " "), conversation("sa_1.jpg", "图")]
    write_json(tmp_path / SHAREGPT4V, items)
    data = read_sharegpt4v_1k(tmp_path)
    assert pairs(data) == [("sa_1.jpg", "图")]
    assert problems(data, tmp_path) == [
        f"{SHAREGPT4V}:1: the record is 7; it must be one JSON object",
        f"{SHAREGPT4V}:2: conversations is missing; it must be a list of at least one",
        f"{SHAREGPT4V}:3: conversations[1] is missing; it must be one JSON object",
        f"{SHAREGPT4V}:4: conversations[1].value is ' '; it must be a text that is not blank",
    ]


@pytest.mark.parametrize("content", ['{"image": "a.jpg"}', '[{"image": "a.jpg", "conv', "", "PK"])
def test_sharegpt4v_that_is_no_list(tmp_path, content):
    write(tmp_path / SHAREGPT4V, content)
    with pytest.raises(ValueError, match=r"1107\.json:1 is broken or cut off at byte \d+; it must be one JSON list"):
        read_sharegpt4v_1k(tmp_path)


@pytest.mark.parametrize("root", ["", "densely_captioned_images/"])
def test_dci(tmp_path, root):
    folder = tmp_path / root
    write_images(folder / "photos", "sa_1.jpg", "sa_2.jpg")
    for number, text in (
        (2, "树下有一个人"),
        (1, "A man under a tree."),
        (3, ""),
        (6, " \n"),
        (7, None),
        (4, "no photo"),
    ):
        record = {"image": f"sa_{number}.jpg", "short_caption": "short", "extra_caption": text, "mask_data": {}}
        write_json(folder / f"annotations/{number}.json", record)
    write(folder / "annotations/5.json", '{"image": "sa_')
    write(folder / "annotations/._1.json", b"\0")  # macOS adds these to archives
    data = read_dci(tmp_path)
    assert pairs(data) == [("sa_1.jpg", "A man under a tree."), ("sa_2.jpg", "树下有一个人")]
    assert problems(data, folder) == [
        "annotations/4.json: image is 'sa_4.jpg'; it must be an image in photos",
        "annotations/5.json: the file is broken or cut off; it must be JSON in UTF-8",
        "annotations/7.json: extra_caption is missing; it must be a text that is not blank",
    ]


def test_dci_without_annotations(tmp_path):
    with pytest.raises(ValueError, match="has no folder annotations or densely_captioned_images/annotations; get it"):
        read_dci(tmp_path)
    (tmp_path / "annotations").mkdir()
    with pytest.raises(ValueError, match="annotations has no record that can be used"):
        read_dci(tmp_path)


def test_docci(tmp_path):
    write_images(tmp_path / "images", "test_00000.jpg", "test_00001.jpg", "train_00000.jpg")
    records = [
        {"example_id": "test_00000", "split": "test", "image_file": "test_00000.jpg", "description": "A cat. 一只猫。"},
        {"example_id": "train_00000", "split": "train", "image_file": "train_00000.jpg", "description": "A dog."},
        {"example_id": "test_00001", "split": "test", "image_file": "test_00001.jpg"},
        {"example_id": "test_00001", "image_file": "test_00001.jpg", "description": "no split"},
    ]
    write_json_lines(tmp_path / "docci_descriptions.jsonlines", *records)
    data = read_docci(tmp_path)
    assert pairs(data) == [("test_00000.jpg", "A cat. 一只猫。")]
    assert problems(data, tmp_path) == [
        "docci_descriptions.jsonlines:3: description is missing; it must be a text that is not blank",
        "docci_descriptions.jsonlines:4: split is missing; it must be a text that is not blank",
    ]


@pytest.mark.parametrize("root", ["", "Urban1k/"])
def test_urban_1k(tmp_path, root):
    folder = tmp_path / root
    write_images(folder / "image", "2.jpg", "10.jpg", "11.jpg")
    for number, text in ((10, "A street. \nA second line."), (2, "\ufeff一条街道。\n"), (11, "\n"), (12, "gone")):
        write(folder / f"caption/{number}.txt", text)
    data = read_urban_1k(tmp_path)
    assert pairs(data) == [("2.jpg", "一条街道。"), ("10.jpg", "A street.")]
    assert problems(data, folder) == [
        "caption/11.txt: caption is ''; it must be a text that is not blank",
        "caption/12.txt:1: the image is '12.jpg'; it must be an image in image",
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Short captions
# ---------------------------------------------------------------------------------------------------------------------

FIVE = ["A dog runs.", "一条狗在跑。", "A brown dog.", "Dog on grass.", "草地上的狗。"]


def test_flickr30k_of_albef(tmp_path):
    write_images(tmp_path / "flickr30k-images", "1.jpg", "2.jpg")
    items = [
        {"image": "flickr30k-images/1.jpg", "caption": FIVE},
        {"image": "flickr30k-images/2.jpg", "caption": ["好", "", "a cat"]},
        {"image": "flickr30k-images/2.jpg", "caption": "not a list"},
        {"image": "flickr30k-images/3.jpg", "caption": FIVE},
    ]
    write_json(tmp_path / "flickr30k_test.json", items)
    data = read_flickr30k(tmp_path)
    assert pairs(data) == [*(("1.jpg", text) for text in FIVE), ("2.jpg", "好"), ("2.jpg", "a cat")]
    assert len(data.images) == 2
    found = f"an image in {tmp_path / 'flickr30k-images'}"
    assert problems(data, tmp_path / "nothing") == [
        f"{tmp_path}/flickr30k_test.json:2: caption[1] is ''; it must be a text that is not blank",
        f"{tmp_path}/flickr30k_test.json:3: caption is 'not a list'; it must be a list of at least one",
        f"{tmp_path}/flickr30k_test.json:4: image is 'flickr30k-images/3.jpg'; it must be {found}",
    ]


def karpathy(split, name, texts, **others):
    return {"split": split, "filename": name, "sentences": [{"raw": text, "tokens": []} for text in texts], **others}


def test_flickr30k_of_karpathy(tmp_path):
    write_images(tmp_path / "flickr30k-images", "1.jpg", "2.jpg")
    images = [
        karpathy("train", "0.jpg", FIVE),
        karpathy("test", "1.jpg", FIVE),
        {"split": "test", "filename": "2.jpg", "sentences": ["plain"]},
        karpathy("test", "2.jpg", []),
        "2.jpg",
    ]
    write_json(tmp_path / "dataset_flickr30k.json", {"dataset": "flickr30k", "images": images})
    data = read_flickr30k(tmp_path)
    assert pairs(data) == [("1.jpg", text) for text in FIVE]
    assert problems(data, tmp_path) == [
        "dataset_flickr30k.json:images[2]: sentences[0] is 'plain'; it must be one JSON object",
        "dataset_flickr30k.json:images[3]: sentences is []; it must be a list of at least one",
        "dataset_flickr30k.json:images[4]: the record is '2.jpg'; it must be one JSON object",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "flickr30k_test.json",
            '[{"image": "1.jpg", "capt',
            r"flickr30k_test\.json is not JSON in UTF-8, or is broken or cut off",
        ),
        ("flickr30k_test.json", '{"images": []}', r"flickr30k_test\.json has no record that can be used"),
        (
            "dataset_flickr30k.json",
            '{"images": [{',
            r"dataset_flickr30k\.json is not JSON in UTF-8, or is broken or cut off",
        ),
        ("dataset_flickr30k.json", "[]", r"dataset_flickr30k\.json: the content is \[\]; it must be one JSON object"),
        ("dataset_flickr30k.json", "{}", r"dataset_flickr30k\.json: images is missing; it must be a list"),
    ],
)
def test_flickr30k_that_is_broken(tmp_path, name, content, message):
    write(tmp_path / name, content)
    with pytest.raises(ValueError, match=message):
        read_flickr30k(tmp_path)


def test_flickr30k_that_is_missing(tmp_path):
    with pytest.raises(
        ValueError, match=r"no file flickr30k_test\.json or dataset_flickr30k\.json; get it from https://"
    ):
        read_flickr30k(tmp_path)


def coco(images, annotations):
    return {
        "info": {},
        "images": [{"id": number, "file_name": name} for number, name in images],
        "annotations": [{"id": i, "image_id": number, "caption": text} for i, (number, text) in enumerate(annotations)],
    }


@pytest.mark.parametrize("archive", [False, True])
def test_mscoco_takes_the_first_five_captions(tmp_path, archive):
    names = ("000000000139.jpg", "000000000285.jpg")
    if archive:
        write_archive(tmp_path / "val2017.zip", *(f"val2017/{name}" for name in names))
    else:
        write_images(tmp_path / "val2017", *names)
    annotations = [(285, "一只熊"), *((139, text) for text in FIVE), (139, "a sixth one"), (285, "a bear")]
    content = coco([(139, names[0]), (285, names[1])], annotations)
    write_json(tmp_path / "annotations/captions_val2017.json", content)
    data = read_mscoco(tmp_path)
    assert pairs(data) == [*((names[0], text) for text in FIVE), (names[1], "一只熊"), (names[1], "a bear")]
    assert not data.problems


def test_mscoco_with_bad_records(tmp_path):
    write_images(tmp_path / "val2017", "1.jpg")
    content = coco(
        [(1, "1.jpg"), (1, "1.jpg"), (2, "2.jpg"), (3, "3.jpg"), (None, "4.jpg")], [(1, "狗"), (1, ""), (2, "x")]
    )
    content["annotations"] += [{"image_id": "1", "caption": "y"}, {"image_id": 9, "caption": "z"}]
    write_json(tmp_path / "captions_val2017.json", content)
    data = read_mscoco(tmp_path)
    assert pairs(data) == [("1.jpg", "狗")]
    file = "captions_val2017.json"
    assert problems(data, f"{tmp_path}") == [
        f"{file}:annotations[3]: image_id is '1'; it must be an integer",
        f"{file}:images[0]: caption of annotations[1] is ''; it must be a text that is not blank",
        f"{file}:images[1]: id is 1; it must be an image that has captions, once",
        f"{file}:images[2]: file_name is '2.jpg'; it must be an image in val2017",
        f"{file}:images[3]: id is 3; it must be an image that has captions, once",
        f"{file}:images[4]: id is missing; it must be an integer",
        f"{file}: image_id of the caption of annotations[4] is 9; it must be the id of an image",
    ]


def test_mscoco_of_karpathy(tmp_path):
    write_images(tmp_path / "val2014", "COCO_val2014_000000000042.jpg")
    name = "COCO_val2014_000000000042.jpg"
    images = [karpathy("test", name, [*FIVE, "a sixth one"], filepath="val2014"), karpathy("restval", name, ["另一"])]
    write_json(tmp_path / "annotations/dataset_coco.json", {"images": images})
    assert pairs(read_mscoco(tmp_path, split="karpathy")) == [(name, text) for text in FIVE]
    write_json(tmp_path / "coco_karpathy_test.json", [{"image": f"val2014/{name}", "caption": [*FIVE[:3], "换了"]}])
    assert pairs(read_mscoco(tmp_path, split="karpathy")) == [(name, text) for text in [*FIVE[:3], "换了"]]


def test_mscoco_that_is_missing_or_another_file(tmp_path):
    with pytest.raises(
        ValueError, match=r"no file annotations/captions_val2017\.json or captions_val2017\.json; get it"
    ):
        read_mscoco(tmp_path)
    with pytest.raises(ValueError, match="split must be 'val2017' or 'karpathy', got 'train'"):
        read_mscoco(tmp_path, split="train")
    write_json(tmp_path / "captions_val2017.json", {"images": []})
    with pytest.raises(ValueError, match="annotations is missing; it must be a list"):
        read_mscoco(tmp_path)


def test_xm3600_by_language(tmp_path):
    write_images(tmp_path / "images", "0a.jpg", "0b.jpg")
    record = {"image/key": "0a", "image/locale": "zh", "en": {"caption": ["a bridge", "a stone bridge"]}}
    records = [
        {**record, "zh": {"caption": ["一座桥"], "caption/tokenized": ["一 座 桥"]}},
        {"image/key": "0b", "en": {"caption": ["a cat"]}},
        {"en": {"caption": ["a dog"]}, "zh": {"caption": []}},
    ]
    write_json_lines(tmp_path / "captions.jsonl", *records)
    english, chinese = read_xm3600(tmp_path), read_xm3600(tmp_path, language="zh")
    assert pairs(english) == [("0a.jpg", "a bridge"), ("0a.jpg", "a stone bridge"), ("0b.jpg", "a cat")]
    assert pairs(chinese) == [("0a.jpg", "一座桥")]
    assert problems(english, tmp_path) == [
        "captions.jsonl:3: image/key is missing; it must be a text that is not blank",
    ]
    assert problems(chinese, tmp_path) == [
        "captions.jsonl:2: zh is missing; it must be one JSON object",
        "captions.jsonl:3: zh.caption is []; it must be a list of at least one",
    ]
    with pytest.raises(ValueError, match="language is 'de'; it must be en or zh"):
        read_xm3600(tmp_path, language="de")
