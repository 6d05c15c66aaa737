"""Spend the same compute on the dual encoder: train it further, with captions alone."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from fgclip2.assets import embedded_checkpoint
from fgclip2.data.records import RecordDataset
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor
from fgclip2.training import FGClip2ForTraining

from ..scenes.experiments import LossLog, make_trainer
from .tokens import PATCHES

CAPTIONS_ALONE = {"region_weight": 0.0, "tic_weight": 0.0, "hard_negative_weight": 0.0}
MEASURED_STEPS = 6  # by which the seconds of a step are known


def train_dual_encoder(records: RecordDataset, settings: dict, options: argparse.Namespace) -> tuple[Any, dict]:
    """Train the embedded checkpoint further, and return it with what is kept of the run.

    Args:
        records: To train on.
        settings: `seed`, `steps`, `learning_rate` and `batch_size`.
        options: `work`, a folder.
    """
    checkpoint = embedded_checkpoint()
    # Eager attention, for with so few patches the fused kernels' backward pass is slower on a CPU.
    model = FGClip2ForTraining.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    run = {**settings, "objective": CAPTIONS_ALONE, "max_regions": 1, "max_num_patches": PATCHES}
    trainer = make_trainer(model, FGClip2Processor.from_pretrained(checkpoint), records, run, options)
    log = LossLog()
    trainer.add_callback(log)
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return trainer.model.eval(), {
        "settings": run,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "losses": log.rows,
    }


def steps_of(seconds: float, records: RecordDataset, settings: dict, options: argparse.Namespace) -> int:
    """Return how many steps take so many seconds of CPU."""
    _, result = train_dual_encoder(records, {**settings, "steps": MEASURED_STEPS}, options)
    return max(1, round(seconds * MEASURED_STEPS / result["seconds"]["cpu"]))
