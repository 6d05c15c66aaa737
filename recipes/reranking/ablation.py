"""Measure re-ranking by phrases, and its splitter, windows, candidates and weight, on validation scenes.

    python -m recipes.reranking.ablation --output recipes/reranking/results

Writes `ablation.json` and `ablation.md`; needs the extra `jieba`. Vectors and dense maps of the scenes are kept in
`.cache/reranking`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from fgclip2 import FGClip2Embedder
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import SceneSet, build_scene_set
from fgclip2.drawings.sources import default_cache
from fgclip2.embedding.parsers import split_by_jieba
from fgclip2.embedding.phrases import Splitter, split_phrases
from fgclip2.embedding.reranker import (
    CANDIDATES,
    WEIGHT_OF_SPREAD,
    WINDOW_SIDES,
    ImageWindows,
    fit_weight,
    match_pairs,
)
from fgclip2.embedding.windows import best_windows
from fgclip2.languages import LANGUAGES, detect_language
from fgclip2.search import nearest

from .texts import validation_texts

ROOT = Path(__file__).parents[2]
SCENES = 1000
SEED = 1  # of the validation scenes, as in recipes/scenes
PATCHES = 100
MOST_CANDIDATES = 50


def naive(text: str) -> list[str]:
    """Split at signs and at "and"."""
    parts = re.split(r"[,.;:，。；：、（）()]|\band\b|和", text)
    return [part.strip() for part in parts if part.strip()]


def by_jieba(text: str) -> list[str]:
    """Split Chinese by jieba, English by the rules."""
    return split_by_jieba(text) if detect_language(text) == "zh" else list(split_phrases(text))


SPLITTERS: dict[str, Splitter] = {
    "rules": split_phrases,
    "Chinese by jieba": by_jieba,
    "signs and “and”": naive,
    "the caption as one phrase": lambda text: [text],
}
WINDOWS: dict[str, tuple[float, ...]] = {
    ", ".join(f"{side:g}" for side in sides) or "the whole image": sides
    for sides in (
        WINDOW_SIDES,
        (0.2, 0.3, 0.4),
        (0.2, 0.3),
        (0.2, 0.35, 0.6),
        (),
    )
}


@dataclass(frozen=True)
class Setting:
    """One choice of everything; the defaults are the package's."""

    splitter: str = "rules"
    windows: str = next(iter(WINDOWS))
    candidates: int = CANDIDATES
    weight: str = f"spread x {WEIGHT_OF_SPREAD:g}"  # or a number, or "fitted"
    patches: str = "own"  # or "another's": a control, those of the next scene


def variations() -> list[Setting]:
    """Return the defaults and what differs from them in one thing."""
    default = Setting()
    return [
        default,
        *(replace(default, splitter=name) for name in SPLITTERS if name != default.splitter),
        *(replace(default, windows=name) for name in WINDOWS if name != default.windows),
        *(replace(default, candidates=count) for count in (MOST_CANDIDATES, 10, 5)),
        *(
            replace(default, weight=f"spread x {factor:g}")
            for factor in (0.5, 1, 1.5, 2, 3)
            if factor != WEIGHT_OF_SPREAD
        ),
        *(replace(default, weight=weight) for weight in ("1", "2", "3", "5", "fitted")),
        replace(default, patches="another's"),
    ]


class CachedScenes:
    """The scenes as the model sees them, in place of an embedder and of images, which are named by their index.

    Args:
        embedder: Embeds texts, and scenes that are not in the cache yet.
        scenes: The validation scenes.
        cache: Folder of the vectors and dense maps.
        count: How many of the scenes are there.
    """

    def __init__(self, embedder: FGClip2Embedder, scenes: SceneSet, cache: Path, count: int):
        self.embedder, self.sides, self.shift = embedder, WINDOW_SIDES, 0
        path = cache / f"{scenes.folder.name}-{embedder.fingerprint[:16]}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(self.encode(scenes), path)
        tensors = {name: tensor[:count] for name, tensor in load_file(path).items()}
        self.vectors, self.grids, self.maps = tensors["vectors"], tensors["grids"], tensors["maps"]

    @torch.inference_mode()
    def encode(self, scenes: SceneSet) -> dict[str, np.ndarray]:
        images = [scenes.image(index) for index in range(len(scenes))]
        processor, maps, grids = self.embedder.processor, [], []
        for image in images:
            inputs = processor.collate_images([processor.prepare_image(image, PATCHES)])
            dense = self.embedder.model.get_image_dense_feature(**inputs)[0].half().numpy()  # (N, D)
            maps.append(np.pad(dense, ((0, PATCHES - len(dense)), (0, 0))))  # (PATCHES, D)
            grids.append(inputs["spatial_shapes"][0].tolist())
        vectors = self.embedder.encode_images(images, PATCHES)
        return {"vectors": vectors, "grids": np.array(grids), "maps": np.stack(maps)}

    def encode_texts(self, texts: Sequence[str], **options: object) -> np.ndarray:
        """Embed texts, see [`Embedder.encode_texts`]."""
        return self.embedder.encode_texts(texts, **options)  # type: ignore[arg-type]

    def stream_windows(self, images: Sequence[int], vectors: Sequence[np.ndarray], **options: object) -> Iterator:
        """Find the windows of scenes, see [`Embedder.stream_windows`]; boxes are shares of the sides.

        With a `shift`, they are those of the scene that comes so many places after.
        """
        for number, image in enumerate(images):
            shown = (image + self.shift) % len(self.maps)
            height, width = self.grids[shown].tolist()
            dense = torch.from_numpy(self.maps[shown, : height * width]).unflatten(0, (1, height, width))
            best = best_windows(dense, [torch.from_numpy(vectors[number])], self.sides)[0]
            yield number, ImageWindows(*best)


class Ablation:
    """Measures settings on texts; what settings share is computed once."""

    def __init__(self, scenes: CachedScenes, texts: dict[str, dict[str, list[str]]]):
        self.scenes, self.texts = scenes, texts
        self.known: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def nearest(self) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
        """(kind, language) -> cosines and rows (texts, 50) of the nearest scenes."""
        return {
            (kind, language): nearest(
                self.scenes.encode_texts(texts, role="caption" if kind == "short" else "long_caption"),
                self.scenes.vectors,
                MOST_CANDIDATES,
            )
            for kind, by_language in self.texts.items()
            for language, texts in by_language.items()
        }

    def matches(self, setting: Setting, kind: str, language: str) -> np.ndarray:
        """Means (texts, candidates) of the phrases' cosines."""
        rows = self.nearest[kind, language][1][:, : setting.candidates]
        self.scenes.sides, self.scenes.shift = WINDOWS[setting.windows], int(setting.patches != "own")
        images = range(len(self.scenes.vectors))
        pairs = [(text, row) for text, its in enumerate(rows.tolist()) for row in its]
        found = match_pairs(self.scenes, self.texts[kind][language], images, pairs, SPLITTERS[setting.splitter])  # type: ignore[arg-type]
        means = {pair: np.mean([match.cosine for match in its.phrases]) for pair, its in found}  # type: ignore[union-attr]
        return np.array([means[pair] for pair in pairs]).reshape(rows.shape)

    def recall(self, setting: Setting, kind: str, language: str) -> float:
        """Percent of texts whose scene comes first after re-ranking."""
        key = (setting.splitter, setting.windows, setting.patches, kind, language)
        if key not in self.known or self.known[key].shape[1] < setting.candidates:
            self.known[key] = self.matches(setting, kind, language)
        matches = self.known[key][:, : setting.candidates]
        scores, rows = (array[:, : setting.candidates] for array in self.nearest[kind, language])
        is_right = rows == np.arange(len(rows))[:, None]
        if setting.weight == "fitted":  # on one half of the texts, tested on the other
            right = np.zeros(len(rows), dtype=bool)
            for half in (0, 1):
                fit = [row for row in range(half, len(rows), 2) if is_right[row].any()]
                weight = fit_weight(scores[fit], matches[fit], is_right[fit].argmax(1).tolist())
                right[1 - half :: 2] = wins(scores, matches, weight, is_right)[1 - half :: 2]
            return 100 * float(right.mean())
        if setting.weight.startswith("spread"):
            factor = float(setting.weight.rpartition(" ")[2])
            weights = factor * scores.std(1, keepdims=True) / matches.std(1, keepdims=True)
            return 100 * float(wins(scores, matches, weights, is_right).mean())
        return 100 * float(wins(scores, matches, float(setting.weight), is_right).mean())

    def first(self, kind: str, language: str) -> float:
        """Percent of texts whose scene comes first before re-ranking."""
        return 100 * float((self.nearest[kind, language][1][:, 0] == np.arange(len(self.texts[kind][language]))).mean())


def wins(scores: np.ndarray, matches: np.ndarray, weight: np.ndarray | float, is_right: np.ndarray) -> np.ndarray:
    """(N,) bool: whether the right candidate comes first."""
    best = (scores + weight * matches).argmax(axis=1)
    return is_right[np.arange(len(best)), best]


def markdown(rows: Sequence[dict], columns: Sequence[tuple[str, str]], count: int) -> str:
    """Return the table."""
    lines = [
        f"Text-to-image recall@1 in percent: {count} captions among as many **validation** scenes, embedded",
        "checkpoint. The first row is without re-ranking, the second has the defaults, from which every other differs",
        "in one thing. The kinds of captions: `long` and `short` as generated, `clauses` and `words` of `texts.py`.",
        "",
        "| splitter | window sides | candidates | weight | patches | "
        + " | ".join(map(" ".join, columns))
        + " | mean |",
        "|---" * (6 + len(columns)) + "|",
    ]
    for row in rows:
        setting = row["setting"] or dict.fromkeys(Setting.__dataclass_fields__, "-")
        values = [row["recall@1"][" ".join(column)] for column in columns]
        cells = [*map(str, setting.values()), *(f"{value:.1f}" for value in [*values, float(np.mean(values))])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parse_options(description: str | None, scenes: int, arguments: list[str] | None) -> argparse.Namespace:
    """Read the options that measurements of re-ranking share; `scenes` is how many there are by default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder of the data (default: %(default)s)."
    )
    parser.add_argument("--maps", type=Path, default=ROOT / ".cache" / "reranking", help="Folder of the dense maps.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of the tables.")
    parser.add_argument(
        "--scenes", type=int, default=scenes, help=f"How many of {SCENES} scenes (default: %(default)s)."
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(__doc__, 400, arguments)
    table = load_concepts(options.cache)
    scene_set = build_scene_set(options.cache, table, "validation", SCENES, SEED)
    scenes = CachedScenes(FGClip2Embedder.from_pretrained(device="cpu"), scene_set, options.maps, options.scenes)
    texts = validation_texts(options.cache, table, scene_set, SEED, options.scenes)
    ablation = Ablation(scenes, texts)
    columns = [(kind, language) for kind in ablation.texts for language in LANGUAGES]
    rows: list[dict] = [
        {"setting": None, "recall@1": {" ".join(column): ablation.first(*column) for column in columns}}
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    for setting in variations():
        recalls = {" ".join(column): ablation.recall(setting, *column) for column in columns}
        rows.append({"setting": setting.__dict__, "recall@1": recalls})
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
        content = {
            "split": "validation",
            "scenes": options.scenes,
            "seed": SEED,
            "max_num_patches": PATCHES,
            "rows": rows,
        }
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        (options.output / "ablation.json").write_text(text, encoding="utf-8")
        (options.output / "ablation.md").write_text(markdown(rows, columns, options.scenes), encoding="utf-8")


if __name__ == "__main__":
    main()
