"""Golden data of R2D2, with the tolerances of their README."""

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from fgclip2 import Embedder, R2D2Config, R2D2ImageProcessor, R2D2Model, R2D2Processor, R2D2Tokenizer

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


def embedder() -> Embedder:
    """The tiny checkpoint; it sees the golden pixels of image N where the first pixel's red is N."""
    pixels = tensors("inputs")["pixel_values"].numpy()
    tokenizer = R2D2Tokenizer(vocab_file=str(GOLDEN_R2D2 / "vocab.txt"), short_length=config().max_length)
    processor = R2D2Processor(R2D2ImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    processor.prepare_image = lambda image, _=None: {"pixel_values": pixels[image.getpixel((0, 0))[0]]}
    return Embedder(model(), processor, device="cpu", name="r2d2")


def image(number: int) -> Image.Image:
    """What [`embedder`] sees as a golden image."""
    return Image.new("RGB", (4, 4), (number, 0, 0))
