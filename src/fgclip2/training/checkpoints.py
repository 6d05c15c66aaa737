"""Checkpoints of a run: which one to go on from."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ..files import read_json

logger = logging.getLogger(__name__)


def last_checkpoint(output_dir: str | Path) -> str | None:
    """Return the newest `checkpoint-N` in a folder that was written to its end, or `None`.

    A run may die while it writes one. `trainer_state.json` is written last, when every rank has written its part.
    """
    found = []
    for folder in Path(output_dir).glob("checkpoint-*"):
        if step := re.fullmatch(r"checkpoint-(\d+)", folder.name):
            try:
                read_json(folder / "trainer_state.json")
                found.append((int(step[1]), str(folder)))
            except (OSError, ValueError):
                logger.warning("%s was not written to its end; it is passed over", folder)
    return max(found)[1] if found else None


def check_resumable(checkpoint: Path) -> None:
    """Make sure that a run can go on from there.

    Raises:
        ValueError: The folder has weights only.
    """
    by_deepspeed = any(checkpoint.glob("global_step*"))
    if not by_deepspeed and not (checkpoint / "scheduler.pt").exists():
        raise ValueError(
            f"{checkpoint} has no optimizer to go on with (save_only_model=True, or no checkpoint of a run): start a "
            "new run with its weights as the model"
        )
