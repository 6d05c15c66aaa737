"""Second stage of the checkpoint that ships: composed scenes and the whole objective, without forgetting the first.

    python -m recipes.scenes.train

starts from the first stage's checkpoint, makes its scenes, trains, and writes the result to `--export`. A run that was
interrupted continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fgclip2.drawings.__main__ import main as build_data
from fgclip2.drawings.backgrounds import load_backgrounds
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.cutouts import load_training_cutouts
from fgclip2.drawings.sources import default_cache
from fgclip2.modeling.configuration_fgclip2 import FGClip2Config
from fgclip2.modeling.modeling_fgclip2 import FGClip2Model
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer
from fgclip2.training import FGClip2ForTraining

from ..embedded_checkpoint.batches import TrainingBatches
from ..embedded_checkpoint.drawings import background_pool, load_drawings
from ..embedded_checkpoint.export import export
from ..embedded_checkpoint.loop import run_training
from ..embedded_checkpoint.optimizer import build_optimizer
from ..embedded_checkpoint.texts import build_text_pool
from .batches import SceneBatches
from .pool import build_pool
from .settings import SceneSettings, lr_factor
from .trainee import CHECKPOINT, ROOT, SceneTrainee, check_checkpoint, load_start, proxies_of_names
from .validation import SceneValidation

WORK = ROOT / ".cache" / "scenes"
SMOKE = {
    "num_chunks": 1,
    "scenes_per_chunk": 60,
    "scenes_per_batch": 8,
    "concepts_per_batch": 16,
    "shared_concepts": 8,
    "region_images": 8,
    "hard_regions_per_batch": 8,
    "total_steps": 4,
    "eval_every": 2,
    "save_every": 2,
    "validation_scenes": 20,
}
NUM_BACKGROUNDS = 9000


def shipped_model(model: FGClip2ForTraining, start: FGClip2Model, start_share: float) -> FGClip2Model:
    """Return the model that ships: without the scales of training, and with a share of the first stage's weights.

    Weights between those before and after a fine-tuning forget less (Wortsman et al., Robust fine-tuning of zero-shot
    models, CVPR 2022).
    """
    config = FGClip2Config.from_dict(model.config.to_dict())
    config.text_config.dtype = config.vision_config.dtype = None  # loading had set what it loaded in
    shipped, trained, before = FGClip2Model(config), model.state_dict(), start.state_dict()
    for name, value in shipped.state_dict().items():
        between = torch.lerp(trained[name], before[name], start_share) if value.is_floating_point() else trained[name]
        value.copy_(between)
    return shipped


def build_batches(settings: SceneSettings, options: argparse.Namespace, tokenizer: FGClip2Tokenizer) -> SceneBatches:
    table = load_concepts(options.cache)
    pool = build_pool(options.pool, options.cache, settings, options.threads)
    drawings = load_drawings(table, load_training_cutouts(options.cache, table))
    photographs = load_backgrounds(options.cache, "train", permissive_only=True)
    count = 300 if options.smoke else NUM_BACKGROUNDS
    backgrounds = background_pool(photographs, count, np.random.default_rng(settings.seed))
    texts = build_text_pool(table, tokenizer)
    singles = TrainingBatches(settings.first_stage, drawings, backgrounds, texts, [], tokenizer)
    return SceneBatches(settings, singles, pool, tokenizer)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder of the data (default: %(default)s)."
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=CHECKPOINT, help="Checkpoint to start from (default: %(default)s)."
    )
    parser.add_argument(
        "--work", type=Path, default=WORK, help="Folder of checkpoints and logs (default: %(default)s)."
    )
    parser.add_argument("--pool", type=Path, help="Folder of training scenes (default: `pool` in `--work`).")
    parser.add_argument("--export", type=Path, help="Folder of the result (default: `export` in `--work`).")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="Run a few steps, which only show that everything works.")
    options = parser.parse_args(arguments)
    options.pool, options.export = options.pool or options.work / "pool", options.export or options.work / "export"
    options.work.mkdir(parents=True, exist_ok=True)
    settings = replace(SceneSettings(), **SMOKE) if options.smoke else SceneSettings()
    (options.work / "settings.json").write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
    torch.set_num_threads(options.threads)
    torch.manual_seed(settings.seed)

    check_checkpoint(options.checkpoint)
    build_data(["--cache", str(options.cache), "--skip-described"])
    tokenizer = FGClip2Tokenizer.from_pretrained(options.checkpoint)
    batches = build_batches(settings, options, tokenizer)
    start = FGClip2Model.from_pretrained(options.checkpoint, dtype=torch.float32)
    model = load_start(options.checkpoint, settings.region_scale)
    trainee = SceneTrainee(model, proxies_of_names(model, tokenizer, load_concepts(options.cache)), settings)
    run_training(
        trainee,
        batches,
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
