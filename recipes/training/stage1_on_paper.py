"""Prints the table of docs/training.md: what stage 1 takes at the published sizes, by `fgclip2.training.estimates`.

python recipes/training/stage1_on_paper.py
"""

import torch

from fgclip2 import FGClip2Config
from fgclip2.training import FGClip2ForTraining, FGClip2Objective, estimates
from fgclip2.training.memory import activations_at_most
from fgclip2.training.parameters import count_parameters, freeze

PAIRS = 10**9
PROCESSES = 160
PER_PROCESS = {"base": 384, "large": 192, "so400m": 115}  # 61,440, 30,720 and 18,400 (published: 18,432) in all
PATCHES = 1024  # the largest budget: what a batch takes at most
ZERO2_BUCKETS = 2 * 500_000_000  # values, by recipes/accelerate/deepspeed_zero2.json
CHUNK = 64  # images, of the gradient cache

HEADER = (
    "| | base | large | so400m |",
    "|---|---|---|---|",
)


def column(preset: str) -> dict[str, str]:
    """Return the cells of one size, by row."""
    config = FGClip2Config.from_preset(preset)
    objective = FGClip2Objective("paper", region_weight=0.0, tic_weight=0.0, hard_negative_weight=0.0)
    with torch.device("meta"):  # without memory for weights
        model = FGClip2ForTraining(config)
    freeze(model, model.unused_parameters(objective.settings))
    count = count_parameters(model)["total"]
    data = estimates.DataSummary(1, max_patches=PATCHES)
    contents = estimates.StepContents.expected(PER_PROCESS[preset], data, objective.settings, 0)
    width = model.embedding_size

    def activations(part: estimates.StepContents, checkpointing: bool) -> float:
        return activations_at_most(model.activation_memory(config, part, mixed=True, checkpointing=checkpointing))

    def state(strategy: estimates.Strategy) -> float:
        return sum(estimates.state_memory(count, strategy, PROCESSES, mixed=True, buckets=ZERO2_BUCKETS).values())

    similarity = {form: estimates.similarity_memory(width, contents, PROCESSES, form) for form in ("gather", "ring")}
    embeddings = {form: estimates.embedding_traffic(width, contents, PROCESSES, form) for form in ("gather", "ring")}
    cached = activations(contents.share(CHUNK), True)
    batch = PER_PROCESS[preset] * PROCESSES
    return {
        "parameters, trained": f"{count.trained / 1e6:,.0f} M",
        "pairs per process and step": f"{PER_PROCESS[preset]}",
        "contrastive batch": f"{batch:,}",
        "steps for 10^9 pairs": f"{PAIRS // batch:,}",
        "weights, gradients, optimizer: DDP": gigabytes(state("ddp")),
        "the same: ZeRO-2": gigabytes(state("zero2")),
        "the same: FSDP2": gigabytes(state("fsdp")),
        "activations": gigabytes(activations(contents, False)),
        "the same: gradient checkpointing": gigabytes(activations(contents, True)),
        f"the same: and gradient cache of {CHUNK}": gigabytes(cached),
        "sigmoid losses: gather": gigabytes(similarity["gather"]),
        "sigmoid losses: ring": gigabytes(similarity["ring"]),
        "in all: DDP, checkpointing, cache, ring": gigabytes(state("ddp") + cached + similarity["ring"]),
        "sent per process and step: gradients, DDP": gigabytes(estimates.gradient_traffic(count, "ddp", PROCESSES)),
        "sent: texts, gather": gigabytes(embeddings["gather"]),
        "sent: texts, ring": gigabytes(embeddings["ring"]),
        "one checkpoint": gigabytes(estimates.checkpoint_size(count)),
    }


def gigabytes(value: float) -> str:
    return f"{value / 2**30:,.2f} GiB"


def table() -> str:
    """Return the table in Markdown."""
    columns = [column(preset) for preset in PER_PROCESS]
    rows = [f"| {name} | {' | '.join(cells[name] for cells in columns)} |" for name in columns[0]]
    return "\n".join([*HEADER, *rows])


if __name__ == "__main__":
    print(table())
