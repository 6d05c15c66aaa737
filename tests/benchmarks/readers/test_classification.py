"""ImageNet-1k, ImageNet-v2 and one's own folders, names in both languages, and what does not fit."""

import zipfile

import pytest

from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.readers.classification import read_class_names, read_image_classes, read_imagenet
from tests.benchmarks.readers.boxed import write_pictures
from tests.data.samples import write_json

NAMES = {"en": ["tench", "goldfish"], "zh": ["丁鲷", "金鱼"]}


WORDNET = ["n01440764", "n01443537", "n01484850"]
THREE = {"en": [*NAMES["en"], "great white shark"], "zh": [*NAMES["zh"], "大白鲨"]}


def test_imagenet_1k(tmp_path):
    """WordNet ids in their order, images with capital suffixes, a class without images, a folder that is no class."""
    folder = write_pictures(
        tmp_path / "val", "n01484850/b.JPEG", "n01440764/c.JPEG", "n01484850/a.JPEG", "n99999999/d.JPEG"
    )
    for root in (tmp_path, folder):
        data = read_imagenet(root, None, WORDNET, THREE)
        assert data.images == [
            ImageFile(folder / each) for each in ("n01440764/c.JPEG", "n01484850/a.JPEG", "n01484850/b.JPEG")
        ]
        assert data.classes == [0, 2, 2]
        assert data.names == THREE
        (problem,) = data.problems
        assert (
            str(problem) == f"{folder / 'n99999999'}: the folder has no name: add one to names, or leave the folder out"
        )


def test_imagenet_v2(tmp_path):
    """Numbers in the order of numbers: as text, 10 would come before 2 and all classes after 1 would be wrong."""
    folder = write_pictures(tmp_path / "v2", *(f"{number}/{number}.jpeg" for number in range(12)))
    names = {"en": [f"class {number}" for number in range(12)], "zh": [f"第{number}类" for number in range(12)]}
    data = read_imagenet(folder, None, [f"n{number:08}" for number in range(12)], names)
    assert [int(image.path.stem) for image in data.images] == data.classes == list(range(12))


def test_imagenet_in_one_folder(tmp_path):
    """Classes in the files' names, or in Kaggle's list; a file without either is a problem."""
    of_hugging_face = ["ILSVRC2012_val_00000001_n01484850.JPEG", "ILSVRC2012_val_00000002_n01440764.JPEG"]
    of_kaggle = ["ILSVRC2012_val_00000003.JPEG", "ILSVRC2012_val_00000004.JPEG"]
    folder = write_pictures(tmp_path / "ILSVRC/Data/CLS-LOC/val", *of_hugging_face, *of_kaggle)
    lines = ["ImageId,PredictionString", "ILSVRC2012_val_00000003,n01443537 85 1 499 272 n01443537 1 2 3 4 "]
    (tmp_path / "LOC_val_solution.csv").write_text("\r\n".join(lines), encoding="utf-8")
    data = read_imagenet(tmp_path, None, WORDNET, THREE)
    assert [image.path.name for image in data.images] == [*of_hugging_face, of_kaggle[0]]
    assert data.classes == [2, 0, 1]
    assert data.names == THREE
    (problem,) = data.problems
    assert str(problem).startswith(
        f"{folder / of_kaggle[1]}: its class is unknown: it must be told by folders named by WordNet"
    )
    (tmp_path / "LOC_val_solution.csv").unlink()
    assert len(read_imagenet(tmp_path, folder, WORDNET, THREE).problems) == 2
    for each in of_hugging_face:
        (folder / each).unlink()
    with pytest.raises(ValueError, match=r"val has no record that can be used; the first problem: .*its class is unk"):
        read_imagenet(tmp_path, None, WORDNET, THREE)


@pytest.mark.parametrize(
    ("folders", "language", "names"),
    [
        (("red_apple", "banana"), None, {"en": ["banana", "red apple"]}),
        (("苹果", "香蕉"), None, {"zh": ["苹果", "香蕉"]}),
        (("苹果", "香蕉"), "en", {"en": ["苹果", "香蕉"]}),
    ],
)
def test_folders_named_by_their_classes(tmp_path, folders, language, names):
    folder = write_pictures(tmp_path / "own", *(f"{each}/deep/er/a.png" for each in folders))
    data = read_image_classes(folder, language=language)
    assert data.names == names
    assert data.classes == [0, 1]


def test_links_to_folders_of_classes(tmp_path):
    """As parts of ImageNet are made."""
    whole = write_pictures(tmp_path / "whole", "苹果/1.jpg", "banana/1.jpg", "苹果/2.jpg")
    part = write_pictures(tmp_path / "part", "pear/1.jpg")
    (part / "苹果").symlink_to(whole / "苹果", target_is_directory=True)
    data = read_image_classes(part, follow_links=True)
    assert data.images == [ImageFile(part / each) for each in ("pear/1.jpg", "苹果/1.jpg", "苹果/2.jpg")]
    assert (data.classes, data.problems) == ([0, 1, 1], [])
    by_default = read_image_classes(part)
    assert by_default.images == [ImageFile(part / "pear/1.jpg")]
    link, empty = map(str, by_default.problems)
    assert link.startswith(
        f"{part / '苹果'}: is a link to {whole / '苹果'}, outside {part}: if you trust it, follow links"
    )
    assert empty.startswith(f"{part / '苹果'}: the folder holds no image")


@pytest.mark.parametrize("follow_links", [False, True])
def test_links_of_a_data_set_lead_out_of_it_on_request_only(tmp_path, follow_links):
    """Files deep in a folder, and the folder of ImageNet's images itself; links within the folder are always good."""
    elsewhere = write_pictures(tmp_path / "elsewhere", "猫.jpg")
    own = write_pictures(tmp_path / "own", "cat/deep/1.jpg", "dog/1.jpg")
    (own / "cat/deep/outside.jpg").symlink_to(elsewhere / "猫.jpg")
    (own / "cat/deep/inside.jpg").symlink_to(own / "dog/1.jpg")
    names = [image.path.name for image in read_image_classes(own, follow_links=follow_links).images]
    assert names == ["1.jpg", "inside.jpg", *(["outside.jpg"] if follow_links else []), "1.jpg"]
    folder = tmp_path / "imagenet"
    folder.mkdir()
    (folder / "val").symlink_to(write_pictures(tmp_path / "val", "n01440764/1.jpg"))
    options = {"wordnet_ids": ["n01440764"], "names": {"en": ["tench"]}, "follow_links": follow_links}
    if follow_links:
        assert len(read_imagenet(folder, None, **options).images) == 1
    else:
        with pytest.raises(ValueError, match=r"val is a link to .*, outside .*imagenet: .*--follow-links"):
            read_imagenet(folder, None, **options)
    assert len(read_imagenet(folder, folder / "val", **options).images) == 1  # as the user says


def test_names_by_folder(tmp_path):
    """Those without images are classes too, so a part of ImageNet keeps all 1,000 to choose from."""
    folder = write_pictures(tmp_path / "part", "n02/a.png", "n03/a.png", "n09/a.png")
    names = {"en": {"n03": "cat", "n01": "dog", "n02": "cow"}, "zh": {"n01": "狗", "n02": "牛", "n03": "猫"}}
    for given in (names, write_json(tmp_path / "names.json", names)):
        data = read_image_classes(folder, given)
        assert data.names == {"en": ["dog", "cow", "cat"], "zh": ["狗", "牛", "猫"]}
        assert data.classes == [1, 2]
        (problem,) = data.problems
        assert str(problem) == f"{folder / 'n09'}: the folder has no name: add one to names, or leave the folder out"


def test_files_of_names(tmp_path):
    assert read_class_names(write_json(tmp_path / "a.json", NAMES)) == NAMES
    assert read_class_names(write_json(tmp_path / "b.json", NAMES["zh"])) == {"zh": NAMES["zh"]}
    text = tmp_path / "c.txt"
    text.write_text("\ufeff丁鲷\r\n金鱼\n\n", encoding="utf-8")
    assert read_class_names(text) == {"zh": ["丁鲷", "金鱼"]}
    text.write_text("tench\ngoldfish", encoding="utf-8")
    assert read_class_names(str(text)) == {"en": ["tench", "goldfish"]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"en": ["tench"]}, r"val has 2 folders of classes, names\['en'\] has 1 names: give as many, or names by"),
        ({"en": ["tench", "goldfish", "shark"]}, r"val has 2 folders of classes, names\['en'\] has 3 names"),
        (
            {"en": ["tench", "goldfish"], "zh": ["丁鲷"]},
            r"names have 1 in some languages only: name the same classes",
        ),
        ({"en": {"a": "tench"}, "zh": {"b": "丁鲷"}}, r"names have 'a', 'b' in some languages only"),
        ({"en": ["tench", " "]}, r"names\['en'\]\[1\] is ' '; it must be a text"),
        ({"zh": {"n01440764": None}}, r"names\['zh'\]\['n01440764'\] is missing; it must be a text"),
        ({"cn": ["丁鲷", "金鱼"]}, r"names is 'cn'; it must be en or zh"),
        ({"en": []}, r"names\['en'\] is \[\]; it must be a list or an object"),
        ({"en": "tench"}, r"names\['en'\] is 'tench'; it must be"),
        ({}, r"names is \{\}; it must have names in at least one language"),
        ([], r"names\['en'\] is \[\]; it must be a list or an object"),
        ("tench", r"names\.json is 'tench'; it must be a list of names, or an object of languages with one each"),
    ],
)
def test_names_that_do_not_fit(tmp_path, names, message):
    folder = write_pictures(tmp_path / "val", "n01440764/a.png", "n01443537/a.png")
    with pytest.raises(ValueError, match=message):
        read_image_classes(folder, write_json(tmp_path / "names.json", names))
    if isinstance(names, dict):
        with pytest.raises(ValueError, match=message):
            read_image_classes(folder, names)


def test_a_blank_line_between_names(tmp_path):
    (tmp_path / "a.txt").write_text("丁鲷\n\n金鱼\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.txt: names\['zh'\]\[1\] is ''; it must be a text"):
        read_class_names(tmp_path / "a.txt")


def test_names_in_another_encoding(tmp_path):
    (tmp_path / "a.txt").write_bytes("丁鲷\n金鱼\n".encode("gbk"))
    with pytest.raises(ValueError, match=r"a\.txt is no text in UTF-8 \(.*; it must have one name a line, in UTF-8"):
        read_class_names(tmp_path / "a.txt")


def test_what_is_no_image_of_a_class(tmp_path):
    folder = write_pictures(tmp_path / "val", "n01440764/a.png", "loose.png", ".hidden/a.png", "n01440764/.b.png")
    (folder / "n01440764/notes.txt").write_text("x")
    (folder / "n01443537").mkdir()
    data = read_image_classes(folder, NAMES)
    assert data.images == [ImageFile(folder / "n01440764/a.png")]
    assert [str(problem) for problem in data.problems] == [
        f"{folder / 'n01440764/notes.txt'}: the suffix is '.txt'; it must be an image's, such as .jpg",
        f"{folder / 'loose.png'}: the file lies in no folder of a class: move it into one",
        f"{folder / 'n01443537'}: the folder holds no image: add one of its class, or remove the folder",
    ]


def zipped(folder, prefix=""):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for each in sorted(folder.rglob("*")):
            archive.write(each, f"{prefix}{each.relative_to(folder).as_posix()}")
        archive.writestr(f"__MACOSX/{prefix}._苹果", b"")
    return path


@pytest.mark.parametrize("prefix", ["", "albums/", "相册/"])
def test_classes_in_an_archive(tmp_path, prefix):
    folder = write_pictures(tmp_path / "albums", "苹果/deep/1.jpg", "red_pear/2.JPG", "red_pear/10.jpg")
    (folder / "苹果" / ".hidden.jpg").write_bytes(b"")
    path = zipped(folder, prefix)
    data = read_image_classes(path, language="en")
    assert data.names == {"en": ["red pear", "苹果"]}
    assert data.images == [
        ImageFile(path, f"{prefix}{each}") for each in ("red_pear/10.jpg", "red_pear/2.JPG", "苹果/deep/1.jpg")
    ]
    assert (data.classes, data.problems) == ([0, 0, 1], [])
    assert data.images[2].read() == (folder / "苹果/deep/1.jpg").read_bytes()


def test_imagenet_in_an_archive(tmp_path):
    """In folders, of which there may be one alone, or without."""
    names = ("n01440764/a.JPEG", "n01484850/b.JPEG")
    data = read_imagenet(zipped(write_pictures(tmp_path / "val", *names), "val/"), None, WORDNET, THREE)
    assert (data.classes, data.names) == ([0, 2], THREE)
    one = zipped(write_pictures(tmp_path / "part", "n01484850/b.JPEG"))
    assert read_imagenet(tmp_path, one, WORDNET, THREE).classes == [2]
    flat = zipped(write_pictures(tmp_path / "flat", "ILSVRC2012_val_00000001_n01484850.JPEG"), "val/")
    assert read_imagenet(tmp_path, flat, WORDNET, THREE).classes == [2]


def test_an_archive_beside_or_of_another_kind(tmp_path):
    folder = tmp_path / "own"
    zipped(write_pictures(folder / "albums", "苹果/1.jpg"))
    write_pictures(folder, "苹果/1.jpg")
    problem = read_image_classes(folder).problems[0]
    assert str(problem) == (
        f"{folder / 'albums.zip'}: the suffix is '.zip'; it must be an image's, such as .jpg: give the archive in "
        "place of the folder, or unpack it"
    )
    (tmp_path / "a.tar").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"a\.tar is no whole zip archive .*; download it again, or unpack it if"):
        read_image_classes(tmp_path / "a.tar")


def test_folders_that_measure_nothing(tmp_path):
    flat = write_pictures(tmp_path / "flat", "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(
        ValueError, match=r"flat has no record that can be used; the first problem: .* lies in no folder"
    ):
        read_image_classes(flat)
    with pytest.raises(ValueError, match="nowhere is no folder"):
        read_image_classes(tmp_path / "nowhere")
