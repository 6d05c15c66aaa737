"""The golden training data, as this package's batches."""

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fgclip2.training import FGClip2ForTraining

GOLDEN = Path(__file__).parent.parent / "golden"
SCALES = {"logit_scale_finegraind": 4.6052, "logit_scale_hardneg": 3.9}


@cache
def losses() -> tuple[dict[str, Tensor], dict]:
    return load_file(GOLDEN / "losses.safetensors"), json.loads((GOLDEN / "losses.json").read_text())["results"]


@cache
def outputs() -> tuple[dict[str, Tensor], dict]:
    return load_file(GOLDEN / "train_outputs.safetensors"), json.loads((GOLDEN / "train.json").read_text())["results"]


def model() -> FGClip2ForTraining:
    model = FGClip2ForTraining.from_pretrained(GOLDEN / "model").train()
    with torch.no_grad():
        for name, value in SCALES.items():
            getattr(model, name).fill_(value)
    return model


def batch(rank: int, regions: int | None = None, hard: int | None = None) -> dict[str, Tensor]:
    """The batch of a rank; at most so many regions and regions with hard negatives, from the first on."""
    inputs = load_file(GOLDEN / f"train_inputs_rank{rank}.safetensors")
    (table,) = load_file(GOLDEN / "imageproc" / "lut.safetensors").values()
    pixels = table[inputs["pixels"].long()] * inputs["pixel_attention_mask"][..., None]
    region_index, region_boxes = valid(inputs["box_nums"], 0)
    hard_index, hard_boxes = valid(inputs["hard_nums"], 4)
    return {
        "pixel_values": pixels,
        "pixel_attention_mask": inputs["pixel_attention_mask"],
        "spatial_shapes": inputs["spatial_shapes"].long(),
        "short_input_ids": inputs["text_short"].long(),
        "long_input_ids": inputs["text_long"].long(),
        "boxes": torch.cat([inputs["box_infos"].view(4, 4, 4), inputs["hard_infos"].view(4, 4, 4)], 1),
        "region_index": region_index[:regions],
        "region_input_ids": inputs["box_texts"].long()[region_boxes][:regions],
        "hard_index": hard_index[:hard],
        "hard_input_ids": inputs["hard_texts"].long().view(-1, 11, 64)[: len(hard_boxes)][:hard],
    }


def valid(counts: Tensor, first_slot: int) -> tuple[Tensor, Tensor]:
    """(image, box) of each valid box, and its row among 4 slots per image."""
    pairs = [(image, slot) for image, count in enumerate(counts.tolist()) for slot in range(count)]
    index = torch.tensor([(image, first_slot + slot) for image, slot in pairs]).view(-1, 2)
    return index, torch.tensor([4 * image + slot for image, slot in pairs])
