"""Third stage of the checkpoint that ships: the text tower learns free wording; images keep their vectors.

    python -m recipes.scenes.train_language

starts from the scene stage's checkpoint and its scenes, embeds these once, trains the text tower, and writes the result
to `--export`. A run that was interrupted continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from fgclip2.drawings.__main__ import main as build_data
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.sources import default_cache
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.modeling_fgclip2 import FGClip2Model
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

from ..embedded_checkpoint.export import export
from ..embedded_checkpoint.loop import run_training
from ..embedded_checkpoint.optimizer import build_optimizer
from ..embedded_checkpoint.texts import texts_by_kind
from .language_stage import LanguageBatches, LanguageTrainee, locked_embeddings, training_grammars
from .pool import build_pool
from .settings import LanguageSettings, SceneSettings, lr_factor
from .train import shipped_model
from .trainee import ROOT, check_checkpoint, load_start
from .validation import SceneValidation

WORK = ROOT / ".cache" / "language"
START = ROOT / ".cache" / "scenes"
LABELS = ("name", "template", "keyword")  # kinds of texts whose embeddings are kept
SMOKE = {
    "num_chunks": 1,
    "scenes_per_batch": 8,
    "hard_regions_per_batch": 8,
    "labels_per_batch": 8,
    "total_steps": 4,
    "eval_every": 2,
    "save_every": 2,
    "validation_scenes": 20,
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder of the data (default: %(default)s)."
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=START / "export", help="Checkpoint to start from (default: %(default)s)."
    )
    parser.add_argument(
        "--work", type=Path, help=f"Folder of checkpoints and logs (default: {WORK}, `smoke` in it with `--smoke`)."
    )
    parser.add_argument(
        "--pool",
        type=Path,
        help=f"Folder of training scenes (default: {START / 'pool'}, `pool` in `--work` with `--smoke`).",
    )
    parser.add_argument("--export", type=Path, help="Folder of the result (default: `export` in `--work`).")
    parser.add_argument(
        "--start-share",
        type=float,
        default=LanguageSettings().start_share,
        help="Share of the start's weights in the result (default: %(default)s); a complete run is only exported.",
    )
    parser.add_argument("--threads", type=int, default=2, help="Number of threads (default: %(default)s).")
    parser.add_argument("--smoke", action="store_true", help="Run a few steps, which only show that everything works.")
    options = parser.parse_args(arguments)
    options.work = options.work or (WORK / "smoke" if options.smoke else WORK)
    options.pool = options.pool or (options.work if options.smoke else START) / "pool"
    options.export = options.export or options.work / "export"
    options.work.mkdir(parents=True, exist_ok=True)
    settings = replace(LanguageSettings(), start_share=options.start_share, **(SMOKE if options.smoke else {}))
    (options.work / "settings.json").write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
    torch.set_num_threads(options.threads)
    torch.manual_seed(settings.seed)

    check_checkpoint(options.checkpoint)
    build_data(["--cache", str(options.cache), "--skip-described"])
    tokenizer = FGClip2Tokenizer.from_pretrained(options.checkpoint, max_caption_tokens=settings.max_caption_tokens)
    table = load_concepts(options.cache)
    scenes = replace(SceneSettings(), num_chunks=settings.num_chunks)
    if options.smoke:
        scenes = replace(scenes, scenes_per_chunk=60)
    pool = build_pool(options.pool, options.cache, scenes, options.threads)
    by_kind = texts_by_kind(table)
    labels = [by_kind[kind][language] for kind in LABELS for language in LANGUAGES]
    unique = dict.fromkeys(text for of_concepts in labels for texts in of_concepts for text in texts)
    label_ids = tokenizer(list(unique), return_tensors="pt")["input_ids"]
    model = load_start(options.checkpoint, settings.region_scale)
    model.set_attn_implementation("sdpa")  # faster than eager attention for 196 tokens
    locked = locked_embeddings(options.work, model, tokenizer, pool, label_ids)
    trainee = LanguageTrainee(model, settings)
    start = FGClip2Model.from_pretrained(options.checkpoint, dtype=torch.float32)
    run_training(
        trainee,
        LanguageBatches(settings, pool, locked, label_ids, tokenizer, training_grammars(table, tokenizer, settings)),
        build_optimizer(trainee, settings.muon_lr, settings.adam_lr, settings.weight_decay),
        partial(lr_factor, settings),
        settings,
        options.work,
        measure=SceneValidation(options.cache, FGClip2Processor(None, tokenizer), settings.validation_scenes),
        write=lambda average: export(
            shipped_model(average, start, settings.start_share), tokenizer, options.export, settings.export_patches
        ),
    )


if __name__ == "__main__":
    main()
