"""The part of the demo about whole pictures: found by text, by another picture, and named."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..embedding import Embedder
from ..languages import LANGUAGES
from ..modeling.inputs import load_image
from ..search import ImageIndex
from .bundle import Bundle
from .page import Card, Cards, Section, pairs_of
from .shares import Share, nearest_by_pixels

# Each pair asks for the same thing in English and in Chinese.
TEXT_QUERIES = (
    ("a red apple", "红苹果"),
    ("a tiger", "老虎"),
    ("guitar", "吉他"),
    ("sunflower", "向日葵"),
    ("rocket", "火箭"),
)
TEXT_HITS = 4
IMAGE_QUERIES = 4  # the first pictures of the unseen artist, whatever the answers are
IMAGE_HITS = 3
NAMED = 6  # likewise
SHOWN_LABELS = 2


class WholePictures:
    """Answers about whole pictures.

    Args:
        index: Of all bundled pictures.
        embedder: Of the model.
        bundle: The pictures.
    """

    def __init__(self, index: ImageIndex, embedder: Embedder, bundle: Bundle):
        self.index, self.embedder, self.bundle = index, embedder, bundle
        rows = {file.path: row for row, file in enumerate(index.files)}
        self.unseen = bundle.unseen_things
        self.seen = [thing for thing in bundle.things if thing not in self.unseen]
        self.unseen_vectors, self.seen_vectors = (
            index.vectors[[rows[thing["file"]] for thing in things]] for things in (self.unseen, self.seen)
        )  # (things, D) each
        self.labels = {language: [thing[f"name_{language}"] for thing in self.unseen] for language in LANGUAGES}
        self.cosines = {  # (things, labels) each
            language: self.unseen_vectors @ embedder.encode_labels(labels).T for language, labels in self.labels.items()
        }

    def shares(self) -> list[Share]:
        """Return how often pictures of the unseen artist are found by their name, by a picture, and named."""
        count = len(self.unseen)
        own = np.arange(count)
        found, named = (
            {language: int((cosines.argmax(axis) == own).sum()) for language, cosines in self.cosines.items()}
            for axis in (0, 1)
        )
        seen_names, names = (np.array([thing["name_en"] for thing in things]) for things in (self.seen, self.unseen))
        same = seen_names[(self.unseen_vectors @ self.seen_vectors.T).argmax(1)] == names
        pictures = ([load_image(self.bundle.path_of(thing)) for thing in things] for things in (self.unseen, self.seen))
        by_pixels = int((seen_names[nearest_by_pixels(*pictures)] == names).sum())
        by_image = int(same.sum())
        chance = float((seen_names[None] == names[:, None]).mean())
        return [
            Share("name → picture / 由名称找图", found, count, 1 / count),
            Share("picture → name / 由图说出名称", named, count, 1 / count, by_pixels),
            Share("picture → picture / 由图找图", dict.fromkeys(LANGUAGES, by_image), count, chance, by_pixels),
        ]

    def search_by_text(self, results: dict[str, Any]) -> Section:
        queries = [query for pair in TEXT_QUERIES for query in pair]
        wanted = {query: pair[1] for pair in TEXT_QUERIES for query in pair}  # which are names of pictures
        results["text_search"], blocks = {}, []
        for query, hits in zip(queries, self.index.search(queries, self.embedder, top_k=TEXT_HITS), strict=True):
            blocks.append(Cards(query, [self._hit_card(hit, wanted[query]) for hit in hits]))
            results["text_search"][query] = [self._hit_json(hit) for hit in hits]
        english = (
            f"The first {TEXT_HITS} of {len(self.index)} pictures, two thirds of which are by artists that the "
            "embedded checkpoint was trained on. Each thing is there three times; a solid green frame is right, a "
            "dashed red one wrong. Numbers on this page are cosines; which one is high depends on the question."
        )
        chinese = (
            f"{len(self.index)} 幅图片中的前 {TEXT_HITS} 幅，其中三分之二出自参与训练的画师。"
            "每样东西有三幅图；绿色实线框为对，红色虚线框为错。本页的数字都是余弦相似度；多大才算好，要看问的是哪一类问题。"
        )
        return Section("Search by text / 以文搜图", english, chinese, pairs_of(blocks))

    def search_by_image(self, results: dict[str, Any]) -> Section:
        results["image_search"], blocks = {}, []
        for thing in self.unseen[:IMAGE_QUERIES]:
            path = self.bundle.path_of(thing)
            hits = self.index.search(path, self.embedder, top_k=IMAGE_HITS)
            cards = [Card(load_image(path), ["query / 查询"]), *(self._hit_card(hit, thing["name_zh"]) for hit in hits)]
            blocks.append(Cards(self.bundle.describe(path), cards))
            results["image_search"][thing["file"]] = [self._hit_json(hit) for hit in hits]
        english = (
            f"The first {IMAGE_QUERIES} pictures of the artist that the checkpoint was not trained on, and the nearest "
            "pictures. The picture itself is left out."
        )
        chinese = f"未参与训练的那位画师的前 {IMAGE_QUERIES} 幅图片，以及与它们最相近的图片；不含查询图片本身。"
        return Section("Search by image / 以图搜图", english, chinese, pairs_of(blocks))

    def name(self, results: dict[str, Any]) -> Section:
        """Name pictures by the labels that are nearest."""
        results["named"], cards = [], []
        for row, thing in enumerate(self.unseen[:NAMED]):
            lines, all_right = [], True
            for language in LANGUAGES:
                cosines, labels = self.cosines[language][row], self.labels[language]
                order = np.argsort(-cosines, kind="stable")[:SHOWN_LABELS]
                is_right = bool(order[0] == row)
                all_right &= is_right
                named = [f"{labels[label]} {cosines[label]:.3f}" for label in order]
                lines.append(f"{'✓' if is_right else '✗'} {' · '.join(named)}")
                results["named"].append(
                    {
                        "truth": thing[f"name_{language}"],
                        "language": language,
                        "top": [labels[label] for label in order],
                    }
                )
            path = self.bundle.path_of(thing)
            cards.append(Card(load_image(path), [self.bundle.describe(path), *lines], all_right))
        count = len(self.unseen)
        english = (
            f"The first {NAMED} pictures of the same artist, and the {SHOWN_LABELS} nearest of {count} names in each "
            "language. A green frame: right in both."
        )
        chinese = (
            f"同一位画师的前 {NAMED} 幅图片，以及每种语言 {count} 个名称中最相近的 {SHOWN_LABELS} 个。"
            "绿框：两种语言都对。"
        )
        return Section("Name a picture / 说出图里是什么", english, chinese, [[Cards("", cards)]])

    def _hit_card(self, hit: Any, name_zh: str) -> Card:
        is_right = self.bundle.names_of(hit.path)["zh"] == name_zh
        return Card(load_image(hit.path), [self.bundle.describe(hit.path), f"{hit.score:.3f}"], is_right)

    def _hit_json(self, hit: Any) -> dict[str, Any]:
        return {"name": self.bundle.describe(hit.path), "score": round(float(hit.score), 4)}
