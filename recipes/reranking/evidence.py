"""Measure re-ranking by phrases on test scenes, whose captions in free language no setting was chosen by.

    python -m recipes.reranking.evidence --output recipes/reranking/results

Writes `evidence.json` and `evidence.md`, and logs the run in `recipes/scenes/test_log.jsonl`. Vectors and dense maps of
the scenes are kept in `.cache/reranking`. Composed captions in both directions, and people's descriptions of
photographs, are measured by `fgclip2 bench run bundled --rerank phrases`.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from fgclip2 import FGClip2Embedder
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import build_scene_set
from fgclip2.languages import LANGUAGES

from ..scenes.evaluate import log_test_run
from ..scenes.free_language import free_captions, scene_facts
from .ablation import PATCHES, SCENES, SEED, Ablation, CachedScenes, Setting, parse_options

SPLIT = "test"
COLUMNS = ("before, recall@1", "before, recall@20", "after, recall@1")


def texts_of_scenes(options: argparse.Namespace, embedder: FGClip2Embedder) -> dict[str, dict[str, list[str]]]:
    """Return kind -> language -> a caption for each scene: as composed, and long ones in free language."""
    table = load_concepts(options.cache)
    records = build_scene_set(options.cache, table, SPLIT, options.scenes, SEED).records
    facts = scene_facts(options.cache, table, SPLIT, options.scenes, SEED)
    free = free_captions(facts, table, embedder.processor.tokenizer, "test", SEED)
    texts = {
        kind: {language: [record[field] for record in records[language]] for language in LANGUAGES}
        for kind, field in (("long", "caption"), ("short", "short_caption"))
    }
    for wording in free["en"]:
        texts[wording] = {language: free[language][wording]["long"] for language in LANGUAGES}
    return texts


def measure(ablation: Ablation, kind: str, language: str) -> dict[str, float]:
    """Return what `COLUMNS` names, text to image, in percent."""
    rows = ablation.nearest[kind, language][1]
    found = rows == np.arange(len(rows))[:, None]
    setting = Setting()
    values = (found[:, 0].mean(), found[:, : setting.candidates].any(axis=1).mean())
    return dict(
        zip(COLUMNS, [*(100 * float(value) for value in values), ablation.recall(setting, kind, language)], strict=True)
    )


def markdown(results: dict[str, dict[str, float]], count: int) -> str:
    """Return the table."""
    lines = [
        f"Text to image in percent: {count} captions among as many **test** scenes, embedded checkpoint, "
        f"{Setting().candidates} candidates, the package's settings. `long` and `short` as composed; `other_orders`",
        "and `other_words` by test patterns and test words (`recipes/scenes/language`).",
        "",
        "| captions | " + " | ".join(COLUMNS) + " | gain |",
        "|---" * (2 + len(COLUMNS)) + "|",
    ]
    for name, values in results.items():
        cells = [*values.values(), values[COLUMNS[2]] - values[COLUMNS[0]]]
        lines.append(f"| {name} | " + " | ".join(f"{value:.1f}" for value in cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(__doc__, SCENES, arguments)
    options.split, options.max_num_patches = SPLIT, [PATCHES]
    embedder = FGClip2Embedder.from_pretrained(device="cpu")
    log_test_run(options, embedder.fingerprint)
    scene_set = build_scene_set(options.cache, load_concepts(options.cache), SPLIT, options.scenes, SEED)
    scenes = CachedScenes(embedder, scene_set, options.maps, options.scenes)
    ablation = Ablation(scenes, texts_of_scenes(options, embedder))
    results = {}
    for kind in ablation.texts:
        for language in LANGUAGES:
            results[f"{kind} {language}"] = measure(ablation, kind, language)
            print(json.dumps({f"{kind} {language}": results[f"{kind} {language}"]}), flush=True)
    content = {
        "split": SPLIT,
        "scenes": options.scenes,
        "seed": SEED,
        "max_num_patches": PATCHES,
        "setting": Setting().__dict__,
        "fingerprint": embedder.fingerprint,
        "results": results,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    (options.output / "evidence.json").write_text(text, encoding="utf-8")
    (options.output / "evidence.md").write_text(markdown(results, options.scenes), encoding="utf-8")


if __name__ == "__main__":
    main()
