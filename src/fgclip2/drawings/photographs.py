"""Pictures from elsewhere, photographs among them, described by humans in both languages; for tests only.

Their licences (share-alike, GPL) keep them out of training and out of the package; they stay in the cache. Layout:
`described/<set>/*.webp` and `described/<set>.json`.

- `words`: GCompris' vocabulary drawings (by Art4Apps), one word each.
- `boards`: GCompris' photographs of animals, monuments and music, with a title and one to a few sentences.
- `stamps`: Tux Paint's stamps, photographs and drawings, with a short sentence; without letters, digits and signs.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from .._imports import require
from ..checks import check_choice
from ..files import decode_json, read_json, replacing
from ..modeling.inputs import open_image
from .concepts import ConceptTable
from .cutouts import render_svg
from .sources import DESCRIBED, fetch, read_members

SETS = ("words", "boards", "stamps")
_MAX_SIDE = 384
_BOARDS = ("explore_farm_animals", "explore_world_animals", "explore_monuments", "explore_world_music")
_BOARD_ENTRY = re.compile(
    r'"title": qsTr\("((?:[^"\\]|\\.)*)"\),\s*"text": qsTr\("((?:[^"\\]|\\.)*)"\).*?"image2": "qrc:([^"]+)"', re.DOTALL
)
_WORDS_FOLDER = "/gcompris/src/activities/lang/resource/"
_STAMPS_FOLDER = "usr/share/tuxpaint/stamps/"
_STAMP_VARIANT = re.compile(r"_(mirror|flip|mirror_flip)$")


@dataclass(frozen=True)
class DescribedPicture:
    """One picture and its texts; `long_*` are empty where there is only a short one."""

    path: Path
    short_en: str
    short_zh: str
    long_en: str = ""
    long_zh: str = ""
    concept_id: int | None = None  # where the English text is exactly a thing's name


def build_described(cache: Path, table: ConceptTable) -> dict[str, int]:
    """Fetch GCompris and Tux Paint and write the sets that are not in the cache yet.

    Returns:
        Set -> number of pictures.
    """
    folder = cache / "described"
    if not (folder / "words.json").exists() or not (folder / "boards.json").exists():
        resources, translations = read_gcompris(fetch(DESCRIBED["gcompris"], cache))
        _write_set(folder, "words", word_pictures(resources), table)
        _write_set(folder, "boards", board_pictures(resources, translations), table)
    if not (folder / "stamps.json").exists():
        archive = fetch(DESCRIBED["tuxpaint"], cache)
        files = dict(read_members(archive, _is_stamp))
        _write_set(folder, "stamps", stamp_pictures(files), table)
    return {name: len(load_described(cache, name)) for name in SETS}


def load_described(cache: Path, name: str) -> list[DescribedPicture]:
    """Load one of the `SETS`.

    Raises:
        ValueError: There is no such set.
        FileNotFoundError: The cache was not built; the message has the command.
    """
    check_choice("name", name, SETS)
    path = Path(cache) / "described" / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run: python -m fgclip2.drawings --cache {cache}")
    rows = read_json(path)
    return [DescribedPicture(**{**row, "path": path.parent / row["path"]}) for row in rows]


def read_gcompris(archive: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the resource files of the boards and words, and the English -> traditional Chinese translations."""
    wanted = {f"{name}.rcc" for name in (*_BOARDS, "lang")}
    members = read_members(archive, lambda path: PurePosixPath(path).name in {*wanted, "gcompris_zh_TW.qm"})
    resources: dict[str, bytes] = {}
    translations: dict[str, str] = {}
    for path, content in members:
        if path.endswith(".qm"):
            translations = read_qt_translations(content)
        else:
            resources.update(read_qt_resources(content))
    return resources, translations


def word_pictures(resources: Mapping[str, bytes]) -> Iterator[tuple[bytes, DescribedPicture]]:
    """Yield vocabulary drawings that have a word in both languages."""
    words = {
        language: decode_json(resources[f"{_WORDS_FOLDER}content-{language}.json"]) for language in ("en", "zh_CN")
    }
    for path, content in resources.items():
        stem = PurePosixPath(path).stem
        english, chinese = (words[language].get(f"{stem}.ogg", "") for language in ("en", "zh_CN"))
        if path.startswith(f"{_WORDS_FOLDER}words_sample/") and path.endswith(".webp") and english and chinese:
            yield content, DescribedPicture(Path(stem), english, chinese)


def board_pictures(
    resources: Mapping[str, bytes], translations: Mapping[str, str]
) -> Iterator[tuple[bytes, DescribedPicture]]:
    """Yield photographs of the boards whose title and description are translated; Chinese converted to simplified."""
    simplify = require("zhconv", "data").convert
    seen: set[str] = set()
    for path, content in resources.items():
        if "/resource/board/" not in path:
            continue
        for title, text, image in _BOARD_ENTRY.findall(content.decode("utf-8")):
            title, text = (re.sub(r"\\(.)", r"\1", part) for part in (title, text))  # as Qt escapes them
            if image in resources and image not in seen and title in translations and text in translations:
                seen.add(image)
                chinese = [simplify(translations[part], "zh-cn") for part in (title, text)]
                stem = f"{PurePosixPath(path).parts[4]}-{PurePosixPath(image).stem}"
                yield resources[image], DescribedPicture(Path(stem), title, chinese[0], text, chinese[1])


def stamp_pictures(files: Mapping[str, bytes]) -> Iterator[tuple[bytes, DescribedPicture]]:
    """Yield stamps with an English and a simplified Chinese sentence; each pair of sentences once."""
    seen: set[tuple[str, str]] = set()
    for path, content in sorted(files.items()):
        if not path.endswith(".txt"):
            continue
        english, chinese = stamp_texts(content)
        image = next((files[path[:-3] + end] for end in ("png", "svg") if path[:-3] + end in files), None)
        if english and chinese and image is not None and (english, chinese) not in seen:
            seen.add((english, chinese))
            stem = path.removeprefix(_STAMPS_FOLDER).removesuffix(".txt").replace("/", "-")
            yield image, DescribedPicture(Path(stem), english, chinese)


def stamp_texts(content: bytes) -> tuple[str, str]:
    """Return English (first line) and simplified Chinese of a stamp's description file; empty where missing."""
    lines = content.decode("utf-8").splitlines()
    chinese = next((line.partition("=")[2] for line in lines if line.startswith("zh_CN.utf8=")), "")
    return (lines[0].strip() if lines else ""), chinese.strip()


def read_qt_resources(content: bytes) -> dict[str, bytes]:
    """Return the files of a Qt binary resource (`.rcc`, formats 1 to 3) by path.

    Raises:
        ValueError: It is no such file.
    """
    if content[:4] != b"qres":
        raise ValueError("not a Qt resource file: it does not start with 'qres'")
    version, tree, data, names = struct.unpack_from(">4I", content, 4)
    node_size = 14 if version < 2 else 22  # later formats add a modification time

    def walk(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        name_at, flags = struct.unpack_from(">IH", content, tree + node * node_size)
        path = folder
        if node:
            (length,) = struct.unpack_from(">H", content, names + name_at)
            name = content[names + name_at + 6 : names + name_at + 6 + 2 * length]
            path = f"{folder}/{name.decode('utf-16-be')}"
        if flags & 2:  # a folder: number and index of its children
            count, first = struct.unpack_from(">2I", content, tree + node * node_size + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
        else:
            (data_at,) = struct.unpack_from(">I", content, tree + node * node_size + 10)
            (size,) = struct.unpack_from(">I", content, data + data_at)
            packed = content[data + data_at + 4 : data + data_at + 4 + size]
            if flags & 1:
                yield path, zlib.decompress(packed[4:])  # the first four bytes are the size
            elif flags & 4:
                yield path, require("zstandard", "data").ZstdDecompressor().decompressobj().decompress(packed)
            else:
                yield path, packed

    return dict(walk(0, ""))


def read_qt_translations(content: bytes) -> dict[str, str]:
    """Return source text -> translation of a Qt message file (`.qm`)."""
    messages, offset = b"", 16  # after the magic number
    while offset < len(content):
        tag, size = struct.unpack_from(">BI", content, offset)
        if tag == 0x69:  # the messages; other sections are indices
            messages = content[offset + 5 : offset + 5 + size]
        offset += 5 + size
    translations: dict[str, str] = {}
    translation, source, offset = "", "", 0
    while offset < len(messages):
        tag = messages[offset]
        if tag == 1:  # end of one message
            if source and translation:
                translations.setdefault(source, translation)
            translation, source = "", ""
            offset += 1
            continue
        (size,) = struct.unpack_from(">I", messages, offset + 1)
        size = 0 if size == 0xFFFFFFFF else size
        value = messages[offset + 5 : offset + 5 + size]
        if tag == 3:
            translation = value.decode("utf-16-be")
        elif tag == 6:
            source = value.decode("utf-8")
        offset += 5 + size
    return translations


def _is_stamp(path: str) -> bool:
    parts = PurePosixPath(path)
    return (
        path.startswith(_STAMPS_FOLDER)
        and not path.startswith(f"{_STAMPS_FOLDER}symbols/")
        and parts.suffix in (".txt", ".png", ".svg")
        and not _STAMP_VARIANT.search(parts.stem)
    )


def _write_set(
    folder: Path, name: str, pictures: Iterator[tuple[bytes, DescribedPicture]], table: ConceptTable
) -> None:
    """Write a set's images and then its records, whose presence says that the set is complete."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    ids = {table[concept_id].name_en.lower(): int(concept_id) for concept_id in table.thing_ids}
    rows = []
    for content, picture in pictures:
        path = f"{name}/{picture.path}.webp"
        decode_on_white(content).save(folder / path, quality=90)
        bare_noun = re.sub(r"^(an?|the) ", "", picture.short_en.lower()).rstrip(".!")  # `A koala.` -> `koala`
        rows.append({**asdict(picture), "path": path, "concept_id": ids.get(bare_noun)})
    with replacing(folder / f"{name}.json") as unfinished:
        unfinished.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def decode_on_white(content: bytes) -> Image.Image:
    """Decode an SVG or raster file to RGB on white, its longer side at most `_MAX_SIDE`."""
    is_svg = content.lstrip()[:5] in (b"<?xml", b"<svg ", b"<!DOC", b"<!-- ")
    image = render_svg(content.decode("utf-8"), width=_MAX_SIDE) if is_svg else open_image(content)
    image = image.convert("RGBA")
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white
