"""Images in folders named by their classes: ImageNet-1k, ImageNet-v2, and one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.readers.checks import (
    check_language,
    check_language_option,
    check_text,
    existing_folder,
    language_of_texts,
    shown,
)
from ..data_sets import ClassificationData, Problem
from ..image_files import ImageFile
from ._files import check_usable, existing_file, image_files, read_json

Names = Mapping[str, Sequence[str] | Mapping[str, str]]  # language -> names in the classes' order, or by folder


def read_image_classes(
    folder: str | Path, names: Names | str | Path | None = None, language: str | None = None
) -> ClassificationData:
    """Read a folder that has one folder of images for each class.

    The order of classes is that of the folders' names, as numbers where all are numbers:
    - ImageNet-1k val: 1,000 folders named by WordNet ids, n01440764 first.
    - ImageNet-v2 (`imagenetv2-matched-frequency-format-val`): folders 0 to 999. Source: modestyachts/ImageNetV2, which
      warns that sorting them as text gives wrong classes.

    Args:
        folder: The folder; images may lie deeper in the classes' folders. Hidden files are no images.
        names: Language -> names, either a list in the order of classes, one for each folder, or an object by the name
            of the folder, which may name classes that have no images here; or a file of them, as `read_class_names`
            reads. None: the folders' own names, `_` read as a space.
        language: Of the folders' own names; None: seen from them.

    Returns:
        Images in the order of classes and paths. Folders without a name or an image, images in no folder and files of
        other kinds are its problems.

    Raises:
        ValueError: There is no such folder, no image in it, or the names don't fit: other numbers of names and folders
            would shift all classes.
    """
    check_language_option(language)
    problems: list[Problem] = []
    by_folder = _images_by_folder(existing_folder(folder), problems)
    check_usable(sum(map(len, by_folder.values())), folder, problems)
    folders = _in_order(by_folder)
    if names is None:
        own = [check_text(each.replace("_", " ").strip(), "the folder's name", str(folder)) for each in folders]
        names = {language or language_of_texts(*own): own}
    names = read_class_names(names)
    order, all_names = _classes(names, folders, str(folder))
    indices = {each: index for index, each in enumerate(order)}
    images: list[ImageFile] = []
    classes: list[int] = []
    for each in folders:
        if each not in indices:
            problems.append(Problem(str(Path(folder, each)), "the folder has no name; allowed: folders that names has"))
            continue
        images += by_folder[each]
        classes += [indices[each]] * len(by_folder[each])
    check_usable(len(images), folder, problems)
    return ClassificationData(images=images, classes=classes, names=all_names, problems=problems)


def read_class_names(names: Names | str | Path) -> Names:
    """Read names of classes from a file, or check those that are given.

    Args:
        names: `.json`: `{"en": [names in the order of classes], "zh": [...]}`, `{"en": {"folder": "name"}, ...}`, or
            one list; any other file: a text with one name a line. The language of a single list is seen from it.

    Returns:
        Language -> names.

    Raises:
        ValueError: There is no such file, it is broken, a name is blank, or the languages name different classes.
    """
    source = "names"
    if not isinstance(names, Mapping):
        source, names = str(names), _content(existing_file(names))
    if not names:
        raise ValueError(f"{source}: names is {shown(names)}; allowed: names in at least one language")
    classes: list[set[object]] = []
    for language, of_language in names.items():
        check_language(language, "names", source)
        if isinstance(of_language, str) or not isinstance(of_language, (Mapping, Sequence)) or not of_language:
            raise ValueError(
                f"{source}: names[{language!r}] is {shown(of_language)}; allowed: names in a list or object"
            )
        named: dict = dict(of_language if isinstance(of_language, Mapping) else enumerate(of_language))
        for key, name in named.items():
            check_text(name, f"names[{language!r}][{key!r}]", source)
        classes.append(set(named))
    differing = set.union(*classes) - set.intersection(*classes)
    if differing:
        some = ", ".join(sorted(map(repr, differing))[:5])
        raise ValueError(f"{source}: names have {some} in some languages only; allowed: the same classes in each")
    return names


def _content(path: Path) -> Names:
    if path.suffix == ".json":
        content = read_json(path)
    else:
        content = _lines(path)
    if isinstance(content, list):
        return {language_of_texts(*content): content}
    if not isinstance(content, dict):
        raise ValueError(f"{path} is {shown(content)}; allowed: a list of names, or languages with one each")
    return content


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); allowed: one name a line, in UTF-8") from error


def _classes(names: Names, folders: list[str], source: str) -> tuple[list[str], dict[str, list[str]]]:
    """The folders of all classes in order, and language -> names in that order."""
    language, first = next(iter(names.items()))
    if isinstance(first, Mapping):
        by_folder: Mapping[str, Any] = names
        order = _in_order(first)
        return order, {each: [by_folder[each][folder] for folder in order] for each in by_folder}
    if len(first) != len(folders):
        raise ValueError(
            f"{source} has {len(folders)} folders of classes, names[{language!r}] has {len(first)} names; allowed: as "
            "many, or names by folder, {'folder': 'name'}, for a part of the classes"
        )
    return folders, {each: list(of_language) for each, of_language in names.items()}


def _in_order(folders: Iterable[str]) -> list[str]:
    folders = list(folders)
    numbers = all(each.isascii() and each.isdecimal() for each in folders)
    return sorted(folders, key=lambda each: (int(each) if numbers else 0, each))


def _images_by_folder(folder: Path, problems: list[Problem]) -> dict[str, list[ImageFile]]:
    """Name of a class's folder -> its images in the order of paths."""
    found: dict[str, list[ImageFile]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            problems.append(Problem(str(path), "the file lies in no folder of a class; allowed: folders of images"))
            continue
        found[path.name] = image_files(path, problems)
        if not found[path.name]:
            problems.append(Problem(str(path), "the folder holds no image; allowed: at least one for each class"))
    return found
