"""Golden data of FG-CLIP, the first version, with the tolerances of their README."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

GOLDEN_V1 = Path(__file__).parent / "golden_v1"

FEATURES = {"rtol": 1e-4, "atol": 2e-5}
DENSE = {"rtol": 1e-4, "atol": 5e-5}
LOGITS = {"rtol": 1e-5, "atol": 2e-5}
TABLES = {"rtol": 1e-6, "atol": 1e-6}

# How the golden data name a walk -> the arguments of the official code.
OFFICIAL_ARGUMENTS = {
    "short": {"walk_short_pos": True},
    "long": {"walk_short_pos": False},
    "box": {"walk_short_pos": True, "use_bbox": True},
    "shortpos_longhead": {"walk_short_pos": False, "use_bbox": True},
}


def inputs() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN_V1 / "inputs.safetensors")


def outputs() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN_V1 / "outputs_inference.safetensors")


def settings() -> dict:
    return json.loads((GOLDEN_V1 / "inference.json").read_text())


def tokenizer_rows() -> list[dict]:
    return json.loads((GOLDEN_V1 / "tokenizer_ids.json").read_text(encoding="utf-8"))["rows"]
