"""Checkpoints of a run: which one to go on from."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

logger = logging.getLogger(__name__)


def last_checkpoint(output_dir: str | Path) -> str | None:
    """The newest `checkpoint-N` in a folder that was written to its end, or `None`.

    A run may die while it writes one. `trainer_state.json` is written last, when every rank has written its part.
    """
    found = []
    for folder in Path(output_dir).glob("checkpoint-*"):
        step = re.fullmatch(r"checkpoint-(\d+)", folder.name)
        if step and _is_complete(folder):
            found.append((int(step[1]), str(folder)))
    return max(found)[1] if found else None


def _is_complete(folder: Path) -> bool:
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        logger.warning("%s was not written to its end; it is passed over", folder)
        return False
    return True


def check_resumable(checkpoint: Path) -> None:
    """Make sure that a run can go on from there.

    Raises:
        ValueError: The folder has weights only.
    """
    if not (checkpoint / "scheduler.pt").exists() and not list(
        checkpoint.glob("global_step*")
    ):  # the latter DeepSpeed's
        raise ValueError(
            f"{checkpoint} has no optimizer to go on with (save_only_model=True, or no checkpoint of a run); allowed: "
            "to start a new run with its weights as the model"
        )
