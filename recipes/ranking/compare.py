"""A ranking stage for the embedded checkpoint, beside re-ranking by phrases, more training, and shuffled images.

    python -m recipes.ranking.compare --output recipes/ranking/results          # on validation scenes
    python -m recipes.ranking.compare --output recipes/ranking/results --test   # once, when everything is chosen

The towers are frozen. Arms: the stage; the stage trained with the patches of other scenes, which can learn from texts
alone; and the same seconds of CPU spent on the dual encoder's own training. Runs that have no result file yet are run
one after another, so the command may be stopped and started again. `--work` has the towers' tokens of all scenes and
texts, and the weights of the runs. `validation.md` and `test.md` have what there is.
"""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model

from fgclip2 import FGClip2Embedder
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import SceneSet, build_scene_set
from fgclip2.modeling.modeling_matching_fgclip2 import FGClip2ForImageTextMatching
from fgclip2.training import FGClip2ForTraining

from ..scenes.evaluate import log_test_run
from ..scenes.experiments import TRAIN_SEED, add_options, stored, training_records, write_whole
from .dual import steps_of, train_dual_encoder
from .evaluation import Measured
from .report import table
from .stage import StageSettings, train_stage
from .tokens import PATCHES, scene_tokens

ROOT = Path(__file__).parents[2]
ARMS = ("stage", "shuffled", "dual")
FALSE_PHRASES = 5  # of a training region


class Comparison:
    """Runs what has no result file yet.

    Args:
        options: Of the command.
    """

    def __init__(self, options: argparse.Namespace):
        self.options, self.table = options, load_concepts(options.cache)
        self.embedder = FGClip2Embedder.from_pretrained(device="cpu")
        self.split = "test" if options.test else "validation"
        self.settings = StageSettings(steps=options.steps, bf16=options.bf16)

    @cached_property
    def training_set(self) -> SceneSet:
        return build_scene_set(self.options.cache, self.table, "train", self.options.scenes, TRAIN_SEED)

    @cached_property
    def measured(self) -> Measured:
        options = self.options
        sizes = (options.validation_scenes, options.captions, options.region_scenes)
        return Measured(self.embedder, self.table, options.cache, options.work, self.split, *sizes, options.bf16)

    def baselines(self) -> dict:
        """Return what needs no training."""
        return stored(
            self.options.output / f"{self.split}.json", lambda: {"hits": self.measured.hits_without_training()}
        )

    def run(self, arm: str, seed: int) -> dict:
        """Return what is kept of a run, after it if it has no result file; its weights are saved."""

        def trained() -> dict:
            model, result = self._train(arm, seed)
            self.options.work.mkdir(parents=True, exist_ok=True)
            save_model(model, str(self._weights(arm, seed)))
            return {"arm": arm, "seed": seed, **result}

        return stored(self.options.output / f"{arm}-seed-{seed}.json", trained)

    def measure(self, arm: str, seed: int) -> dict:
        """Return what a run that was trained before finds among the scenes of the split."""

        def measured() -> dict:
            model = FGClip2ForTraining(self.embedder.model.config).eval() if arm == "dual" else self._fresh_model(seed)
            load_model(model, str(self._weights(arm, seed)))
            return {"arm": arm, "seed": seed, "hits": self._hits(arm, model)}

        return stored(self.options.output / f"{self.split}-{arm}-seed-{seed}.json", measured)

    def _hits(self, arm: str, model: Any) -> dict:
        return self.measured.hits_of_dual_encoder(model) if arm == "dual" else self.measured.hits_of_stage(model)

    def _weights(self, arm: str, seed: int) -> Path:
        return self.options.work / f"{arm}-seed-{seed}.safetensors"

    def _fresh_model(self, seed: int) -> FGClip2ForImageTextMatching:
        torch.manual_seed(seed)
        model = FGClip2ForImageTextMatching.from_dual_encoder(self.embedder.model, self.settings.cross_config)
        model.set_attn_implementation("eager")  # for short sequences the fused kernels are slower on a CPU
        return model

    def _train(self, arm: str, seed: int) -> tuple[Any, dict]:
        options = self.options
        if arm == "dual":
            seconds = self.run("stage", options.seeds[0])["seconds"]["cpu"]
            records = training_records(self.training_set)
            settings = {"seed": seed, "learning_rate": options.rate, "batch_size": options.batch_size, "steps": 0}
            settings["steps"] = stored(
                options.output / "dual-steps.json", lambda: steps_of(seconds, records, settings, options)
            )
            return train_dual_encoder(records, settings, options)
        count = len(self.training_set)
        arguments = (self.training_set, "train", TRAIN_SEED, count, count, FALSE_PHRASES)
        tokens = scene_tokens(options.work, options.cache, self.table, self.embedder, *arguments)
        model = self._fresh_model(seed)
        return model, train_stage(model, tokens, self.settings, seed, shuffled=arm == "shuffled")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, ROOT / ".cache" / "ranking")
    parser.add_argument("--test", action="store_true", help="Measure the runs on test scenes, which is logged.")
    parser.add_argument("--steps", type=int, default=StageSettings().steps, help="Steps of the stage.")
    parser.add_argument("--rate", type=float, default=1e-4, help="Peak learning rate of the dual encoder.")
    parser.add_argument("--captions", type=int, default=300, help="Scenes that are searched for.")
    parser.add_argument("--region-scenes", type=int, default=100, help="Scenes whose hard negatives are told apart.")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    comparison = Comparison(options)
    runs = [(arm, seed) for seed in options.seeds for arm in ARMS]
    if options.test:
        options.split, options.max_num_patches = "test", [PATCHES]
        log_test_run(options, comparison.embedder.fingerprint)
    else:
        for arm, seed in runs:
            comparison.run(arm, seed)
    comparison.baselines()
    for arm, seed in runs:
        comparison.measure(arm, seed)
        write_whole(options.output / f"{comparison.split}.md", table(options.output, comparison.split))
    print((options.output / f"{comparison.split}.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
