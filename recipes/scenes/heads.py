"""Which head should read a caption? By its length, by both heads at once, or by the better of the two.

    python -m recipes.scenes.heads --output recipes/scenes/results/heads

Measures captions of 5 to 190 tokens of validation scenes: the composed ones, short and long, and free ones of one to
all objects, by patterns and synonyms of the validation split; and the names of single drawings (the photo protocol).
Text to image, recall@1, by the number of tokens. Writes `OUTPUT.json` and `OUTPUT.md`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fgclip2 import Embedder
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import build_scene_set
from fgclip2.drawings.sources import default_cache
from fgclip2.languages import LANGUAGES

from ..embedded_checkpoint.validation import name_similarities
from .free_language import scene_facts
from .grammar import LONG_TOKENS, SHORT_TOKENS, build_grammars
from .report import table as markdown_table

SEED = 1  # of the scenes, as `evaluate.py` has it
FREE_CAPTIONS = 2  # of each scene
SCENE_PATCHES, PHOTO_PATCHES = 100, 36
BINS = (8, 12, 16, 24, 32, 48, 64, 196)  # upper bounds of the numbers of tokens
THRESHOLDS = (0, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64)

# (short, long) cosines (texts, images) and tokens (texts,) -> scores (texts, images)
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def by_length(threshold: int) -> Rule:
    """Return the rule that gives texts of up to `threshold` tokens to the head of short captions."""
    return lambda short, long, tokens: np.where(tokens[:, None] <= threshold, short, long)


def mean_of_cosines(short: np.ndarray, long: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Take the mean of both heads where a text fits both."""
    return np.where(tokens[:, None] <= SHORT_TOKENS, (short + long) / 2, long)


def better_of_two(short: np.ndarray, long: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Take the higher of both cosines, each in standard deviations from its mean over the images."""
    either = np.maximum(standardized(short), standardized(long))
    return np.where(tokens[:, None] <= SHORT_TOKENS, either, standardized(long))


def standardized(cosines: np.ndarray) -> np.ndarray:
    """Return each row with mean 0 and standard deviation 1."""
    return (cosines - cosines.mean(1, keepdims=True)) / cosines.std(1, keepdims=True)


RULES: dict[str, Rule] = {
    **{f"short up to {threshold} tokens": by_length(threshold) for threshold in THRESHOLDS},
    "mean of both": mean_of_cosines,
    "better of both": better_of_two,
}


def validation_captions(cache: Path, count: int, tokenizer) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return for each language captions of the first scenes, and the scene of each."""
    table = load_concepts(cache)
    records = build_scene_set(cache, table, "validation", count, SEED).records
    facts = scene_facts(cache, table, "validation", count, SEED)
    grammars = build_grammars(table, tokenizer, "validation", synonym_share=0.5, whole_share=0.3)
    captions = {}
    for language in LANGUAGES:
        rng = np.random.default_rng(SEED)
        texts = [row[field] for field in ("short_caption", "caption") for row in records[language]]
        for _ in range(FREE_CAPTIONS):
            texts += [grammars[language].caption(one, rng, LONG_TOKENS) for one in facts]
        captions[language] = texts, np.tile(np.arange(count), 2 + FREE_CAPTIONS)
    return captions


def measure(embedder: Embedder, cache: Path, count: int) -> dict:
    """Return recall@1 in percent by language, rule and number of tokens, and that of names by each head."""
    table = load_concepts(cache)
    scenes = build_scene_set(cache, table, "validation", count, SEED)
    images = [scenes.image(index) for index in range(count)]
    image_embeds = embedder.encode_images(images, max_num_patches=SCENE_PATCHES)
    results: dict = {"scenes": count, "captions": {}, "names": {}}
    for language, (texts, scene_of) in validation_captions(cache, count, embedder.processor.tokenizer).items():
        tokens = np.array(embedder.processor.count_tokens(texts))
        short, long = (embedder.encode_texts(texts, role=role) @ image_embeds.T for role in ("caption", "long_caption"))
        bins = np.digitize(tokens, BINS, right=True)
        of_rules = {}
        for name, rule in RULES.items():
            scores = rule(short, long, tokens)
            own = scores[np.arange(len(scores)), scene_of][:, None]
            found = (scores >= own).sum(1) == 1  # ties are lost
            by_bin = {str(BINS[b]): round(100 * float(found[bins == b].mean()), 1) for b in np.unique(bins)}
            of_rules[name] = {**by_bin, "mean of lengths": round(float(np.mean(list(by_bin.values()))), 2)}
        counts = {str(BINS[b]): int((bins == b).sum()) for b in np.unique(bins)}
        results["captions"][language] = {"counts": counts, "recall@1": of_rules}
    for role in ("caption", "long_caption"):
        similarities = name_similarities(embedder, cache, PHOTO_PATCHES, role)
        results["names"][role] = {
            language: round(100 * float((scores.argmax(1) == correct).mean()), 1)
            for language, (scores, correct) in similarities.items()
        }
    return results


def markdown(results: dict) -> str:
    """Return the tables of both languages, and that of names."""
    parts = [
        f"Recall@1 in percent, text to image among {results['scenes']} validation scenes, by the number of tokens."
    ]
    for language, of_language in results["captions"].items():
        counts = of_language["counts"]
        header = [language, *(f"up to {length} ({count})" for length, count in counts.items()), "mean of lengths"]
        rows = [[name, *map(str, row.values())] for name, row in of_language["recall@1"].items()]
        parts.append(markdown_table(header, rows))
    names = [[role, *map(str, row.values())] for role, row in results["names"].items()]
    parts.append(
        "Names of single drawings, picture to text among 837 names:\n\n" + markdown_table(["head", *LANGUAGES], names)
    )
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `OUTPUT.json` and `OUTPUT.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder of the data (default: %(default)s)."
    )
    parser.add_argument("--checkpoint", type=Path, help="Folder of the checkpoint (default: the one in the package).")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--output", type=Path, required=True, help="Path of the results, without extension.")
    options = parser.parse_args(arguments)
    results = measure(Embedder.from_pretrained(options.checkpoint), options.cache, options.scenes)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = markdown(results)
    options.output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
