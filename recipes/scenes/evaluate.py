"""Evaluate a checkpoint on composed scenes, in English and Chinese, beside what chance, pixels and texts alone reach.

    python -m recipes.scenes.evaluate --split validation --output results/validation

The numbers: recall of long and short captions among the scenes, both ways; the name of the thing in a box among all
837; hard negatives, won where the true expression of a region beats all ten (ties are lost); and captions in free
language, by patterns and synonyms of the split that no training text has. Intervals are 95% bootstrap intervals over
scenes. Settings are chosen by `validation`; the test splits (Twemoji) are for frozen settings,
and each run on them is logged in `test_log.jsonl` beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers

import fgclip2
from fgclip2 import Embedder
from fgclip2.drawings.concepts import ConceptTable, load_concepts
from fgclip2.drawings.controls import pixel_similarities, training_pictures
from fgclip2.drawings.scene_sets import SCENE_SPLITS, SceneSet, build_scene_set
from fgclip2.drawings.scenes import NEGATIVE_KINDS, NEGATIVES
from fgclip2.drawings.sources import default_cache
from fgclip2.languages import LANGUAGES
from fgclip2.metrics import hard_negative_wins, retrieval_ranks
from fgclip2.modeling.interface import Role

from .controls import constant_image_scores, fit_text_scorer, text_scores
from .free_language import FreeCaptions, encode_by_heads, free_captions, scene_facts
from .grammar import GrammarSplit
from .metrics import pairwise_wins, summary
from .report import markdown

KS = (1, 5, 10)
NAMING_KS = (1, 5)
# Length -> role of the text, and field of a record.
CAPTIONS = {"long": ("long_caption", "caption"), "short": ("caption", "short_caption")}
CROP_SIDE = 64


class Scenes:
    """A scene set in the form that evaluation needs; regions in the order of scenes.

    Attributes:
        images, boxes: Per scene; boxes in pixels.
        scene_of: (R,) each region's scene.
        columns: (R,) each region's name among the things of the table.
        kinds: (R, `NEGATIVES`) of the hard negatives.
        choices: Language -> R lists, the true expression and its negatives.
        free_captions: In the grammar's wordings; empty where free language is not measured.
    """

    def __init__(self, scene_set: SceneSet, table: ConceptTable, free_captions: FreeCaptions):
        self.free_captions = free_captions
        self.records, self.size = scene_set.records, len(scene_set)
        self.images = [scene_set.image(index) for index in range(self.size)]
        self.boxes = [scene_set.boxes(index) for index in range(self.size)]
        self.scene_of = np.repeat(np.arange(self.size), [len(boxes) for boxes in self.boxes])
        regions = {language: [r for row in rows for r in row["bbox_info"]] for language, rows in self.records.items()}
        self.names = {language: [table[int(i)].name(language) for i in table.thing_ids] for language in LANGUAGES}
        self.columns = np.array([self.names["en"].index(region["category"]) for region in regions["en"]])
        self.kinds = np.array([list(region["neg_kinds"].values()) for region in regions["en"]])
        self.choices = {language: hard_negatives(rows) for language, rows in regions.items()}

    def crops(self) -> np.ndarray:
        """(R, 64, 64, 3) uint8: what is in each box."""
        boxes = [(image, box) for image, boxes in zip(self.images, self.boxes, strict=True) for box in boxes]
        return np.stack([np.asarray(image.crop(box).resize((CROP_SIDE, CROP_SIDE))) for image, box in boxes])


def hard_negatives(regions: Sequence[dict]) -> list[list[str]]:
    """For each entry of `bbox_info` the true expression and its negatives."""
    return [[region["short_expr"], *region["short_expr_negs"].values()] for region in regions]


def encode_once(embedder: Embedder, texts: Sequence[str], role: Role) -> np.ndarray:
    """(N, D) embeddings of texts that repeat themselves."""
    row = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    vectors = embedder.encode_texts(list(row), role=role)
    return vectors[[row[text] for text in texts]]


def recalls(ranks: np.ndarray, groups: np.ndarray, ks: Sequence[int]) -> dict[str, dict]:
    """Ranks from 1 -> recall at each k."""
    return {f"recall@{k}": summary(ranks <= k, groups) for k in ks}


def ranks_among(queries: np.ndarray, candidates: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(Q,) rank from 1 of the right candidate; ties count against it."""
    owner = torch.arange(len(candidates))
    args = (torch.from_numpy(queries), torch.from_numpy(correct), torch.from_numpy(candidates), owner)
    return retrieval_ranks(*args).numpy()


def evaluate_captions(image_embeds: np.ndarray, texts: dict[str, np.ndarray]) -> dict:
    """Recall between scenes and captions of each length, both ways."""
    own = np.arange(len(image_embeds))
    return {
        length: {
            "image_to_text": recalls(ranks_among(image_embeds, embeds, own), own, KS),
            "text_to_image": recalls(ranks_among(embeds, image_embeds, own), own, KS),
        }
        for length, embeds in texts.items()
    }


def evaluate_choices(scores: np.ndarray, scenes: Scenes) -> dict:
    """Hard negatives from scores (R, 1 + N), the true expression's first."""
    wins, scene_of = pairwise_wins(scores), np.repeat(scenes.scene_of[:, None], NEGATIVES, axis=1)
    of_kind = {kind: scenes.kinds == kind for kind in NEGATIVE_KINDS}
    return {
        "beats_all": summary(hard_negative_wins(scores), scenes.scene_of),
        "pairwise": {kind: summary(wins[its], scene_of[its]) for kind, its in of_kind.items() if its.any()},
    }


def evaluate_controls(
    scenes: Scenes, cache: Path, table: ConceptTable, text_scorers: dict[str, dict[str, float]]
) -> dict:
    """Return the results of the controls, which need no model."""
    pixels = pixel_similarities(scenes.crops(), *training_pictures(cache, table), table.thing_ids)
    own = pixels[np.arange(len(pixels)), scenes.columns][:, None]
    ranks = (pixels >= own).sum(axis=1)
    return {
        "chance": {
            "captions": {f"recall@{k}": round(100 * k / scenes.size, 2) for k in KS},
            "box_names": {f"recall@{k}": round(100 * k / len(table.thing_ids), 2) for k in NAMING_KS},
            "beats_all": round(100 / (1 + NEGATIVES), 2),
            "pairwise": 50.0,
        },
        "box_names_by_pixels_of_crop": recalls(ranks, scenes.scene_of, NAMING_KS),
        "hard_negatives_by_text_classifier": {
            language: evaluate_choices(text_scores(weights, scenes.choices[language], language), scenes)
            for language, weights in text_scorers.items()
        },
    }


def train_text_scorers(cache: Path, table: ConceptTable, count: int, seed: int) -> dict[str, dict[str, float]]:
    """The text-only classifier of each language, from the training split's records."""
    records = build_scene_set(cache, table, "train", count, seed).records
    return {
        language: fit_text_scorer(hard_negatives([r for row in rows for r in row["bbox_info"]]), language)
        for language, rows in records.items()
    }


def evaluate_model(embedder: Embedder, scenes: Scenes, budgets: Sequence[int | None]) -> dict:
    """All tasks: patch budget -> language -> numbers. Texts are encoded once for all budgets.

    Args:
        embedder: Of a model with regions.
        scenes: The set.
        budgets: Of patches; `[None]` for a family without budgets.
    """
    texts = {language: encode_language(embedder, scenes, language) for language in LANGUAGES}
    free = {
        language: encode_free_language(embedder, scenes, language, texts[language][0])
        for language in scenes.free_captions
    }
    results: dict = {}
    for budget in budgets:
        image_embeds = embedder.encode_images(scenes.images, max_num_patches=budget)
        by_scene = embedder.encode_regions(scenes.images, scenes.boxes, max_num_patches=budget)
        region_embeds = np.concatenate(by_scene)
        results[str(budget)] = {}
        for language, (captions, names, choices) in texts.items():
            ranks = ranks_among(region_embeds, names, scenes.columns)
            scores = np.einsum("rd,rkd->rk", region_embeds, choices)
            results[str(budget)][language] = {
                "captions": evaluate_captions(image_embeds, captions),
                "free_language": {
                    wording: evaluate_captions(image_embeds, embeds)
                    for wording, embeds in free.get(language, {}).items()
                },
                "box_names": recalls(ranks, scenes.scene_of, NAMING_KS),
                "hard_negatives": evaluate_choices(scores, scenes),
                "hard_negatives_by_text_tower_alone": evaluate_choices(
                    constant_image_scores(choices, region_embeds), scenes
                ),
            }
    return results


def encode_language(
    embedder: Embedder, scenes: Scenes, language: str
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Captions by length (N, D), all names (T, D) and the choices of each region (R, 1 + N, D)."""
    captions = {
        length: encode_once(embedder, [row[field] for row in scenes.records[language]], role)
        for length, (role, field) in CAPTIONS.items()
    }
    names = embedder.encode_texts(scenes.names[language], role="region_phrase")
    flat = [text for choices in scenes.choices[language] for text in choices]
    choices = encode_once(embedder, flat, "region_phrase").reshape(len(scenes.choices[language]), 1 + NEGATIVES, -1)
    return captions, names, choices


def encode_free_language(
    embedder: Embedder, scenes: Scenes, language: str, composed: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Wording -> head -> captions (N, D); first the captions as composed, of which `composed` has long and short."""
    long_captions = [row[CAPTIONS["long"][1]] for row in scenes.records[language]]
    wordings = scenes.free_captions[language].items()
    return {
        "composed": {**composed, "auto": embedder.encode_texts(long_captions)},
        **{wording: encode_by_heads(embedder, captions) for wording, captions in wordings},
    }


def log_test_run(options: argparse.Namespace, fingerprint: str) -> None:
    """The held-out artist is to be looked at once: say so when it is."""
    row = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "split": options.split,
        "scenes": options.scenes,
        "budgets": options.max_num_patches,
        "fingerprint": fingerprint,
    }
    with (Path(__file__).parent / "test_log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    return {
        "fgclip2": fgclip2.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def run(options: argparse.Namespace) -> dict:
    """Build or read the set, evaluate, and say what was evaluated."""
    started = time.perf_counter()
    table = load_concepts(options.cache)
    embedder = Embedder.from_pretrained(options.checkpoint)
    if options.split.startswith("test"):
        log_test_run(options, embedder.fingerprint)
    scene_set = build_scene_set(options.cache, table, options.split, options.scenes, options.seed)
    facts = scene_facts(options.cache, table, options.split, options.scenes, options.seed)
    grammar_split: GrammarSplit = "validation" if options.split == "validation" else "test"
    tokenizer = embedder.processor.tokenizer
    scenes = Scenes(scene_set, table, free_captions(facts, table, tokenizer, grammar_split, options.seed))
    scorers = train_text_scorers(options.cache, table, options.text_only_scenes, options.text_only_seed)
    controls = evaluate_controls(scenes, options.cache, table, scorers)
    prepared = time.perf_counter()
    model = evaluate_model(embedder, scenes, options.max_num_patches)
    return {
        "settings": {
            "split": options.split,
            "scenes": options.scenes,
            "regions": len(scenes.columns),
            "seed": options.seed,
            "set": scene_set.folder.name,
            "max_num_patches": options.max_num_patches,
            "text_only_scenes": options.text_only_scenes,
            "text_only_seed": options.text_only_seed,
        },
        "checkpoint": {"name": embedder.name, "fingerprint": embedder.fingerprint},
        "versions": versions(),
        "seconds": {
            "data_and_controls": round(prepared - started, 1),
            "model": round(time.perf_counter() - prepared, 1),
        },
        "controls": controls,
        "model": model,
    }


def main(arguments: list[str] | None = None) -> None:
    """Write `OUTPUT.json` and `OUTPUT.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder of the data (default: %(default)s)."
    )
    parser.add_argument("--checkpoint", type=Path, help="Folder of the checkpoint (default: the one in the package).")
    parser.add_argument("--split", choices=[s for s in SCENE_SPLITS if s != "train"], default="validation")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="Seed of the scenes.")
    parser.add_argument("--max-num-patches", type=int, nargs="+", default=[100], help="Patch budgets to evaluate at.")
    parser.add_argument(
        "--text-only-scenes", type=int, default=6000, help="Number of scenes that train the text-only classifier."
    )
    parser.add_argument("--text-only-seed", type=int, default=0, help="Seed of those scenes.")
    parser.add_argument("--output", type=Path, required=True, help="Path of the results, without extension.")
    options = parser.parse_args(arguments)
    results = run(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = markdown(results)
    options.output.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
