"""The steps of the demo: index the bundled pictures, search, re-rank, classify, label regions, draw heat maps."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..assets import demo_images
from ..embedding import Embedder, RerankedHit
from ..errors import IncompatibleIndexError
from ..files import read_json, replacing
from ..languages import LANGUAGES
from ..modeling.inputs import load_image
from ..search import ImageIndex
from ..visualization import PHRASE_COLORS, overlay_heatmap, overlay_phrases
from .page import Card, Row, Section, render

# Each pair asks for the same thing in English and in Chinese.
TEXT_QUERIES = (
    ("a red apple", "红苹果"),
    ("a tiger", "老虎"),
    ("guitar", "吉他"),
    ("sunflower", "向日葵"),
    ("rocket", "火箭"),
)
# The number of a scene, and two ways in which people might ask for it. They were written from the pictures alone,
# before any model had answered them, and stay whatever it answers.
SCENE_QUERIES = (
    (0, "an eggplant next to a big carrot", "茄子旁边有一根大胡萝卜"),
    (0, "rocket inside a green circle", "绿圆圈里的火箭"),
    (1, "where is the penguin between a rabbit and a tiger?", "企鹅在哪里？旁边有兔子和老虎"),
    (1, "a bunny on a blue square in front of mountains", "山前面的蓝色方块上有只兔子"),
    (2, "yellow helicopter with a gold trophy above it", "黄色直升机，上面是金奖杯"),
    (2, "little bear head left, rocket below on red", "左边小熊头，下面红底的火箭"),
    (3, "somebody's open book and below it a little red car", "一本翻开的书，下面停着一辆红色小车"),
    (4, "a campfire, a bear and a basketball on green", "绿色背景，有火、有熊、还有篮球"),
    (5, "purple octopus with a cab", "紫色的章鱼和一辆的士"),
    (5, "a brown horse on the right, dolphin up top", "右边有匹棕色的马，海豚在最上面"),
)
SCENE_HITS = 3
SCENE_TEXT = (
    "Each query asks for one of {scenes} scenes, whose artist and photographs the embedded checkpoint never saw. "
    "The right one comes first (recall@1), of {queries} queries in English and {queries} in Chinese, for {en[before]} "
    "and {zh[before]} by cosine, for {en[after]} and {zh[after]} re-ranked, by chance for 1 in {scenes}. "
    "Among all {pictures} pictures, most of which show one thing and show it large: {en[before_among_all]} and "
    "{zh[before_among_all]} by cosine, {en[after_among_all]} and {zh[after_among_all]} re-ranked, by chance 1 in "
    "{pictures}. So few queries say little of how often it is right. Frames are where each phrase was found. "
    "每条查询要找 {scenes} 幅场景图中的一幅，其画师和照片是内置检查点从未见过的。"
    "英文、中文各 {queries} 条查询中，正确的图排在第一的（recall@1）："
    "按余弦 {en[before]} 条和 {zh[before]} 条，重排后 {en[after]} 条和 {zh[after]} 条，"
    "随机排列时每 {scenes} 条中有 1 条。在全部 {pictures} 幅图片中（多数只画一样东西，而且画得大）："
    "按余弦 {en[before_among_all]} 条和 {zh[before_among_all]} 条，"
    "重排后 {en[after_among_all]} 条和 {zh[after_among_all]} 条，随机时每 {pictures} 条中有 1 条。"
    "查询这么少，不足以说明它有多准。方框是找到各条短语的地方。"
)
IMAGE_QUERIES = ("pictures/pineapple-noto.webp", "pictures/tiger-twemoji.webp")
CLASSIFIED = ("penguin", "airplane", "strawberry")
LABELS = (
    ("penguin", "企鹅"),
    ("tiger", "老虎"),
    ("airplane", "飞机"),
    ("rocket", "火箭"),
    ("strawberry", "草莓"),
    ("red apple", "红苹果"),
)
HITS = 6
# The checkpoint was trained to see regions in scenes of about 100 patches, whole pictures in 36.
SCENE_PATCHES = 144
# By the model's `score_function`.
MEANINGS = {
    "sigmoid": "Probability that a label fits; labels don't compete. 标签适合的概率，各标签互不竞争。",
    "softmax": "Share of a label among all of them. 标签在全部标签中所占的份额。",
}
SHOWN_LABELS = 4


@dataclass(frozen=True)
class Bundle:
    """The bundled pictures with what is known of them."""

    folder: Path
    pictures: list[dict[str, Any]]
    scenes: list[dict[str, Any]]  # FineHARD records by language, and the file

    @classmethod
    def load(cls) -> "Bundle":
        folder = demo_images()
        manifest = read_json(folder / "manifest.json")
        records = {language: read_json(folder / file) for language, file in manifest["scene_records"].items()}
        files = [picture["file"] for picture in manifest["pictures"] if picture["kind"] == "scene"]
        scenes = [
            {"file": file, "en": en, "zh": zh} for file, en, zh in zip(files, records["en"], records["zh"], strict=True)
        ]
        return cls(folder, manifest["pictures"], scenes)

    @property
    def things(self) -> list[dict[str, Any]]:
        return [picture for picture in self.pictures if picture["kind"] == "thing"]

    def path_of(self, name_en: str) -> Path:
        return self.folder / next(thing["file"] for thing in self.things if thing["name_en"] == name_en)

    def describe(self, path: Path) -> str:
        """Return the names of a thing in both languages, or the short caption of a scene."""
        file = path.relative_to(self.folder).as_posix()
        picture = next(picture for picture in self.pictures if picture["file"] == file)
        if picture["kind"] != "scene":
            return f"{picture['name_en']} / {picture['name_zh']}"
        return next(scene["en"]["short_caption"] for scene in self.scenes if scene["file"] == file)


def run_demo(output: Path, embedder: Embedder) -> tuple[Path, dict[str, Any]]:
    """Run the demo and write `index.html` and `results.json` into a folder.

    Args:
        output: The folder, made if missing.
        embedder: Any checkpoint with regions; the embedded one is meant.

    Returns:
        The page's path and the results, which say the same as the page.
    """
    started = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.load()
    options: dict[str, Any] = {"index_folder": output / "index", "show_progress_bar": False}
    try:
        index = ImageIndex.build(bundle.folder, embedder, **options)  # goes on where another run was interrupted
    except IncompatibleIndexError:  # that run had another checkpoint
        index = ImageIndex.build(bundle.folder, embedder, rebuild=True, **options)
    results: dict[str, Any] = {"indexed": len(index), "version": version("fgclip2"), "checkpoint": embedder.name}
    sections = [
        _search_by_text(index, embedder, bundle, results),
        _search_for_scenes(index, embedder, bundle, results),
        _search_by_image(index, embedder, bundle, results),
        _classify(embedder, bundle, results),
        _label_regions(embedder, bundle, results),
        _heat_maps(embedder, bundle, results),
    ]
    results["seconds"] = round(time.perf_counter() - started, 1)
    summary = f"{len(index)} pictures indexed, {results['seconds']} s in all, fgclip2 {results['version']}. "
    credits = "Pictures: " + " · ".join(sorted({picture["attribution"] for picture in bundle.pictures}))
    page = output / "index.html"
    for path, text in (
        (page, render("fgclip2: demo / 演示", sections, summary + credits)),
        (output / "results.json", json.dumps(results, ensure_ascii=False, indent=1)),
    ):
        with replacing(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    return page, results


def _search_by_text(index: ImageIndex, embedder: Embedder, bundle: Bundle, results: dict[str, Any]) -> Section:
    queries = [query for pair in TEXT_QUERIES for query in pair]
    rows, results["text_search"] = [], {}
    for query, hits in zip(queries, index.search(queries, embedder, top_k=HITS), strict=True):
        rows.append(Row(query, [_hit_card(bundle, hit) for hit in hits]))
        results["text_search"][query] = [_hit_json(bundle, hit) for hit in hits]
    text = (
        "Each query in English and in Chinese; the score is the cosine. Two thirds of the pictures are by artists that "
        "the embedded checkpoint was trained on. "
        "每个查询都有英文和中文；分数是余弦相似度。三分之二的图片出自参与训练的画师。"
    )
    return Section("Search by text / 以文搜图", text, rows)


def _search_for_scenes(index: ImageIndex, embedder: Embedder, bundle: Bundle, results: dict[str, Any]) -> Section:
    """Search for scenes as people ask for them, before and after re-ranking, in English and Chinese side by side."""
    budget = None if embedder.processor.patch_budgets is None else SCENE_PATCHES
    paths = [bundle.folder / scene["file"] for scene in bundle.scenes]
    queries = [(number, query) for number, *pair in SCENE_QUERIES for query in pair]
    texts = [query for _, query in queries]
    reranked = [embedder.rerank(text, paths, max_num_patches=budget, show_progress_bar=False) for text in texts]
    found = {"before": [sorted(hits, key=lambda hit: -hit.score) for hits in reranked], "after": reranked}
    among_all = {  # first hits
        "before": [hits[0].path for hits in index.search(texts, embedder, top_k=1)],
        "after": [hits[0].path for hits in index.search(texts, embedder, top_k=1, rerank="phrases")],
    }
    results["scene_search"] = {
        text: {
            name: [{"scene": hit.index, "is_right": hit.index == number} for hit in hits[row]]
            for name, hits in found.items()
        }
        for row, (number, text) in enumerate(queries)
    }
    count = len(SCENE_QUERIES)
    scores: dict[str, Any] = {"queries": count, "scenes": len(paths), "pictures": len(index)}
    for offset, language in enumerate(LANGUAGES):
        rows = range(offset, len(queries), len(LANGUAGES))
        scores[language] = {
            **{name: sum(hits[row][0].index == queries[row][0] for row in rows) for name, hits in found.items()},
            **{
                f"{name}_among_all": sum(first[row] == paths[queries[row][0]] for row in rows)
                for name, first in among_all.items()
            },
        }
    results["scene_search_right"] = scores

    headings = {"before": "{} — by cosine / 按余弦", "after": "re-ranked / 重排后"}
    rows_of_cards = [
        Row(
            headings[name].format(texts[row]),
            [
                _scene_card(bundle, hit, hit.index == queries[row][0], with_phrases=name == "after")
                for hit in hits[row][:SCENE_HITS]
            ],
        )
        for first in range(0, len(queries), len(LANGUAGES))
        for name, hits in found.items()
        for row in range(first, first + len(LANGUAGES))
    ]
    text = SCENE_TEXT.format(**scores)
    return Section("Search as people write / 随手写的查询", text, rows_of_cards, in_columns=True)


def _search_by_image(index: ImageIndex, embedder: Embedder, bundle: Bundle, results: dict[str, Any]) -> Section:
    rows, results["image_search"] = [], {}
    for file in IMAGE_QUERIES:
        path = bundle.folder / file
        hits = index.search(path, embedder, top_k=HITS)
        cards = [Card(load_image(path), ["query / 查询"]), *(_hit_card(bundle, hit) for hit in hits)]
        rows.append(Row(bundle.describe(path), cards))
        results["image_search"][file] = [_hit_json(bundle, hit) for hit in hits]
    text = "The picture itself is left out of its answers. 结果中不含查询图像本身。"
    return Section("Search by image / 以图搜图", text, rows)


def _classify(embedder: Embedder, bundle: Bundle, results: dict[str, Any]) -> Section:
    labels = [label for pair in LABELS for label in pair]
    paths = [bundle.path_of(name) for name in CLASSIFIED]
    scores = embedder.classify(paths, labels)
    results["classify"] = {name: _top(labels, row) for name, row in zip(CLASSIFIED, scores, strict=True)}
    cards = [
        Card(load_image(path), [_percent(*pair) for pair in _top(labels, row)])
        for path, row in zip(paths, scores, strict=True)
    ]
    meaning = MEANINGS[embedder.model.score_function]
    return Section("Classify / 分类", meaning, [Row(" · ".join(labels), cards)])


def _label_regions(embedder: Embedder, bundle: Bundle, results: dict[str, Any]) -> Section:
    rows, results["regions"] = [], []
    budget = None if embedder.processor.patch_budgets is None else SCENE_PATCHES
    for scene in bundle.scenes:
        path = bundle.folder / scene["file"]
        image = load_image(path)
        boxes = _pixel_boxes(scene["en"], image)
        for language in ("en", "zh"):
            labels = sorted({thing[f"name_{language}"] for thing in bundle.things})
            scores = embedder.classify_regions(path, boxes, labels, max_num_patches=budget)
            cards = [Card(image, [scene[language]["short_caption"]], wide=True)]
            for box, info, row in zip(boxes, scene[language]["bbox_info"], scores, strict=True):
                top = _top(labels, row)
                truth = {"en": "is", "zh": "实为"}[language]
                lines = [f"{truth}: {info['category']}", *(_percent(*pair) for pair in top)]
                cards.append(Card(image.crop(box), lines))
                results["regions"].append({"truth": info["category"], "language": language, "top": top})
            rows.append(Row(f"{len(labels)} labels / 个标签 ({language})", cards))
    text = "Boxes are pooled from dense features and compared with region phrases. 框由密集特征汇聚，与区域短语比较。"
    return Section("Label regions / 区域标注", text, rows)


def _heat_maps(embedder: Embedder, bundle: Bundle, results: dict[str, Any]) -> Section:
    rows, results["heat_maps"] = [], []
    budget = None if embedder.processor.patch_budgets is None else SCENE_PATCHES
    for scene in bundle.scenes:
        path = bundle.folder / scene["file"]
        image = load_image(path)
        for language in ("en", "zh"):
            names = [box["category"] for box in scene[language]["bbox_info"]]
            maps = embedder.heatmap(path, names, max_num_patches=budget)
            cards = [Card(overlay_heatmap(image, heat), [name]) for name, heat in zip(names, maps, strict=True)]
            rows.append(Row(scene[language]["short_caption"], cards))
            boxes = _pixel_boxes(scene["en"], image)
            results["heat_maps"] += [
                {"text": name, "inside": float(heat[y1:y2, x1:x2].mean()), "mean": float(heat.mean())}
                for name, heat, (x1, y1, x2, y2) in zip(names, maps, boxes, strict=True)
            ]
    text = "Where a phrase applies: cosines of the patches with it. 短语所指之处：各图块与它的余弦相似度。"
    return Section("Heat maps / 热力图", text, rows)


def _hit_card(bundle: Bundle, hit: Any) -> Card:
    return Card(load_image(hit.path), [bundle.describe(hit.path), f"{hit.score:.3f}"])


def _hit_json(bundle: Bundle, hit: Any) -> dict[str, Any]:
    return {"name": bundle.describe(hit.path), "score": round(float(hit.score), 4)}


def _top(labels: Sequence[str], scores: np.ndarray) -> list[tuple[str, float]]:
    order = np.argsort(-scores, kind="stable")[:SHOWN_LABELS]
    return [(labels[index], round(float(scores[index]), 4)) for index in order]


def _percent(label: str, score: float) -> str:
    return f"{label} {score:.1%}"


def _pixel_boxes(record: dict[str, Any], image: Image.Image) -> list[tuple[int, int, int, int]]:
    corners = ((box["bbox"][:2], box["bbox"][2:4]) for box in record["bbox_info"])
    width, height = image.size
    return [
        (round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height)) for (x1, y1), (x2, y2) in corners
    ]


def _scene_card(bundle: Bundle, hit: RerankedHit, is_right: bool, with_phrases: bool) -> Card:
    """Return a card that says whether a hit is the right scene, and shows where the phrases were found."""
    scene = bundle.scenes[hit.index]
    image = load_image(bundle.folder / scene["file"])
    name = f"{'✓' if is_right else '✗'} {scene['en']['short_caption']}"
    if not with_phrases:
        return Card(image, [name, f"{hit.score:.3f}"], is_right=is_right)
    key = [
        (PHRASE_COLORS[number % len(PHRASE_COLORS)], f"{match.text} {match.cosine:.3f}")
        for number, match in enumerate(hit.phrases)
    ]
    picture = overlay_phrases(image, hit.phrases, legend=False)
    return Card(picture, [name, f"{hit.reranked:.3f} ({hit.score:.3f})"], is_right=is_right, key=key)
