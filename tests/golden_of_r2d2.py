"""Golden data of R2D2, with the tolerances of their README."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from fgclip2 import R2D2Config, R2D2Model

GOLDEN_R2D2 = Path(__file__).parent / "golden_r2d2"

EMBEDDINGS = {"rtol": 0, "atol": 2e-6}
TOKENS = {"rtol": 0, "atol": 3e-5}
LOSSES = {"rtol": 0, "atol": 3e-6}


def tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN_R2D2 / f"{name}.safetensors")


def results() -> dict:
    return json.loads((GOLDEN_R2D2 / "results.json").read_text(encoding="utf-8"))


def config(**changes) -> R2D2Config:
    """Sizes of the tiny checkpoint."""
    sizes = json.loads((GOLDEN_R2D2 / "config.json").read_text())
    towers = {f"{part}_config": sizes[part] for part in ("vision", "text", "cross")}
    return R2D2Config(**{**towers, "embed_dim": sizes["embed_dim"], "max_length": sizes["max_length"], **changes})


def weights() -> dict[str, torch.Tensor]:
    """What a released checkpoint has under "model", the buffers of older transformers included."""
    return tensors("model")


def model(kind: type = R2D2Model) -> R2D2Model:
    """The tiny checkpoint, as new."""
    loaded = kind(config())
    loaded.load_state_dict({name: value for name, value in weights().items() if not name.endswith("position_ids")})
    return loaded.eval()
