"""Files in COCO's format of instances as COCO, LVIS and BoxClass-CN publish them, cut down to three boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from tests.data.samples import write_json

COCO = {
    "info": {"year": 2017},
    "licenses": [{"id": 4}],
    "images": [
        {
            "license": 4,
            "file_name": "000000000139.jpg",
            "coco_url": "http://images.cocodataset.org/val2017/000000000139.jpg",
            "height": 426,
            "width": 640,
            "id": 139,
        },
        {"file_name": "000000000285.jpg", "height": 640, "width": 586, "id": 285},
        {"file_name": "000000000632.jpg", "height": 483, "width": 640, "id": 632},  # no boxes
    ],
    "annotations": [
        {"iscrowd": 0, "image_id": 285, "bbox": [10, 20.5, 30, 40], "category_id": 90, "id": 1, "area": 1200},
        {"iscrowd": 1, "image_id": 139, "bbox": [0, 0, 640.0, 426.0], "category_id": 1, "id": 900100000139},
        {"iscrowd": 0, "image_id": 139, "bbox": [5, 6, 7, 8], "category_id": 90, "id": 3},
    ],
    "categories": [
        {"supercategory": "indoor", "id": 90, "name": "toothbrush"},
        {"supercategory": "person", "id": 1, "name": "person"},
    ],
}
LVIS = {
    "images": [
        {
            "id": 397133,
            "width": 640,
            "height": 427,
            "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg",
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [],
        },
        {
            "id": 9,
            "width": 640,
            "height": 480,
            "coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg",
        },
    ],
    "annotations": [
        {"id": 1, "image_id": 397133, "category_id": 2, "bbox": [1.5, 2, 3, 4], "segmentation": [[1, 2, 3, 4, 5, 6]]},
        {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 640, 480]},
        {"id": 3, "image_id": 9, "category_id": 2, "bbox": [0, 0, 6, 4]},
    ],
    "categories": [
        {"id": 1, "name": "aerosol_can", "synonyms": ["aerosol_can", "spray_can"], "frequency": "c"},
        {"id": 2, "name": "bow_(weapon)", "synonyms": ["bow_(weapon)"], "frequency": "r"},
    ],
}
BOXCLASS_SIZE = (1040, 60)  # of its images, which the file does not say
BOXCLASS = {
    "categories": [{"id": 1, "name": "红色连衣裙"}, {"id": 2, "name": "木制餐桌"}],
    "images": [{"id": 10, "file_name": "000010.jpg"}, {"id": 14, "file_name": "000014.jpg"}],
    "annotations": [
        {"image_id": 10, "bbox": [1, 2, 30, 40], "category_id": 1},
        {"image_id": 14, "bbox": [1000, 2, 30, 40], "category_id": 2},
        {"image_id": 10, "bbox": [0, 0, 5, 5], "category_id": 2},
    ],
}


def write_pictures(folder: Path, *names: str, size: tuple[int, int] = (4, 3)) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "red").save(folder / name)
    return folder


def write_coco(folder: Path, content: Any = COCO) -> tuple[Path, Path]:
    """The JSON file and the folder of images."""
    names = [f"val2017/{each['file_name']}" for each in COCO["images"]]
    return write_json(folder / "instances_val2017.json", content), write_pictures(folder, *names) / "val2017"


def changed(content: dict[str, Any], part: str, index: int, **changes: Any) -> dict[str, Any]:
    """With changes to one entry of a list; a change to None leaves the key out."""
    entries = list(content[part])
    entries[index] = {key: value for key, value in (entries[index] | changes).items() if value is not None}
    return content | {part: entries}
