"""Read exported folders by transformers' own tokenizers and image processors, and write what the models make of it.

As most public code does it: only the model's code is trusted. Run by the tests in interpreters of their own:

    python check_stock.py OUTPUT.safetensors FOLDER ...
"""

import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

TEXTS = ["A black CAT on the Window", "一只黑猫趴在窗台上", "Ⅷ 😀 naïve", "many words " * 300]
WAYS = {"fgclip2": (("short", 64), ("long", 196)), "fgclip": (("short", 77), ("long", 248)), "r2d2": (("short", 24),)}
IMAGE_ARGUMENTS = {"fgclip2": ({}, {"max_num_patches": 128}), "fgclip": ({},), "r2d2": ({},)}


def images() -> list[Image.Image]:
    y, x = np.mgrid[0:333, 0:500]
    picture = Image.fromarray(np.stack([x % 256, y % 256, (x * y) % 256], -1).astype(np.uint8))
    return [picture, picture.rotate(90, expand=True), picture.resize((37, 41))]


@torch.no_grad()
def compute(model, tokenizer, image_processor) -> dict[str, torch.Tensor]:
    outputs = {}
    family = model.config.model_type
    for walk, length in WAYS[family]:
        ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        assert list(ids) == (["input_ids", "attention_mask"] if family == "r2d2" else ["input_ids"])
        outputs[f"ids {walk}"] = ids["input_ids"]
        outputs[f"text {walk}"] = model.get_text_features(**ids, **({} if family == "r2d2" else {"walk_type": walk}))
    for index, arguments in enumerate(IMAGE_ARGUMENTS[family]):
        pixels = image_processor(images(), return_tensors="pt", **arguments)
        outputs |= {f"{name} {index}": tensor for name, tensor in pixels.items()}
        outputs[f"image {index}"] = model.get_image_features(**pixels)
    return outputs


def main() -> None:
    output, *folders = sys.argv[1:]
    sys.modules["fgclip2"] = None  # so that importing it fails, wherever it is installed
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    outputs = {}
    for number, folder in enumerate(folders):
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
        parts = [auto.from_pretrained(folder) for auto in (AutoTokenizer, AutoImageProcessor)]
        for part in parts:
            assert type(part).__module__.startswith("transformers."), type(part)
        # The length is that of the short head where none is given.
        default = parts[0](TEXTS, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        assert parts[0](["cat"], padding=True, return_tensors="pt")["input_ids"].shape[1] < 9  # as cards warn
        found = compute(model, *parts)
        assert torch.equal(default, found["ids short"])
        outputs |= {f"{number} {name}": tensor.contiguous() for name, tensor in found.items()}
    save_file(outputs, output)


if __name__ == "__main__":
    main()
