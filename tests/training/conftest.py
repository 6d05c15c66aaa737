"""A small data set on disk, and a tiny checkpoint, for runs of the trainer."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip2.data import RecordDataset, read_finehard

from ..checkpoints import official_folder, saved_folder  # noqa: F401

COLOURS = {"red": "红", "green": "绿", "blue": "蓝", "yellow": "黄"}
_RGB = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 220), "yellow": (240, 220, 40)}
_SIDES = {"left": "左", "right": "右"}


def make_records(folder, count: int) -> None:
    """Images with one or two coloured squares; every third record Chinese, every fourth without regions."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    records = []
    for number in range(count):
        zh = number % 3 == 2
        colours = rng.choice(list(COLOURS), size=2, replace=False).tolist()
        image = Image.new("RGB", (96, 64), "white")
        boxes = []
        for side, colour in zip((0, 1), colours, strict=True):
            x, y = int(48 * side + rng.integers(2, 14)), int(rng.integers(2, 30))
            image.paste(_RGB[colour], (x, y, x + 30, y + 30))
            boxes.append([x / 96, y / 64, (x + 30) / 96, (y + 30) / 64])
        image.save(folder / "images" / f"{number}.png")
        texts = [
            f"{_SIDES[side]}边的{COLOURS[c]}方块" if zh else f"a {c} square on the {side}"
            for c, side in zip(colours, _SIDES, strict=True)
        ]
        regions = [
            {
                "bbox": box,
                "short_expr": text,
                "long_expr": text + ("，在白色背景上" if zh else ", on white"),
                "flag_short_neg": 1,
                "short_expr_negs": _negatives(text, colour, zh),
            }
            for box, text, colour in zip(boxes, texts, colours, strict=True)
        ]
        record = {
            "f_path": f"{number}.png",
            "short_caption": ("和" if zh else " and ").join(texts),
            "caption": ("图中有" if zh else "The picture shows ") + ("，还有" if zh else ", and also ").join(texts),
            "bbox_info": [] if number % 4 == 3 else regions,
        }
        records.append({**record, "is_cn": True} if zh else record)
    (folder / "records.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")


def _negatives(text: str, colour: str, zh: bool) -> dict[str, str]:
    own = COLOURS[colour] if zh else colour
    others = [other_zh if zh else other for other, other_zh in COLOURS.items() if other != colour]
    return {str(number): text.replace(own, other) for number, other in enumerate(others)}


@pytest.fixture(autouse=True)
def _one_thread():
    """Such small products gain nothing from threads, and lose much where other work shares the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def records_folder(tmp_path_factory):
    """40 records; don't write into it."""
    folder = tmp_path_factory.mktemp("records")
    make_records(folder / "squares", 40)
    return folder / "squares"


@pytest.fixture(scope="session")
def records(records_folder) -> RecordDataset:
    return read_finehard(records_folder / "records.json", records_folder / "images")
