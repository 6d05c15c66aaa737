import io
import json
import struct
import zlib

import numpy as np
import pytest
import zstandard
from PIL import Image

from fgclip2.drawings import photographs
from fgclip2.drawings.photographs import (
    board_pictures,
    decode_on_white,
    load_described,
    read_qt_resources,
    read_qt_translations,
    stamp_pictures,
    stamp_texts,
    word_pictures,
)

LANG = "/gcompris/src/activities/lang/resource/"


def picture(colour, size=(30, 20), mode="RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, format="png")
    return stream.getvalue()


def qt_resources(version: int) -> bytes:
    """A Qt resource by hand: /folder/{plain, zlib, zstd}; the format's documentation is Qt's source of `rcc`."""
    names, offsets = b"", {}
    for name in ("folder", "plain", "zlib", "zstd"):
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    packed = {
        "plain": (0, b"as it is"),
        "zlib": (1, struct.pack(">I", 7) + zlib.compress(b"deflate")),
        "zstd": (4, zstandard.compress("标准".encode())),
    }
    time = b"\0" * (8 if version >= 2 else 0)
    nodes = [struct.pack(">IHII", 0, 2, 1, 1) + time, struct.pack(">IHII", offsets["folder"], 2, 3, 2) + time]
    data = b""
    for name, (flags, content) in packed.items():
        nodes.append(struct.pack(">IHHHI", offsets[name], flags, 0, 0, len(data)) + time)
        data += struct.pack(">I", len(content)) + content
    tree_at = 4 + 16 + (4 if version >= 3 else 0)
    data_at = tree_at + sum(map(len, nodes))
    header = b"qres" + struct.pack(">4I", version, tree_at, data_at, data_at + len(data))
    return header + b"\0" * (tree_at - 20) + b"".join(nodes) + data + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_qt_resources(version):
    assert read_qt_resources(qt_resources(version)) == {
        "/folder/plain": b"as it is",
        "/folder/zlib": b"deflate",
        "/folder/zstd": "标准".encode(),
    }


def test_other_files_are_no_qt_resources():
    with pytest.raises(ValueError, match="not a Qt resource file"):
        read_qt_resources(b"PK..")


def test_qt_translations():
    def message(source: str, translation: str | None) -> bytes:
        body = b"" if translation is None else translation.encode("utf-16-be")
        size = 0xFFFFFFFF if translation is None else len(body)
        text = source.encode()
        return b"\x03" + struct.pack(">I", size) + body + b"\x06" + struct.pack(">I", len(text)) + text + b"\x01"

    messages = message("Owl", "貓頭鷹") + message("Untranslated", None) + message("Owl", "later")
    content = b"\x3c\xb8" + b"\0" * 14
    content += b"\x42" + struct.pack(">I", 8) + b"\0" * 8
    content += b"\x69" + struct.pack(">I", len(messages)) + messages
    assert read_qt_translations(content) == {"Owl": "貓頭鷹"}


def test_words_need_both_languages():
    resources = {
        f"{LANG}content-en.json": json.dumps({"cat.ogg": "cat", "dog.ogg": "dog"}).encode(),
        f"{LANG}content-zh_CN.json": json.dumps({"cat.ogg": "猫"}).encode(),
        f"{LANG}words_sample/cat.webp": b"cat picture",
        f"{LANG}words_sample/dog.webp": b"dog picture",
    }
    ((content, described),) = word_pictures(resources)
    assert content == b"cat picture"
    assert (described.short_en, described.short_zh, described.long_en) == ("cat", "猫", "")


def test_boards_are_parsed_translated_and_simplified():
    board = """{ "title": qsTr("Owl"),
        "text": qsTr("The owl goes \\"hoot\\"."), "audio": x,
        "image2": "qrc:/gcompris/src/activities/explore_farm_animals/resource/animals/owl.webp" },
      { "title": qsTr("Newt"), "text": qsTr("Nobody translated this."),
        "image2": "qrc:/gcompris/src/activities/explore_farm_animals/resource/animals/newt.webp" }"""
    folder = "/gcompris/src/activities/explore_farm_animals/resource"
    resources = {
        f"{folder}/board/board1.qml": board.encode(),
        f"{folder}/animals/owl.webp": b"owl",
        f"{folder}/animals/newt.webp": b"newt",
    }
    translations = {"Owl": "貓頭鷹", 'The owl goes "hoot".': "貓頭鷹的叫聲", "Newt": "蠑螈"}
    ((content, described),) = board_pictures(resources, translations)
    assert content == b"owl"
    assert str(described.path) == "explore_farm_animals-owl"
    assert (described.short_zh, described.long_en, described.long_zh) == (
        "猫头鹰",
        'The owl goes "hoot".',
        "猫头鹰的叫声",
    )


def test_stamps():
    folder = "usr/share/tuxpaint/stamps/animals"
    koala = "A koala.\nde.utf8=Koala.\nzh_CN.utf8=树袋熊。\nzh_TW.utf8=無尾熊。\n".encode()
    files = {
        f"{folder}/koala.txt": koala,
        f"{folder}/koala.png": b"koala",
        f"{folder}/twin.txt": koala,
        f"{folder}/twin.png": b"same words",
        f"{folder}/german.txt": b"A bear.\nde.utf8=Ein B\xc3\xa4r.",
        f"{folder}/german.png": b"no Chinese",
        f"{folder}/lost.txt": koala.replace(b"koala", b"lost one"),
    }
    ((content, described),) = stamp_pictures(files)
    assert content == b"koala"
    assert (str(described.path), described.short_en, described.short_zh) == ("animals-koala", "A koala.", "树袋熊。")
    assert stamp_texts(b"") == ("", "")


def test_stamps_of_signs_and_mirrored_variants_are_left_out():
    assert photographs._is_stamp("usr/share/tuxpaint/stamps/animals/koala.png")
    assert not photographs._is_stamp("usr/share/tuxpaint/stamps/animals/koala_mirror.png")
    assert not photographs._is_stamp("usr/share/tuxpaint/stamps/symbols/letters/a.png")
    assert not photographs._is_stamp("usr/share/tuxpaint/stamps/animals/koala.ogg")


def test_pictures_are_put_on_white_and_limited_in_size():
    small = np.asarray(decode_on_white(picture((0, 0, 0, 0), mode="RGBA")))
    assert small.shape == (20, 30, 3)
    assert (small == 255).all()
    assert decode_on_white(picture((9, 9, 9), size=(800, 400))).size == (384, 192)


@pytest.mark.parametrize("prefix", ["", '<?xml version="1.0"?>\n'])
def test_drawings_in_points_are_rendered(prefix):
    path = '<path d="M0 0h200v100H0z"/>'
    svg = f'{prefix}<svg xmlns="http://www.w3.org/2000/svg" width="96pt" height="48pt">{path}</svg>'
    image = decode_on_white(svg.encode())
    assert image.size == (384, 192)
    assert image.getpixel((100, 100)) == (0, 0, 0)


def test_sets_are_written_and_read_with_the_concepts_they_name(tmp_path, table):
    described = [
        (picture((255, 0, 0)), photographs.DescribedPicture(photographs.Path("axe"), "An axe.", "斧头。")),
        (picture((0, 255, 0)), photographs.DescribedPicture(photographs.Path("old"), "An old axe", "旧斧头")),
    ]
    folder = tmp_path / "described"
    photographs._write_set(folder, "stamps", iter(described), table)
    axe, old = load_described(tmp_path, "stamps")
    assert (axe.concept_id, old.concept_id) == (table.names_en.index("axe"), None)
    assert (axe.short_en, axe.short_zh) == ("An axe.", "斧头。")
    assert Image.open(axe.path).size == (30, 20)


def test_unknown_set_and_missing_cache(tmp_path):
    with pytest.raises(ValueError, match="name must be 'words', 'boards' or 'stamps', got 'coco'"):
        load_described(tmp_path, "coco")
    with pytest.raises(FileNotFoundError, match=r"python -m fgclip2\.drawings --cache"):
        load_described(tmp_path, "words")
