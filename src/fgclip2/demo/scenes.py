"""The part of the demo about scenes of several things: searched for, their regions named, phrases located."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import ImageDraw

from ..embedding import Embedder, RerankedHit
from ..languages import LANGUAGES, Language
from ..modeling.inputs import load_image
from ..pages import Window
from ..search import ImageIndex
from ..visualization import overlay_heatmap
from .bundle import Bundle, Scene
from .page import Card, Cards, Cell, Explained, Section, Table, pairs_of
from .shares import Share, nearest_by_pixels

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
SHOWN_LARGE = 9  # the query whose windows are shown on a large picture
# The checkpoint was trained to see regions in scenes of about 100 patches, whole pictures in 36.
SCENE_PATCHES = 144


class Scenes:
    """Answers about scenes.

    Args:
        index: Of all bundled pictures.
        embedder: Of the model.
        bundle: The pictures.
    """

    def __init__(self, index: ImageIndex, embedder: Embedder, bundle: Bundle):
        self.index, self.embedder, self.bundle, self.scenes = index, embedder, bundle, bundle.scenes
        self.budget = None if embedder.processor.patch_budgets is None else SCENE_PATCHES
        self.images = [load_image(scene.path) for scene in self.scenes]
        self.boxes = [scene.pixel_boxes(image.size) for scene, image in zip(self.scenes, self.images, strict=True)]

    def search(self, results: dict[str, Any]) -> tuple[list[Share], list[Section]]:
        """Search for scenes as people ask for them, by the cosine and re-ranked by phrases."""
        queries = [(number, query) for number, *pair in SCENE_QUERIES for query in pair]
        texts, paths = [query for _, query in queries], [scene.path for scene in self.scenes]
        options: dict[str, Any] = {"max_num_patches": self.budget, "show_progress_bar": False}
        reranked = [self.embedder.rerank(text, paths, **options) for text in texts]
        found = {"before": [sorted(hits, key=lambda hit: -hit.score) for hits in reranked], "after": reranked}
        among_all = {  # first hits
            "before": [hits[0].path for hits in self.index.search(texts, self.embedder, top_k=1)],
            "after": [hits[0].path for hits in self.index.search(texts, self.embedder, top_k=1, rerank="phrases")],
        }
        results["scene_search"] = {
            text: {
                name: [{"scene": hit.index, "is_right": hit.index == number} for hit in hits[row]]
                for name, hits in found.items()
            }
            for row, (number, text) in enumerate(queries)
        }
        right: dict[str, dict[Language, int]] = {}
        for name in found:
            for offset, language in enumerate(LANGUAGES):
                rows = range(offset, len(queries), len(LANGUAGES))
                first = sum(found[name][row][0].index == queries[row][0] for row in rows)
                first_of_all = sum(among_all[name][row] == paths[queries[row][0]] for row in rows)
                right.setdefault(name, {})[language] = first
                right.setdefault(f"{name} among all", {})[language] = first_of_all
        tasks = {
            "before": ("query → scene, by cosine / 查询找场景图，按余弦", len(paths)),
            "after": ("the same, re-ranked / 同上，重排后", len(paths)),
            "before among all": (
                f"among all {len(self.index)} pictures, by cosine / 在全部图片中，按余弦",
                len(self.index),
            ),
            "after among all": ("the same, re-ranked / 同上，重排后", len(self.index)),
        }
        shares = [
            Share(task, right[name], len(SCENE_QUERIES), 1 / candidates) for name, (task, candidates) in tasks.items()
        ]
        blocks = []
        for row, (number, text) in enumerate(queries):
            places = [1 + [hit.index for hit in hits[row]].index(number) for hits in found.values()]
            cards = [self._scene_card(hit, hit.index == number) for hit in reranked[row][:SCENE_HITS]]
            blocks.append(Cards(f"{text}  ({places[0]} → {places[1]})", cards))
        return shares, [self._one_query(reranked), self._all_queries(blocks)]

    def _one_query(self, reranked: list[list[RerankedHit]]) -> Section:
        count, (number, *texts) = len(LANGUAGES), SCENE_QUERIES[SHOWN_LARGE]
        firsts = [hits[0] for hits in reranked[count * SHOWN_LARGE : count * (SHOWN_LARGE + 1)]]
        blocks = [
            Cards(text, [self._scene_card(hit, hit.index == number)]) for text, hit in zip(texts, firsts, strict=True)
        ]
        english = (
            "The phrases of one query, and the window of the picture that each fits best: the evidence by which "
            "pictures are re-ranked. Numbers are cosines of phrase and window."
        )
        chinese = "一条查询中的各条短语，以及图中与每条短语最相符的窗口：重排就以此为据。数字是短语与窗口的余弦相似度。"
        return Section("One query and its windows / 一条查询和它的窗口", english, chinese, [blocks])

    def _all_queries(self, blocks: list[Cards]) -> Section:
        english = (
            f"Written before any model had answered them, each query asks for one of {len(self.scenes)} scenes; here "
            f"are the first {SCENE_HITS}, re-ranked. Behind a query: the place of the right scene by the cosine of the "
            "whole picture, and re-ranked."
        )
        chinese = (
            f"这些查询写于任何模型作答之前，每条要找 {len(self.scenes)} 幅场景图中的一幅；"
            f"列出重排后的前 {SCENE_HITS} 幅。"
            "查询后面的数字：正确的图按整幅图片的余弦排在第几，重排后排在第几。"
        )
        return Section("Search as people write / 随手写的查询", english, chinese, pairs_of(blocks))

    def name_regions(self, results: dict[str, Any]) -> tuple[Share, Section]:
        """Name the boxes of the scenes among the names of all bundled things."""
        names = {language: [thing[f"name_{language}"] for thing in self.bundle.unseen_things] for language in LANGUAGES}
        labels = {language: self.embedder.encode_labels(its, role="region_phrase") for language, its in names.items()}
        blocks, results["regions"], right = [], [], dict.fromkeys(LANGUAGES, 0)
        for scene, image, boxes in zip(self.scenes, self.images, self.boxes, strict=True):
            vectors = self.embedder.encode_regions(image, boxes, max_num_patches=self.budget)  # (boxes, D)
            table = []
            for number, vector in enumerate(vectors):
                cells = [Cell(f"{number + 1} " + " / ".join(its[number] for its in scene.names.values()))]
                for language in LANGUAGES:
                    cosines = labels[language] @ vector
                    first, truth = names[language][cosines.argmax()], scene.names[language][number]
                    right[language] += first == truth
                    cells.append(Cell(f"{'✓' if first == truth else '✗'} {first} {cosines.max():.3f}", first == truth))
                    results["regions"].append({"truth": truth, "language": language, "first": first})
                table.append(cells)
            windows = [Window(box, "") for box in boxes]
            picture = Card(image, [" / ".join(scene.captions.values())], windows=windows)
            blocks.append(Explained(picture, Table(["box / 框", "English", "中文"], table)))
        count = len(results["regions"]) // len(LANGUAGES)
        share = Share("box → name / 由框说出名称", right, count, 1 / len(names["en"]), self._regions_by_pixels())
        english = (
            "Each box is pooled from the features of the patches in it, and named by the nearest of "
            f"{len(names['en'])} region phrases. The picture is not cut, and what is around a box has a say."
        )
        chinese = (
            f"每个框由其中各图块的特征汇聚而成，取 {len(names['zh'])} 条区域短语中最相近的一条作为名称。"
            "图片没有裁剪，框周围的内容也会影响结果。"
        )
        return share, Section("Name what is in a box / 说出框里是什么", english, chinese, pairs_of(blocks))

    def _regions_by_pixels(self) -> int:
        """Count the boxes that the most similar picture by another artist names rightly."""
        unseen = self.bundle.unseen_things
        seen = [thing for thing in self.bundle.things if thing not in unseen]
        crops = [image.crop(box) for image, its in zip(self.images, self.boxes, strict=True) for box in its]
        nearest = nearest_by_pixels(crops, [load_image(self.bundle.path_of(thing)) for thing in seen])
        truths = [name for scene in self.scenes for name in scene.names["en"]]
        return sum(seen[row]["name_en"] == truth for row, truth in zip(nearest, truths, strict=True))

    def locate(self, results: dict[str, Any]) -> tuple[Share, Section]:
        """Draw where the name of each thing applies, on one scale for each scene and language."""
        rows, results["heat_maps"], areas = [], [], []
        for scene, image, boxes in zip(self.scenes, self.images, self.boxes, strict=True):
            row = []
            for language in LANGUAGES:
                names = scene.names[language]
                maps = self.embedder.heatmap(image, names, max_num_patches=self.budget)  # (names, height, width)
                # What fits worse than most of the picture is one colour: a map is read by its peaks.
                low, high = float(np.median(maps)), float(maps.max())
                cards = []
                for name, heat, box in zip(names, maps, boxes, strict=True):
                    y, x = np.unravel_index(heat.argmax(), heat.shape)
                    is_right = bool(box[0] <= x < box[2] and box[1] <= y < box[3])
                    drawn = overlay_heatmap(image.convert("L").convert("RGB"), heat, 0.45, low, high)
                    ImageDraw.Draw(drawn).rectangle(box, outline="white", width=2)
                    cards.append(Card(drawn, [f"{'✓' if is_right else '✗'} {name}"], is_right))
                    results["heat_maps"].append({"text": name, "language": language, "peak_in_box": is_right})
                row.append(Cards("", cards))
            areas += [(x2 - x1) * (y2 - y1) / (image.width * image.height) for x1, y1, x2, y2 in boxes]
            rows.append(row)
        right = {
            language: sum(its["peak_in_box"] for its in results["heat_maps"] if its["language"] == language)
            for language in LANGUAGES
        }
        share = Share("name → where / 由名称找位置", right, len(areas), float(np.mean(areas)))
        english = (
            "Cosines of the patches with a name, red where they are largest; the white frame is where the thing is. "
            "Right: the largest is in the frame. The maps of a scene share a scale, blue up to their median."
        )
        chinese = (
            "各图块与名称的余弦相似度，红色处最大；白框是它真正所在的地方。最大处在框内为对。"
            "同一幅场景图的各张热力图用同一标尺，蓝色表示不高于其中位数。"
        )
        return share, Section("Where is it? / 在哪里？", english, chinese, rows)

    def _scene_card(self, hit: RerankedHit, is_right: bool) -> Card:
        scene: Scene = self.scenes[hit.index]
        windows = [Window(match.box, f"{match.text} {match.cosine:.3f}") for match in hit.phrases]
        return Card(self.images[hit.index], [" / ".join(scene.captions.values())], is_right, windows)
