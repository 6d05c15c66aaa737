"""Prints the estimated and the measured memory of training steps in this process, as JSON.

    python peak_memory.py IMAGES PATCHES REGIONS [bf16] [checkpointing]

The model is between the bundled checkpoint and the base size. Measured is the growth of the peak resident set (VmHWM)
over what the process held before its first step.
"""

import json
import re
import sys
from pathlib import Path

import torch

from fgclip2 import FGClip2Config
from fgclip2.training import FGClip2ForTraining, FGClip2Objective, estimates
from fgclip2.training.memory import Gradients, step_memory
from fgclip2.training.parameters import count_parameters, freeze

SIZES = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
VOCAB_SIZE = 20_000


def resident(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def make_batch(images: int, patches: int, regions: int) -> dict[str, torch.Tensor]:
    """`regions` per image, each with ten hard negatives."""

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(0, VOCAB_SIZE, shape)

    index = torch.cartesian_prod(torch.arange(images), torch.arange(regions)).view(-1, 2)
    return {
        "pixel_values": torch.randn(images, patches, 768),
        "pixel_attention_mask": torch.ones(images, patches, dtype=torch.int32),
        "spatial_shapes": torch.tensor([[8, patches // 8]] * images),
        "short_input_ids": ids(images, 64),
        "long_input_ids": ids(images, 196),
        "boxes": torch.tensor([0.1, 0.2, 0.8, 0.9]).expand(images, max(1, regions), 4),
        "region_index": index,
        "region_input_ids": ids(len(index), 64),
        "hard_index": index,
        "hard_input_ids": ids(len(index), 11, 64),
    }


def main(images: int, patches: int, regions: int, options: list[str]) -> None:
    torch.set_num_threads(1)
    mixed, checkpointing = "bf16" in options, "checkpointing" in options
    config = FGClip2Config(text_config={**SIZES, "vocab_size": VOCAB_SIZE}, vision_config=dict(SIZES))
    model, objective = FGClip2ForTraining(config).train(), FGClip2Objective()
    freeze(model, model.unused_parameters(objective.settings))
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5, fused=True)
    batch = make_batch(images, patches, regions)
    before = resident("VmRSS")
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = objective(model(**batch), batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    measured = resident("VmHWM") - before
    data = estimates.DataSummary(1, regions=regions, hard_regions=regions, max_patches=patches)
    contents = estimates.StepContents.expected(images, data, objective.settings, 10)
    count = count_parameters(model)["total"]
    state = estimates.state_memory(count, mixed=mixed)
    state["weights"] -= 4 * count.all  # there before
    activations = model.activation_memory(config, contents, mixed, checkpointing)
    similarity = estimates.similarity_memory(SIZES["hidden_size"], contents, 1)
    step = step_memory(activations, Gradients.of(model), similarity)
    estimated = state["weights"] + state["optimizer"] + step
    print(json.dumps({"measured": measured, "estimated": estimated}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4:])
