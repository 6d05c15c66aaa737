"""Boxes of images from files: plain lists, COCO's instances and detections, YOLO's text files.

Sources: cocodataset.org, "Data format" and "Results format"; docs.ultralytics.com, "Object Detection Datasets".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..checks import is_number
from ..files import read_json
from ..modeling.inputs import read_size
from .readers.checks import shown
from .records import InvalidRecordError

ROUNDING = 1e-4  # of width or height: YOLO's numbers have few digits, which may put an edge outside the image

_A_LIST = "a list of boxes, [[x1, y1, x2, y2], ...]; COCO's instances or detections; or YOLO's text files"
_A_COCO_BOX = "x, y, width, height in pixels"
_A_YOLO_LINE = (
    "`class x_center y_center width height`, and maybe a score: the centre and the size of a box are fractions from 0 "
    "to 1 of the width and height of the image. Boxes in pixels go into JSON, [[x1, y1, x2, y2], ...]; polygons are no "
    "boxes"
)


@dataclass(frozen=True)
class FileBox:
    """A box of a file.

    Attributes:
        box: Four numbers, in pixels and in the format of the file, and its score if it has one.
        source: Where it is, e.g. `"instances.json: annotations[3]"`; `None` of a plain list.
        details: What the file says of it besides: `id` and `category` (a name, or a number where there are no names).
    """

    box: Any
    source: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageBoxes:
    """The boxes of some images.

    Attributes:
        boxes: For each of the images its boxes, in the order of the file.
        box_format: `"xyxy"` or `"xywh"`; `None` of a plain list, which doesn't say.
    """

    boxes: list[list[FileBox]]
    box_format: str | None = None


def read_boxes(path: str | Path, images: Sequence[Path], image_ids: str | Path | None = None) -> ImageBoxes:
    """Read the boxes of images.

    Args:
        path: JSON of a form that [`boxes_of_json`] takes; a text file of YOLO for a single image; or a folder with one
            for each image, of its name with the suffix `.txt`, where images without boxes need none.
        images: The images.
        image_ids: As in [`boxes_of_json`].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file can't be used, or doesn't say which boxes are of which image.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".txt":
        if image_ids is not None:
            raise ValueError(f"{path}: files of YOLO have no image ids: leave out the file that names them")
        return _boxes_of_yolo(path, images)
    return boxes_of_json(read_json(path), str(path), images, image_ids)


def boxes_of_json(content: Any, name: str, images: Sequence[Path], image_ids: str | Path | None = None) -> ImageBoxes:
    """Return the boxes of images that decoded JSON has.

    Args:
        content: A list of boxes, or an object with such a list as `boxes`, of a single image; COCO's instances, an
            object with `images` and `annotations`; or COCO's detections, a list of objects with `image_id` and `bbox`.
        name: What to call it in errors.
        images: The images.
        image_ids: File of instances whose `images` say which image an `image_id` of detections is. Without it the id
            must be the image's name, with or without its suffix, or the number that this is (42 for `000042.jpg`).

    Raises:
        InvalidRecordError: An annotation or a detection can't be used.
        ValueError: It has none of these forms, or doesn't say which boxes are of which image.
    """
    if isinstance(content, dict) and "annotations" in content:
        ids = _ids_by_file_name(content, name, images)
        categories = content.get("categories")
        known = [entry for entry in categories if isinstance(entry, dict)] if isinstance(categories, list) else []
        names = {entry["id"]: entry.get("name") for entry in known if _is_id(entry.get("id"))}
        return _boxes_of_coco(content["annotations"], f"{name}: annotations", ids, names)
    if isinstance(content, list) and content and isinstance(content[0], dict):
        if image_ids is not None:
            ids = _ids_by_file_name(read_json(image_ids), str(image_ids), images)
        else:
            ids = _ids_by_stem(content, name, images)
        return _boxes_of_coco(content, name, ids, {})
    if content == [] and (len(images) > 1 or image_ids is not None):  # detections of a detector that has found nothing
        return ImageBoxes([[] for _ in images], "xywh")
    if image_ids is not None:
        raise ValueError(f"{name}: only detections have image ids: leave out the file that names them")
    found = content.get("boxes") if isinstance(content, dict) else content
    if not isinstance(found, list):
        raise ValueError(f"{name}: there must be {_A_LIST}")
    if len(images) > 1:
        raise ValueError(
            f"{name} is one list of boxes, and there are {len(images)} images: give COCO's instances or detections, or "
            "a folder of YOLO's text files, which say which boxes are of which image"
        )
    return ImageBoxes([[FileBox(box) for box in found]])


# ---------------------------------------------------------------------------------------------------------------------
# COCO
# ---------------------------------------------------------------------------------------------------------------------


def _boxes_of_coco(records: Any, name: str, ids: Sequence[Any], categories: Mapping[Any, Any]) -> ImageBoxes:
    """Return the boxes of the images with these ids."""
    if not isinstance(records, list):
        raise ValueError(f"{name} must be a list, got {shown(records)}")
    found: dict[Any, list[FileBox]] = defaultdict(list)
    wanted = set(ids)
    for number, record in enumerate(records):
        source = f"{name}[{number}]"
        if not isinstance(record, dict):
            raise InvalidRecordError(source, "the record", shown(record), "an object with image_id and bbox")
        image_id, box, score = record.get("image_id"), record.get("bbox"), record.get("score")
        if not _is_id(image_id):
            raise InvalidRecordError(source, "image_id", shown(image_id), "a whole number or text")
        if image_id not in wanted:
            continue
        if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
            raise InvalidRecordError(source, "bbox", shown(box), _A_COCO_BOX)
        if score is not None and not (is_number(score) and 0 <= score <= 1):
            raise InvalidRecordError(source, "score", shown(score), "a number from 0 to 1; divide percentages by 100")
        category = record.get("category_id")
        if not (category is None or _is_id(category)):
            raise InvalidRecordError(source, "category_id", shown(category), "a whole number or text")
        details = {"id": record.get("id"), "category": categories.get(category, category)}
        details = {key: value for key, value in details.items() if value is not None}
        found[image_id].append(FileBox(box if score is None else [*box, score], source, details))
    return ImageBoxes([found[image_id] for image_id in ids], "xywh")


def _ids_by_file_name(content: Any, name: str, images: Sequence[Path]) -> list[Any]:
    """Return the id that each image has in a file of instances.

    Raises:
        ValueError: The file has no list of images, or not one image of that name.
    """
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{name} has no list `images`: it must be COCO's instances, which name the file of each image")
    paths: dict[str, list[tuple[str, Any]]] = defaultdict(list)  # last part of the name -> whole name, id
    for entry in entries:
        file_name = str(entry.get("file_name"))
        if _is_id(entry.get("id")):
            paths[PurePosixPath(file_name).name].append((file_name, entry["id"]))
    ids = []
    for image in images:
        same = paths[image.name]
        if len(same) > 1:  # of equal names in several folders, the one that the path ends with
            same = [(path, its_id) for path, its_id in same if f"/{image.resolve().as_posix()}".endswith(f"/{path}")]
        if len(same) != 1:
            example = f"; its names are such as {entries[0].get('file_name')!r}" if entries else ""
            raise ValueError(f"{name} has {'several images' if same else 'no image'} {image.name!r}{example}")
        ids.append(same[0][1])
    return ids


def _ids_by_stem(records: Sequence[Any], name: str, images: Sequence[Path]) -> list[Any]:
    """Return the id that each image has by its name; `None` of an image without detections."""
    known = {record["image_id"] for record in records if isinstance(record, dict) and _is_id(record.get("image_id"))}
    ids = []
    for image in images:
        number = int(image.stem) if image.stem.isdecimal() else None
        ids.append(next((key for key in (image.name, image.stem, number) if key is not None and key in known), None))
    if not any(image_id is not None for image_id in ids):
        raise ValueError(
            f"{name} has detections of image ids such as {shown(next(iter(known), None))}, and none is the name of "
            f"{images[0]}: give the file of instances that the ids are from (image_ids, --image-ids)"
        )
    return ids


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


# ---------------------------------------------------------------------------------------------------------------------
# YOLO
# ---------------------------------------------------------------------------------------------------------------------


def _boxes_of_yolo(path: Path, images: Sequence[Path]) -> ImageBoxes:
    if not path.is_dir():
        if len(images) > 1:
            raise ValueError(f"{path} is of one image, and there are {len(images)}: give the folder of such files")
        return ImageBoxes([_boxes_of_lines(path, images[0])], "xyxy")
    stem, count = Counter(image.stem for image in images).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path}: {count} images would have their boxes in {stem}.txt: give one folder at a time")
    files = [path / f"{image.stem}.txt" for image in images]
    if not any(file.is_file() for file in files):
        raise ValueError(f"{path} has no {files[0].name}, nor a file of the name of any other of the images")
    found = [_boxes_of_lines(*pair) if pair[0].is_file() else [] for pair in zip(files, images, strict=True)]
    return ImageBoxes(found, "xyxy")


def _boxes_of_lines(path: Path, image: Path) -> list[FileBox]:
    """Return the boxes of a file of YOLO as corners in pixels of its image."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; a line must be {_A_YOLO_LINE}") from error
    lines = [(number, line) for number, line in enumerate(content.splitlines(), start=1) if line.strip()]
    try:
        width, height = read_size(image) if lines else (0, 0)
    except Exception:  # on corrupt data decoders raise nearly everything
        return []  # whoever encodes the image says what is wrong with it
    boxes = []
    for number, line in lines:
        source = f"{path}:{number}"
        category, *numbers = line.split()
        try:
            fractions = [float(number) for number in numbers]
        except ValueError:
            fractions = []
        is_whole = len(fractions) in (4, 5) and all(0 <= value <= 1 for value in fractions)
        if not (is_whole and category.isdecimal()):
            raise InvalidRecordError(source, "the line", shown(line.strip()), _A_YOLO_LINE)
        x, y, box_width, box_height, *score = fractions
        corners = (x - box_width / 2, y - box_height / 2, x + box_width / 2, y + box_height / 2)
        # Cut off what rounding put outside the image; what is farther out stays, and the embedder says so.
        cut = [min(max(value, 0.0), 1.0) if -ROUNDING <= value <= 1 + ROUNDING else value for value in corners]
        box = [value * size for value, size in zip(cut, (width, height, width, height), strict=True)]
        boxes.append(FileBox([*box, *score], source, {"category": int(category)}))
    return boxes
