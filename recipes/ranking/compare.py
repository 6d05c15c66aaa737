"""A ranking stage for the embedded checkpoint, beside re-ranking by phrases, more training, and shuffled images.

    python -m recipes.ranking.compare --output recipes/ranking/results          # on validation scenes
    python -m recipes.ranking.compare --output recipes/ranking/results --test   # once, when everything is chosen

The towers are frozen. Arms: the stage; the stage trained with the patches of other scenes, which can learn from texts
alone; and the same seconds of CPU spent on the dual encoder's own training. Runs that have no result file yet are run
one after another, so the command may be stopped and started again. Weights of runs are kept in `--work`, and so are the
towers' tokens of all scenes and texts. `validation.md` and `test.md` have what there is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, load_model, save_file, save_model

from fgclip2 import FGClip2Embedder, FGClip2Model
from fgclip2.assets import embedded_checkpoint
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import SceneSet, build_scene_set
from fgclip2.drawings.sources import default_cache
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.modeling_matching_fgclip2 import FGClip2ForImageTextMatching

from ..reranking.ablation import CachedScenes
from ..scenes.evaluate import log_test_run
from ..scenes.experiments import TRAIN_SEED, stored, training_records, write_whole
from .dual import steps_of, train_dual_encoder
from .evaluation import Queries, digits, hard_negatives, phrase_means, phrase_scores, queries, rankings, stage_logits
from .report import table
from .stage import StageSettings, train_stage
from .tokens import CAPTIONS, PATCHES, SceneTokens, measured_texts, scene_tokens

ROOT = Path(__file__).parents[2]
SEED = 1  # of validation and test scenes, as in recipes/scenes
ARMS = ("stage", "shuffled images", "dual encoder")
TRAINING_NEGATIVES, MEASURED_NEGATIVES = 5, 10  # false phrases of a region
RATES = (1e-4, 3e-4)  # of the dual encoder's further training


class Measured:
    """The scenes of a split, measured by the dual encoder and by phrases."""

    def __init__(self, comparison: Comparison, split: str):
        self.comparison, self.split, self.options = comparison, split, comparison.options
        self.set: SceneSet = build_scene_set(
            self.options.cache, comparison.table, split, self.options.measured_scenes, SEED  # type: ignore[arg-type]
        )
        regions = min(self.options.region_scenes, len(self.set))
        self.tokens = comparison.tokens(self.set, split, SEED, regions, MEASURED_NEGATIVES)
        self.queries = list(queries(self.tokens, self.options.captions))

    @cached_property
    def cached(self) -> CachedScenes:
        return CachedScenes(self.comparison.embedder, self.set, self.options.work, len(self.set))

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """Return name of queries -> their captions."""
        return measured_texts(self.comparison, self.set, self.split, SEED)
