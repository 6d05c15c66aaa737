"""Pairs for runs of R2D2 whose texts the golden vocabulary has: two coloured fields, and what is said of them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"红": (220, 40, 40), "绿": (40, 180, 60), "蓝": (40, 60, 220), "黄": (240, 220, 40)}


def make_pairs(folder: Path, images: int) -> None:
    """Write `images`, `pairs.jsonl` with two captions an image, and `labelled.jsonl`, of which half are wrong."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    pairs, labelled = [], []
    for number in range(images):
        left, right = rng.choice(list(COLOURS), 2, replace=False).tolist()
        name, image = f"{number}.png", Image.new("RGB", (64, 48), "white")
        image.paste(COLOURS[left], (2, int(rng.integers(8)), 28, 40))
        image.paste(COLOURS[right], (34, int(rng.integers(8)), 60, 40))
        image.save(folder / "images" / name)
        right_text, wrong_text = f"左边{left}球右边{right}球", f"左边{right}球右边{left}球"
        pairs += [{"image": name, "caption": right_text}, {"image": name, "caption": f"{left}花在{right}花旁"}]
        labelled += [{"text": right_text, "image_path": f"/data/{name}", "label": 1}]
        labelled += [{"text": wrong_text, "image_path": f"/data/{name}", "label": 0}]
    for name, rows in (("pairs", pairs), ("labelled", labelled)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
