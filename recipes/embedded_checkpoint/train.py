"""First stage of the small bilingual checkpoint that ships in the package; the second is `recipes/scenes/train.py`.

    python -m recipes.embedded_checkpoint.train

fetches and builds the data (`python -m fgclip2.drawings`), trains, and writes the checkpoint to `--export`. A run that
was interrupted continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fgclip2.drawings.__main__ import main as build_data
from fgclip2.drawings.backgrounds import load_backgrounds
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.cutouts import load_training_cutouts
from fgclip2.drawings.sources import default_cache
from fgclip2.modeling.configuration_fgclip2 import FGClip2Config
from fgclip2.modeling.modeling_fgclip2 import FGClip2EncoderLayer, FGClip2Model, FGClip2PoolingHead
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

from .batches import TrainingBatches
from .drawings import background_pool, load_drawings
from .export import export
from .loop import run_training
from .losses import Trainee
from .optimizer import build_optimizer
from .scenes import build_scenes
from .settings import Settings, lr_factor
from .texts import build_text_pool, build_tokenizer
from .validation import validate

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".cache" / "embedded_checkpoint"
EXPORT = WORK / "export"  # where the second stage, recipes/scenes, begins
WHITENING_EPSILON = 0.02
SMOKE_STEPS = {"scenes_from": 3, "decay_from": 6, "total_steps": 12}
SMOKE_SAVES = {"eval_every": 6, "save_every": 6}
SMOKE_DATA = {"num_scenes": 60, "num_backgrounds": 300}


def build_model(settings: Settings, vocab_size: int, pictures: torch.Tensor) -> FGClip2Model:
    """A model whose patch embedding whitens the patches of `pictures` (B, 3, H, W), its branches starting at zero."""
    text = {
        "vocab_size": vocab_size,
        "hidden_size": settings.text_width,
        "intermediate_size": 4 * settings.text_width,
        "num_hidden_layers": settings.text_layers,
        "num_attention_heads": settings.text_heads,
        "projection_size": settings.vision_width,
    }
    vision = {
        "hidden_size": settings.vision_width,
        "intermediate_size": 4 * settings.vision_width,
        "num_hidden_layers": settings.vision_layers,
        "num_attention_heads": settings.vision_heads,
        "num_patches": settings.position_grid**2,
    }
    config = FGClip2Config(text_config=text, vision_config=vision)
    # Eager: with so few patches the fused kernels' backward pass is slower on a CPU.
    model = FGClip2Model._from_config(config, attn_implementation="eager")
    whiten_patch_embedding(model.vision_model.embeddings.patch_embedding, pictures, config.vision_config.patch_size)
    for module in model.modules():
        if isinstance(module, FGClip2EncoderLayer):
            nn.init.zeros_(module.self_attn.out_proj.weight)
            nn.init.zeros_(module.mlp.fc2.weight)
        elif isinstance(module, FGClip2PoolingHead):
            nn.init.zeros_(module.mlp.fc2.weight)
    nn.init.normal_(model.vision_model.embeddings.position_embedding.weight, std=0.02)
    return model


@torch.no_grad()
def whiten_patch_embedding(layer: nn.Linear, pictures: torch.Tensor, patch: int) -> None:
    """Set a patch embedding to the whitened principal components of real patches."""
    patches = pictures.unfold(2, patch, patch).unfold(3, patch, patch)  # (B, 3, h, w, p, p)
    patches = patches.permute(0, 2, 3, 4, 5, 1).flatten(0, 2).flatten(1)  # (B h w, p p 3)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    top = vectors[:, -layer.out_features :] / (values[-layer.out_features :] + WHITENING_EPSILON).sqrt()
    layer.weight.copy_(top.T)
    layer.bias.copy_(-top.T @ mean)


def prepare_tokenizer(settings: Settings, options: argparse.Namespace, table, scenes) -> FGClip2Tokenizer:
    folder = options.work / "tokenizer"
    if not folder.exists():
        sentences = [caption for scene in scenes[:2000] for caption in scene.captions]
        build_tokenizer(table, sentences, settings.vocab_size).save_pretrained(folder)
    return FGClip2Tokenizer.from_pretrained(folder)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder of the data (default: %(default)s)."
    )
    parser.add_argument(
        "--work", type=Path, default=WORK, help="Folder of checkpoints and logs (default: %(default)s)."
    )
    parser.add_argument("--export", type=Path, default=EXPORT, help="Folder of the result (default: %(default)s).")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--smoke", action="store_true", help="Run for a minute, which only shows that everything works."
    )
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    settings = replace(Settings(), **SMOKE_STEPS, **SMOKE_SAVES, **SMOKE_DATA) if options.smoke else Settings()
    (options.work / "settings.json").write_text(json.dumps(asdict(settings), indent=1))
    torch.set_num_threads(options.threads)
    torch.manual_seed(settings.seed)

    build_data(["--cache", str(options.cache), "--skip-described"])
    table = load_concepts(options.cache)
    scenes = build_scenes(options.cache, table, settings.num_scenes, settings.seed)
    tokenizer = prepare_tokenizer(settings, options, table, scenes)
    drawings = load_drawings(table, load_training_cutouts(options.cache, table))
    photographs = load_backgrounds(options.cache, "train", permissive_only=True)
    backgrounds = background_pool(photographs, settings.num_backgrounds, np.random.default_rng(settings.seed))
    batches = TrainingBatches(settings, drawings, backgrounds, build_text_pool(table, tokenizer), scenes, tokenizer)
    pictures = torch.cat([batches.batch(step)["pixels"] for step in range(4)])
    model = build_model(settings, len(tokenizer), pictures)
    trainee = Trainee(model, len(table.train_ids), settings.loss_weights, settings.region_images)
    optimizer = build_optimizer(trainee, settings.muon_lr, settings.adam_lr, settings.weight_decay)
    run_training(
        trainee,
        batches,
        optimizer,
        partial(lr_factor, settings),
        settings,
        options.work,
        measure=lambda average: validate(average, FGClip2Processor(None, tokenizer), options.cache),
        write=lambda average: export(average, tokenizer, options.export, settings.export_patches),
    )


if __name__ == "__main__":
    main()
