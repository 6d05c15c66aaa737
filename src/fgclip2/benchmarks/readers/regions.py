"""Boxes with a category each: COCO, LVIS and BoxClass-CN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ...data.readers.checks import check_language
from ...languages import LANGUAGES
from ..base import Box
from ..class_names import class_names
from ..tasks.region_classification import RegionData
from ._coco import check_new_id, corners, read_instances, with_size
from ._files import NamedImages, check_object, check_usable, items_by_image


def read_boxes(
    annotations: str | Path,
    images: str | Path,
    language: str = "en",
    names: Mapping[str, Sequence[str]] | None = None,
    *,
    crowds: bool = True,
    one_based: bool = True,
    follow_links: bool = False,
) -> RegionData:
    """Read boxes and their categories from a file in COCO's format of instances.

    - COCO val2017 (`instances_val2017.json`): 80 categories with ids from 1 to 90.
    - LVIS v1 val (`lvis_v1_val.json`): 1,203 categories; images by `coco_url`, in train2017 and val2017; `_` in a name
      is read as a space, synonyms are not used.
    - BoxClass-CN (`jsonfile/valid_category_data_total_zh.json`, `images.zip`): 566 categories, named in Chinese; sizes
      of images may be missing, then they are read from the images. No source says that a release names the categories
      in English too; where all have a `name_en`, it is taken.

    Sources: cocodataset.org, "Data format"; lvis-dataset/lvis-api; and the evaluation in 360CVGroup/FG-CLIP, which
    counts all annotations, crowds too. No whole file of the three was at hand to check this reader against.

    Args:
        annotations: The JSON file.
        images, follow_links: Folder or archives of the images, as for `ImageStore`.
        language: Of the file's names of categories: "en" for COCO and LVIS, "zh" for BoxClass-CN.
        names: Language -> names of all categories, in the order of their ids, to have other languages too.
        crowds: Whether boxes of crowds (`iscrowd` 1) count.
        one_based: Refuse a category with id 0, which the three data sets never have; False for data of one's own.

    Returns:
        The images with at least one box. Boxes up to a pixel outside their image are cut to it; annotations that
        can't be used are its problems.

    Raises:
        ValueError: The file is missing, broken, in another format, counts categories from 0, or no box can be used.
    """
    check_language(language, "language", "read_boxes")
    instances = read_instances(annotations, language, one_based, names)
    seen: set[object] = set()

    def parse(record: Any, source: str) -> tuple[str, tuple[Box, int]]:
        record = check_object(record, source)
        check_new_id(record.get("id"), seen, source)
        image, category = instances.image_of(record, source), instances.category_of(record, source)
        return image.name, (corners(record.get("bbox"), with_size(image, found), source), category)

    records = instances.records()
    if not crowds:
        records = (
            (source, record) for source, record in records if not (isinstance(record, dict) and record.get("iscrowd"))
        )
    found = NamedImages(images, follow_links)
    items = items_by_image(records, parse, found, instances.problems)
    check_usable(len(items), annotations, instances.problems)
    return RegionData(
        images=found.files,
        boxes=[[box for box, _ in its] for its in items],
        categories=[[category for _, category in its] for its in items],
        names=instances.names,
        problems=instances.problems,
        doubts=instances.shifted(instances.annotations, str(annotations)),
    )


def read_coco_boxes(
    annotations: str | Path, images: str | Path, *, crowds: bool = True, follow_links: bool = False
) -> RegionData:
    """Read the boxes of COCO val2017, with names of its 80 categories in English and Chinese.

    Args:
        annotations, images, crowds, follow_links: As of `read_boxes`.

    Raises:
        ValueError: As of `read_boxes`, or the file's categories are not COCO's.
    """
    data = read_boxes(annotations, images, "en", crowds=crowds, follow_links=follow_links)
    names: dict[str, tuple[str, ...]] = {language: class_names("coco", language) for language in LANGUAGES}
    # The Chinese names are put beside the file's by their order.
    for number, (here, published) in enumerate(zip_longest(data.names["en"], names["en"]), start=1):
        if here != published:
            total = len(names["en"])
            raise ValueError(f"{annotations}: category {number} of {total} is {here!r}; COCO's is {published!r}")
    return replace(data, names=names)
