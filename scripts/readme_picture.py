"""Draw the picture of the README from what the embedded checkpoint answers: `python scripts/readme_picture.py`.

Nothing in it is drawn by hand: hits, scores, heat maps and names of regions are those of the run, wrong ones included.
It needs a font with Chinese characters, e.g. of Debian's package `fonts-noto-cjk`.
"""

import argparse
import json
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fgclip2 import FGClip2Embedder
from fgclip2.assets import demo_images
from fgclip2.search import ImageIndex
from fgclip2.visualization import overlay_heatmap

OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "demo.webp"
FONT, SIMPLIFIED_CHINESE = "NotoSansCJK-Regular.ttc", 2  # a file with the fonts of five regions; the third is this one
QUERIES = ("a red apple", "水果", "music", "一只老虎", "penguin")  # the second: fruit; the fourth: a tiger
HITS = 5
HEAT_SCENE, HEAT_TEXTS = 0, ("eggplant", "胡萝卜", "火箭")  # carrot, rocket
REGION_SCENES = ((5, "en"), (2, "zh"))
SCENE_PATCHES = 144  # as many as the checkpoint was trained with on scenes

# Twice the size in which a page shows it.
WIDTH, HEIGHT, MARGIN, GAP = 1760, 944, 44, 18
TILE, QUERY_WIDTH = 108, 196
HEAT_HEIGHT, REGION_HEIGHT = 226, 410
INK, GREY, GREEN, RED, PAPER = "#1f2328", "#6e7781", "#1a7f37", "#cf222e", "#ffffff"


class Page:
    """A white page with text and rounded pictures on it."""

    def __init__(self, font: str):
        self.image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.fonts = {size: ImageFont.truetype(font, size, index=SIMPLIFIED_CHINESE) for size in (22, 26, 32)}

    def text(self, place: tuple[float, float], text: str, size: int = 26, color: str = INK, anchor: str = "la") -> None:
        self.draw.text(place, text, color, self.fonts[size], anchor)

    def picture(self, place: tuple[int, int], image: Image.Image, size: tuple[int, int]) -> None:
        mask = Image.new("L", size, 0)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), 14, 255)
        self.image.paste(image.resize(size, Image.Resampling.LANCZOS), place, mask)

    def tag(self, place: tuple[float, float], text: str, color: str, right_end: float) -> None:
        """Draw white text on a coloured ground, its lower left corner at a place, or further left to end in time."""
        width = self.draw.textlength(text, self.fonts[22]) + 14
        x, y = min(place[0], right_end - width), place[1]
        self.draw.rounded_rectangle((x, y - 34, x + width, y), 6, color)
        self.text((x + 7, y - 17), text, 22, PAPER, "lm")


def draw_search(page: Page, embedder: FGClip2Embedder, left: int, top: int) -> None:
    pictures = demo_images() / "pictures"
    with tempfile.TemporaryDirectory() as folder:
        index = ImageIndex.build(pictures, embedder, index_folder=folder, show_progress_bar=False)
    page.text((left, top), f"Search in {len(index)} drawings · 检索", 32)
    for query, hits in zip(QUERIES, index.search(list(QUERIES), embedder, top_k=HITS), strict=True):
        top += 64 if query == QUERIES[0] else TILE + 58
        page.text((left, top + TILE // 2), query, 32, anchor="lm")
        for place, hit in enumerate(hits):
            x = left + QUERY_WIDTH + place * (TILE + GAP)
            page.picture((x, top), Image.open(hit.path).convert("RGB"), (TILE, TILE))
            page.text((x + TILE / 2, top + TILE + 6), f"{hit.score:.2f}", 22, GREY, "ma")


def draw_heat_maps(page: Page, embedder: FGClip2Embedder, left: int, top: int) -> None:
    path = demo_images() / "scenes" / "images" / f"{HEAT_SCENE:05}.webp"
    scene = Image.open(path).convert("RGB")
    maps = embedder.heatmap(path, list(HEAT_TEXTS), max_num_patches=SCENE_PATCHES)
    grey = scene.convert("L").convert("RGB")  # so that all colours are those of the map
    images = [scene, *(overlay_heatmap(grey, heat, low=0.0) for heat in maps)]
    page.text((left, top), "Find · 定位", 32)
    size = (round(scene.width * HEAT_HEIGHT / scene.height), HEAT_HEIGHT)
    for place, (image, text) in enumerate(zip(images, ("", *HEAT_TEXTS), strict=True)):
        x = left + place * (size[0] + GAP)
        page.picture((x, top + 64), image, size)
        page.text((x + size[0] / 2, top + 64 + size[1] + 8), text, anchor="ma")


def draw_regions(page: Page, embedder: FGClip2Embedder, left: int, top: int) -> None:
    things = json.loads((demo_images() / "manifest.json").read_text(encoding="utf-8"))["pictures"]
    x, top = left, top + 64
    for number, language in REGION_SCENES:
        names = sorted({thing[f"name_{language}"] for thing in things if thing["kind"] == "thing"})
        if x == left:
            page.text((left, top - 64), f"Name regions, {len(names)} names · 区域分类", 32)
        records = json.loads((demo_images() / "scenes" / f"scenes_{language}.json").read_text(encoding="utf-8"))
        record = records[number]
        path = demo_images() / "scenes" / record["f_path"]
        scene = Image.open(path).convert("RGB")
        boxes = [
            [c * side for c, side in zip(region["bbox"], scene.size * 2, strict=True)] for region in record["bbox_info"]
        ]
        scores = embedder.classify_regions(path, boxes, names, max_num_patches=SCENE_PATCHES)
        scale = REGION_HEIGHT / scene.height
        size = (round(scene.width * scale), REGION_HEIGHT)
        page.picture((x, top), scene, size)
        tags = []
        for box, region, row in zip(boxes, record["bbox_info"], scores, strict=True):
            x1, y1, x2, y2 = (x + box[0] * scale, top + box[1] * scale, x + box[2] * scale, top + box[3] * scale)
            name = names[row.argmax()]
            right = name == region["category"]
            page.draw.rounded_rectangle((x1, y1, x2, y2), 6, outline=GREEN if right else RED, width=4)
            tags.append(((x1, max(y1 + 4, top + 34)), f"{'' if right else '× '}{name} {row.max():.0%}", right))
        for place, text, right in tags:  # after all boxes, which would cross them
            page.tag(place, text, GREEN if right else RED, x + size[0])
        x += size[0] + GAP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--font", default=FONT, help="Font file with Chinese characters.")
    options = parser.parse_args()
    embedder = FGClip2Embedder.from_pretrained()
    page = Page(options.font)
    right = MARGIN + QUERY_WIDTH + HITS * (TILE + GAP) + 56
    draw_search(page, embedder, MARGIN, 36)
    draw_heat_maps(page, embedder, right, 36)
    draw_regions(page, embedder, right, 412)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    page.image.save(options.output, quality=88, method=6)
    print(options.output, f"{options.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
