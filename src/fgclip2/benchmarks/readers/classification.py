"""Images with a class each: ImageNet-1k, ImageNet-v2, and folders of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...data.readers.checks import (
    check_language,
    check_language_option,
    check_text,
    language_of_texts,
    shown,
)
from ...files import read_json
from ..base import Problem
from ..image_files import ImageFile, check_inside
from ..tasks.classification import ClassificationData
from ._files import check_usable, existing_file, existing_root, image_files, shifted_ids

Names = Mapping[str, Sequence[str] | Mapping[str, str]]  # language -> names in the classes' order, or by folder

_IMAGENET_FORMS = (
    "folders named by WordNet ids (n01440764) or 0 to 999, names that end in a WordNet id "
    "(ILSVRC2012_val_00000293_n01440764.JPEG), or LOC_val_solution.csv beside the images' folder"
)


def read_image_classes(
    folder: str | Path,
    names: Names | str | Path | None = None,
    language: str | None = None,
    images: str | Path | None = None,
    *,
    follow_links: bool = False,
) -> ClassificationData:
    """Read a folder that has one folder of images for each class.

    The order of classes is that of the folders' names, as numbers where all are numbers.

    Args:
        folder: The folder, or a zip archive of it; images may lie deeper in the classes' folders. Hidden files are no
            images.
        names: Language -> names, either a list in the order of classes, one for each folder, or an object by the name
            of the folder, which may name classes that have no images here; or a file of them, as `read_class_names`
            reads. None: the folders' own names, `_` read as a space.
        language: Language of the folders' own names; None: seen from them.
        images: The folder, if it is not `folder`.
        follow_links: Take images and folders that links lead to outside the folder too.

    Returns:
        Images in the order of classes and paths. Folders without a name or an image, images in no folder and files of
        other kinds are its problems.

    Raises:
        ValueError: There is no such folder, no image in it, or the names don't fit: other numbers of names and folders
            would shift all classes.
    """
    check_language_option(language)
    folder = folder if images is None else images
    problems: list[Problem] = []
    by_folder = _images_by_folder(existing_root(folder), problems, follow_links)
    check_usable(sum(map(len, by_folder.values())), folder, problems)
    folders = _in_order(by_folder)
    if names is None:
        own = [check_text(name.replace("_", " ").strip(), "the folder's name", str(folder)) for name in folders]
        names = {language or language_of_texts(*own): own}
    names = read_class_names(names)
    order, all_names = _classes(names, folders, str(folder))
    indices = {name: index for index, name in enumerate(order)}
    files: list[ImageFile] = []
    classes: list[int] = []
    for name in folders:
        if name not in indices:
            problems.append(
                Problem(str(Path(folder, name)), "the folder has no name: add one to names, or leave the folder out")
            )
            continue
        files += by_folder[name]
        classes += [indices[name]] * len(by_folder[name])
    check_usable(len(files), folder, problems)
    return ClassificationData(images=files, classes=classes, names=all_names, problems=problems)


def read_imagenet(
    folder: str | Path,
    images: str | Path | None,
    wordnet_ids: Sequence[str],
    names: Mapping[str, Sequence[str]],
    *,
    follow_links: bool = False,
) -> ClassificationData:
    """Read ImageNet-1k's validation images, or ImageNet-v2. A part of the classes keeps all of them to choose from.

    - Folders named by WordNet ids, the usual form of ImageNet-1k.
    - Folders 0 to 999: ImageNet-v2 (`imagenetv2-matched-frequency-format-val`). Source: modestyachts/ImageNetV2, which
      warns that sorting them as text gives wrong classes.
    - One folder whose files' names end in WordNet ids (`ILSVRC2012_val_00000293_n01440764.JPEG`), as
      huggingface.co/datasets/ILSVRC/imagenet-1k packs them.
    - One folder, as image-net.org packs it, with the `LOC_val_solution.csv` of Kaggle's copy of the challenge, whose
      lines are `ILSVRC2012_val_00000293,n01440764 x1 y1 x2 y2 ...`.

    No whole copy of any was at hand to check this reader against.

    Args:
        folder: Has the folders or files, or `val/` or Kaggle's `ILSVRC/Data/CLS-LOC/val/` which has them; or a zip
            archive of them.
        images: Where they are, if elsewhere.
        wordnet_ids: Of all classes, in their order.
        names: Language -> names of all classes, in their order.
        follow_links: As of `read_image_classes`.

    Raises:
        ValueError: There is no such folder, no image of a class in it, or a link to it leads out of `folder`.
    """
    folder = existing_root(folder)
    inside = (folder / name for name in ("val", "ILSVRC/Data/CLS-LOC/val"))
    root = existing_root(images or next((path for path in inside if path.is_dir()), folder))
    if not images:
        check_inside(root, folder, follow_links)
    folders = set(_class_folders(root))
    numbers = [int(name) for name in folders if name.isascii() and name.isdecimal()]
    doubts = shifted_ids("folder's number", numbers, range(len(wordnet_ids)), str(root))
    for keys in (wordnet_ids, [str(index) for index in range(len(wordnet_ids))]):
        if folders.intersection(keys):
            by_key = {language: dict(zip(keys, of_all, strict=True)) for language, of_all in names.items()}
            return replace(read_image_classes(root, by_key, follow_links=follow_links), doubts=doubts)
    indices = {key: index for index, key in enumerate(wordnet_ids)}
    solution: dict[str, str] = {}  # name of an image without suffix -> WordNet id
    file = folder / "LOC_val_solution.csv"
    for line in file.read_text(encoding="utf-8-sig").splitlines()[1:] if file.is_file() else ():
        name, _, boxes = line.partition(",")
        if boxes.strip():
            solution[name] = boxes.split()[0]
    problems: list[Problem] = []
    found = []
    for path, image in image_files(root, problems, follow_links=follow_links).items():
        key = solution.get(path.stem) or path.stem.rpartition("_")[2]
        if key in indices:
            found.append((image, indices[key]))
        else:
            problems.append(Problem(str(image), f"its class is unknown: it must be told by {_IMAGENET_FORMS}"))
    check_usable(len(found), root, problems)
    return ClassificationData(
        images=[image for image, _ in found],
        classes=[index for _, index in found],
        names={language: list(of_all) for language, of_all in names.items()},
        problems=problems,
    )


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
        source, names = str(names), _read_names(existing_file(names))
    if not names:
        raise ValueError(f"{source}: names is {shown(names)}; it must have names in at least one language")
    classes: list[set[object]] = []
    for language, of_language in names.items():
        check_language(language, "names", source)
        if isinstance(of_language, str) or not isinstance(of_language, (Mapping, Sequence)) or not of_language:
            raise ValueError(
                f"{source}: names[{language!r}] is {shown(of_language)}; it must be a list or an object of names"
            )
        named: dict = dict(of_language if isinstance(of_language, Mapping) else enumerate(of_language))
        for key, name in named.items():
            check_text(name, f"names[{language!r}][{key!r}]", source)
        classes.append(set(named))
    differing = set.union(*classes) - set.intersection(*classes)
    if differing:
        some = ", ".join(sorted(map(repr, differing))[:5])
        raise ValueError(f"{source}: names have {some} in some languages only: name the same classes in each")
    return names


def _read_names(path: Path) -> Names:
    if path.suffix == ".json":
        content = read_json(path)
    else:
        try:
            content = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8 ({error}); it must have one name a line, in UTF-8") from error
    if isinstance(content, list):
        return {language_of_texts(*content): content}
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is {shown(content)}; it must be a list of names, or an object of languages with one each"
        )
    return content


def _classes(names: Names, folders: list[str], source: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the folders of all classes in order, and by language their names in that order."""
    language, first = next(iter(names.items()))
    if isinstance(first, Mapping):
        by_folder: Mapping[str, Any] = names
        order = _in_order(first)
        return order, {of: [by_folder[of][folder] for folder in order] for of in by_folder}
    if len(first) != len(folders):
        raise ValueError(
            f"{source} has {len(folders)} folders of classes, names[{language!r}] has {len(first)} names: give as "
            "many, or names by folder, {'folder': 'name'}, for a part of the classes"
        )
    return folders, {of: list(of_language) for of, of_language in names.items()}


def _in_order(folders: Iterable[str]) -> list[str]:
    folders = list(folders)
    numbers = all(name.isascii() and name.isdecimal() for name in folders)
    return sorted(folders, key=lambda name: (int(name) if numbers else 0, name))


def _class_folders(root: Path) -> list[str]:
    if root.is_file():
        return list(dict.fromkeys(path.parts[0] for path in image_files(root, [], 2) if len(path.parts) > 1))
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_by_folder(root: Path, problems: list[Problem], follow_links: bool) -> dict[str, list[ImageFile]]:
    """Return the images of each class's folder, in the order of paths."""
    found: dict[str, list[ImageFile]] = {name: [] for name in _class_folders(root)}
    for path, image in image_files(root, problems, 2, follow_links).items():
        if len(path.parts) > 1:
            found[path.parts[0]].append(image)
        else:
            problems.append(Problem(str(image), "the file lies in no folder of a class: move it into one"))
    for folder, its in found.items():
        if not its:
            reason = "the folder holds no image: add one of its class, or remove the folder"
            problems.append(Problem(str(root / folder), reason))
    return found
