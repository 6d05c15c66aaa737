"""Prints the estimated and the measured memory of R2D2's training steps in this process, as JSON.

    python -m tests.training.peak_memory_r2d2 OBJECTIVE PAIRS [dropout] [bf16] [checkpointing]

The model is smaller than the base size, its images are of 196 patches. Measured is the growth of the peak resident set
(VmHWM) over what the process held before its first step. Without `dropout`, for with it torch's attention on a CPU
keeps its scores, as that of accelerators does not.
"""

import json
import sys

import torch

from fgclip2 import R2D2Config
from fgclip2.training import estimates
from fgclip2.training.arguments import FGClip2TrainingArguments
from fgclip2.training.memory import Gradients, step_memory
from fgclip2.training.parameters import count_parameters, freeze, layers_with_gradients
from fgclip2.training.tasks import training_model

from .peak_memory import resident

SIZES = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
VOCAB_SIZE = 8_000
DROPOUT = {} if "dropout" in sys.argv else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_batch(objective: str, pairs: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, VOCAB_SIZE, (pairs, length))
    batch = {
        "pixel_values": torch.randn(pairs, 3, 224, 224),
        "input_ids": ids,
        "attention_mask": torch.ones(pairs, length, dtype=torch.int64),
    }
    if objective == "matching":
        return {**batch, "labels": torch.arange(pairs) % 2}
    if objective == "after-r2d2":
        masked = torch.rand(pairs, length) < 0.15
        batch |= {"masked_input_ids": ids.masked_fill(masked, 4), "masked_labels": ids.masked_fill(~masked, -100)}
    return {**batch, "ids": torch.arange(pairs)}


def main(objective: str, pairs: int, options: list[str]) -> None:
    torch.set_num_threads(1)
    mixed, checkpointing = "bf16" in options, "checkpointing" in options
    config = R2D2Config(
        SIZES,
        {**SIZES, **DROPOUT, "vocab_size": VOCAB_SIZE},
        {**SIZES, **DROPOUT, "num_hidden_layers": 2},
        embed_dim=256,
    )
    model = training_model("r2d2", objective)(config).train()
    settings = model.task.make_objective(objective, {"queue_size": 4096} if objective == "after-r2d2" else {}).settings
    freeze(model, model.unused_parameters(settings))
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5, fused=True)
    batch = make_batch(objective, pairs, config.max_length)
    before = resident("VmRSS")
    memory = model.task.start_memory(model, settings)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = model(**batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if memory is not None:
            memory.end_step(1.0)
    measured = resident("VmHWM") - before
    args = FGClip2TrainingArguments("unused", per_device_train_batch_size=pairs, use_cpu=True)
    contents = model.task.step_contents(args, estimates.DataSummary(1, max_patches=196), settings)
    count = count_parameters(model)["total"]
    state = estimates.state_memory(count, mixed=mixed)
    state["weights"] -= 4 * count.all  # there before
    layers = {f"{tower}_layers": layers_with_gradients(model, tower) for tower in model.towers}
    activations = model.activation_memory(config, contents, mixed, checkpointing, **layers)
    exchange = model.task.exchange_memory(model, settings, contents, 1)
    stays = state["weights"] + state["optimizer"] + model.task.kept_memory(model, settings)
    estimated = stays + step_memory(activations, Gradients.of(model), exchange)
    print(json.dumps({"measured": measured, "estimated": estimated}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
