"""COCO's format of instances, which COCO, LVIS, BoxClass-CN and FG-OVD share, and detectors answer to.

Sources: cocodataset.org, "Data format"; LVIS v1 as lvis-dataset/lvis-api reads it; BoxClass-CN as the official
evaluation of FG-CLIP 2 reads it; FG-OVD as published in lorebianchi98/FG-OVD.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...checks import is_number
from ...data.readers.checks import check_language, check_text, shown
from ...data.records import InvalidRecordError
from ...files import read_json
from ...languages import LANGUAGES
from ..base import Box, Problem
from ._files import NamedImages, check_object, existing_file, problem_of, shifted_ids

EDGE_TOLERANCE = 1.0  # pixels; COCO's own boxes leave the image by up to this much

_KEYS = ("categories", "images", "annotations")
_A_BOX = "x, y, width, height in pixels: finite numbers, width and height positive"


@dataclass(frozen=True)
class ListedImage:
    """An entry of `images`."""

    name: str
    width: int | None = None  # pixels; BoxClass-CN may leave these out
    height: int | None = None


@dataclass(frozen=True)
class Instances:
    """A file of instances: images and categories checked, annotations as they stand."""

    path: Path
    images: Mapping[Any, ListedImage]  # by id
    categories: Mapping[Any, int]  # id -> index into the names
    names: Mapping[str, Sequence[str]]  # language -> names of all categories
    annotations: Sequence[Any]
    problems: list[Problem]

    def records(self) -> Iterator[tuple[str, Any]]:
        """Return (where it is, annotation) for all annotations."""
        return ((f"{self.path}: annotations[{number}]", each) for number, each in enumerate(self.annotations))

    def image_of(self, record: Mapping[str, Any], source: str) -> ListedImage:
        """Return the image that a record names by `image_id`."""
        return self.images[_known(record.get("image_id"), self.images, "image_id", "images", source)]

    def category_of(self, record: Mapping[str, Any], source: str) -> int:
        """Return the category that a record names by `category_id`, as an index into the names."""
        return self.category(record.get("category_id"), "category_id", source)

    def category(self, value: Any, field: str, source: str) -> int:
        """Return a category by its id, as an index into the names.

        Raises:
            InvalidRecordError: There is none.
            ValueError: It is 0, and `categories` has no 0: then all others are probably off by one.
        """
        if value == 0 and not isinstance(value, bool) and 0 not in self.categories:
            raise ValueError(
                f"{source}: {field} is 0, but categories of {self.path} begin at 1: the file seems to count from 0; "
                "add 1 to each of its category ids, or take the ids that `categories` has"
            )
        return self.categories[_known(value, self.categories, field, "categories", source)]

    def shifted(self, records: Iterable[Any], source: str) -> list[Problem]:
        """Return doubts about records whose ids of images or categories all seem to be one too high or too low.

        Args:
            records: Of the file `source`; what is no object is passed over.
        """
        objects = [record for record in records if isinstance(record, Mapping)]
        return [
            doubt
            for name, known in (("image_id", self.images), ("category_id", self.categories))
            for doubt in shifted_ids(name, [record.get(name) for record in objects], known, source)
        ]


def read_instances(
    path: str | Path, language: str, one_based: bool, names: Mapping[str, Sequence[str]] | None = None
) -> Instances:
    """Read a file of instances.

    Args:
        language: Of the categories' `name`; `name_en` and `name_zh` count too where all categories have them.
        one_based: Refuse a category with id 0.
        names: Language -> names of all categories in the order of their ids; come in addition, and before the file's.

    Raises:
        ValueError: There is no such file, it is broken or lacks a list, categories begin at 0, or `names` don't fit.
    """
    content = read_json(existing_file(path))
    for key in _KEYS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            keys = ", ".join(map(str, content)) if isinstance(content, dict) else f"a {type(content).__name__}"
            raise ValueError(
                f"{path} has no list {key!r}, only {keys[:200]}; it must be COCO's format of instances, an object with "
                f"the lists {', '.join(_KEYS)}: check that it is the file of boxes, not of captions or results"
            )

    def checked_category(entry: Mapping[str, Any], source: str) -> Mapping[str, Any]:
        check_text(entry.get("name"), "name", source)
        return entry

    def listed_image(entry: Mapping[str, Any], source: str) -> ListedImage:
        sizes = (listed_size(entry, key, source) for key in ("width", "height"))
        return ListedImage(_image_name(entry, source), *sizes)

    problems: list[Problem] = []
    entries = _in_order(_by_id(content["categories"], f"{path}: categories", checked_category, problems))
    if one_based and 0 in entries:
        raise ValueError(
            f"{path}: categories: id is 0 ({entries[0]['name']!r}), but this format counts from 1: add 1 to the ids of "
            "categories and annotations in the file"
        )
    return Instances(
        path=Path(path),
        images=_by_id(content["images"], f"{path}: images", listed_image, problems),
        categories={each: index for index, each in enumerate(entries)},
        names=_names(list(entries.values()), language) | _fitting(names or {}, len(entries), path),
        annotations=content["annotations"],
        problems=problems,
    )


def with_size(image: ListedImage, images: NamedImages) -> ListedImage:
    """Return an image with its real size where the file lists none, so that its boxes are checked by it."""
    if image.width is not None and image.height is not None:
        return image
    width, height = images.size(image.name) or (None, None)
    return replace(image, width=image.width or width, height=image.height or height)


def corners(value: Any, image: ListedImage, source: str) -> Box:
    """Return a box [x, y, width, height] as x1, y1, x2, y2 within its image; up to `EDGE_TOLERANCE` outside is cut off.

    Raises:
        InvalidRecordError: It is no box, has no area, or leaves the image.
    """
    x1, y1, x2, y2 = loose_corners(value, source)
    width = math.inf if image.width is None else float(image.width)
    height = math.inf if image.height is None else float(image.height)
    inside = min(x1, y1) >= -EDGE_TOLERANCE and x2 <= width + EDGE_TOLERANCE and y2 <= height + EDGE_TOLERANCE
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
    if not (inside and x1 < x2 and y1 < y2):
        raise InvalidRecordError(source, "bbox", shown(value), f"a box within the image, {size_of(image)}")
    return x1, y1, x2, y2


def loose_corners(value: Any, source: str) -> Box:
    """Return a box [x, y, width, height] as x1, y1, x2, y2, wherever it is.

    Raises:
        InvalidRecordError: It is no box, or has no area.
    """
    if not (isinstance(value, list) and len(value) == 4 and all(map(is_number, value)) and min(value[2:]) > 0):
        raise InvalidRecordError(source, "bbox", shown(value), _A_BOX)
    x, y, width, height = map(float, value)
    return x, y, x + width, y + height


def size_of(image: ListedImage) -> str:
    """Return the size of an image, for an error message."""
    return f"{image.width or 'any'} x {image.height or 'any'} pixels"


def check_new_id(value: Any, seen: set, source: str) -> None:
    """Check that an id, where there is one, is no other record's."""
    if value is None:
        return
    if not _is_id(value) or value in seen:
        raise InvalidRecordError(source, "id", shown(value), "a whole number or text that no record before has")
    seen.add(value)


def listed_size(record: Mapping[str, Any], field: str, source: str) -> int | None:
    """Return a width or height in pixels, or `None` where a record has none."""
    value = record.get(field)
    if value is not None and not (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        raise InvalidRecordError(source, field, shown(value), "a positive whole number of pixels, or nothing")
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _known(value: Any, table: Mapping[Any, Any], field: str, name: str, source: str) -> Any:
    if not _is_id(value) or value not in table:
        raise InvalidRecordError(source, field, shown(value), f"an id that {name!r} has")
    return value


def _by_id(entries: list, source: str, checked: Any, problems: list[Problem]) -> dict[Any, Any]:
    """Return checked entries by id; those that can't be used become problems."""
    found: dict[Any, Any] = {}
    seen: set = set()
    for number, entry in enumerate(entries):
        where = f"{source}[{number}]"
        try:
            value = checked(check_object(entry, where), where)
            if entry.get("id") is None:
                raise InvalidRecordError(where, "id", "missing", "a whole number or text")
            check_new_id(entry["id"], seen, where)
        except InvalidRecordError as error:
            problems.append(problem_of(error))
        else:
            found[entry["id"]] = value
    return found


def _in_order(entries: dict[Any, Any]) -> dict[Any, Any]:
    """Sort by ids, as lists of the categories' names are; texts stay as the file has them."""
    return dict(sorted(entries.items())) if all(isinstance(key, int) for key in entries) else entries


def _image_name(entry: Mapping[str, Any], source: str) -> str:
    """`file_name`, with its folder if `coco_url` knows it; LVIS has only the latter: .../val2017/000000000139.jpg."""
    name, address = entry.get("file_name"), entry.get("coco_url")
    if isinstance(address, str) and address.count("/"):
        end = "/".join(address.split("/")[-2:])
        if name is None or (isinstance(name, str) and end.endswith(f"/{name}")):
            name = end
    return check_text(name, "file_name", source)


def _names(categories: Sequence[Mapping[str, Any]], language: str) -> dict[str, list[str]]:
    names = {language: [category["name"] for category in categories]}
    for other in LANGUAGES:
        its_names = [category.get(f"name_{other}") for category in categories]
        if its_names and all(isinstance(name, str) and name.strip() for name in its_names):
            names[other] = [str(name) for name in its_names]
    return {key: [name.replace("_", " ") for name in of_language] for key, of_language in names.items()}


def _fitting(names: Mapping[str, Sequence[str]], count: int, path: str | Path) -> dict[str, Sequence[str]]:
    for language, of_language in names.items():
        check_language(language, "names", "read_instances")
        if len(of_language) != count:
            raise ValueError(f"names[{language!r}] has {len(of_language)} names; {path} has {count} categories")
    return dict(names)
