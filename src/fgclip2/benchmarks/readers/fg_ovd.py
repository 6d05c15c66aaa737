"""FG-OVD: boxes, each with its true description and false ones that differ in attributes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...data.readers.checks import check_text
from ..base import Box, Problem
from ..tasks.hard_negatives import HardNegativeData
from ._coco import Instances, ListedImage, corners, listed_size, read_instances, with_size
from ._files import (
    NamedImages,
    check_list,
    check_object,
    check_usable,
    existing_file,
    items_by_image,
    numbered_json_lines,
)

Item = tuple[Box, list[str]]  # a box and its texts, the true one first


def read_fg_ovd(path: str | Path, images: str | Path, *, follow_links: bool = False) -> HardNegativeData:
    """Read one benchmark of FG-OVD: hard, medium, easy or trivial, or one of a single attribute.

    Two formats are published:
    - `.jsonl`, the lines that FG-CLIP evaluates on (`1_attributes_llava.jsonl`, or `h_attributes_llava.jsonl`: hard;
      2 or m: medium; 3 or e: easy; `shuffle_negatives_llava.jsonl`: trivial): `img_path`, `bbox` (x, y, width,
      height), `pos_expression` (a text, or a list of one), `neg_expression` (10 texts, of some items 2), `width`,
      `height`. Source: 360CVGroup/FG-CLIP, `eval/fgovd.py`.
    - `.json`, what the authors of FG-OVD release (`1_attributes.json`: hard, `2_attributes.json`: medium,
      `3_attributes.json`: easy, `shuffle_negatives.json`: trivial): COCO's format of instances, where a category is a
      description and each annotation has `neg_category_ids`. All its negatives are taken; the authors' own evaluation
      takes the first N and leaves out annotations that have fewer. Source: lorebianchi98/FG-OVD.

    Args:
        path: The file.
        images, follow_links: Folder or archives of COCO's train2017 and val2017, as for `ImageStore`.

    Returns:
        Boxes with their texts, the true one first; records that can't be used are its problems.

    Raises:
        ValueError: The file is missing, broken, of another suffix or format, or no record can be used.
    """
    path, found = existing_file(path), NamedImages(images, follow_links)
    doubts: list[Problem] = []
    if path.suffix == ".jsonl":
        problems: list[Problem] = []
        items = items_by_image(numbered_json_lines(path, problems, doubts), partial(_from_line, found), found, problems)
    elif path.suffix == ".json":
        instances = read_instances(path, "en", one_based=False)
        problems = instances.problems
        doubts += instances.shifted(instances.annotations, str(path))
        items = items_by_image(instances.records(), partial(_from_annotation, instances, found), found, problems)
    else:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; it must be .jsonl or .json")
    check_usable(len(items), path, problems)
    return HardNegativeData(
        images=found.files,
        boxes=[[box for box, _ in its] for its in items],
        texts=[[texts for _, texts in its] for its in items],
        problems=problems,
        doubts=doubts,
    )


def _from_line(images: NamedImages, record: Mapping[str, Any], source: str) -> tuple[str, Item]:
    true, false = record.get("pos_expression"), record.get("neg_expression")
    true = true[0] if isinstance(true, list) and len(true) == 1 else true
    texts = [check_text(true, "pos_expression", source)]
    texts += [check_text(text, "neg_expression", source) for text in check_list(false, "neg_expression", source)]
    name = check_text(record.get("img_path"), "img_path", source)
    image = ListedImage(name, *(listed_size(record, key, source) for key in ("width", "height")))
    return name, (corners(record.get("bbox"), with_size(image, images), source), texts)


def _from_annotation(instances: Instances, images: NamedImages, record: Any, source: str) -> tuple[str, Item]:
    record = check_object(record, source)
    descriptions = next(iter(instances.names.values()))
    false = check_list(record.get("neg_category_ids"), "neg_category_ids", source)
    texts = [descriptions[instances.category_of(record, source)]]
    texts += [descriptions[instances.category(key, "neg_category_ids", source)] for key in false]
    image = instances.image_of(record, source)
    return image.name, (corners(record.get("bbox"), with_size(image, images), source), texts)
