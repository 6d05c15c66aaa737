"""Where the first stage is: its recipe, whose modules this one imports, and its checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / ".cache" / "embedded_checkpoint" / "export"

sys.path.append(str(ROOT / "recipes" / "embedded_checkpoint"))


def check_checkpoint(folder: Path) -> Path:
    """Give the folder back, or say how to make it."""
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder} has no model.safetensors; run: python recipes/embedded_checkpoint/train.py")
    return folder
