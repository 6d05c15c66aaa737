"""Prints the table of docs/training.md: what stage 1 takes at the published sizes, by `fgclip2.training.plan`.

python recipes/training/stage1_on_paper.py
"""

from fgclip2 import FGClip2Config
from fgclip2.training import FGClip2Objective, plan
from fgclip2.training.parameters import freeze, unused_parameters

PAIRS = 10**9
PROCESSES = 160
PER_PROCESS = {"base": 384, "large": 192, "so400m": 115}  # 61,440, 30,720 and 18,400 (published: 18,432) in all
PATCHES = 1024  # the largest budget: what a batch takes at most
CHUNK = 64  # images, of the gradient cache

HEADER = (
    "| | base | large | so400m |",
    "|---|---|---|---|",
)


def column(preset: str) -> dict[str, str]:
    """One size, as text by row."""
    config = FGClip2Config.from_preset(preset)
    objective = FGClip2Objective("paper", region_weight=0.0, tic_weight=0.0, hard_negative_weight=0.0)
    model = plan.meta_model(config)
    freeze(model, unused_parameters(objective.settings))
    count = plan.count_parameters(model)["total"]
    data = plan.DataSummary(1, max_patches=PATCHES)
    contents = plan.StepContents.expected(PER_PROCESS[preset], data, objective.settings, 0)
    width = config.vision_config.hidden_size

    def activations(part: plan.StepContents, checkpointing: bool) -> float:
        return sum(plan.activation_memory(config, part, mixed=True, checkpointing=checkpointing).values())

    def state(strategy: plan.Strategy) -> float:
        return sum(plan.state_memory(count, strategy, PROCESSES, mixed=True).values())

    similarity = {form: plan.similarity_memory(width, contents, PROCESSES, form) for form in ("gather", "ring")}
    embeddings = {form: plan.embedding_traffic(width, contents, PROCESSES, form) for form in ("gather", "ring")}
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
        "sent per process and step: gradients, DDP": gigabytes(plan.gradient_traffic(count, "ddp", PROCESSES)),
        "sent: texts, gather": gigabytes(embeddings["gather"]),
        "sent: texts, ring": gigabytes(embeddings["ring"]),
        "one checkpoint": gigabytes(plan.checkpoint_size(count)),
    }


def gigabytes(value: float) -> str:
    return f"{value / 2**30:,.2f} GiB"


def table() -> str:
    """Markdown."""
    columns = [column(preset) for preset in PER_PROCESS]
    rows = [f"| {name} | {' | '.join(each[name] for each in columns)} |" for name in columns[0]]
    return "\n".join([*HEADER, *rows])


if __name__ == "__main__":
    print(table())
