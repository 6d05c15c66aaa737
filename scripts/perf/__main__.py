"""Speed and memory of the package against plain references in the same run.

    python -m scripts.perf --output docs/performance.md

Every figure is a ratio of two things timed in turn, or the peak memory of a process of its own; but what a search waits
for is a time.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import torch

import fgclip2

from . import benchmarks, inference, loader, onnx_graphs, padding, sampler, training
from .measuring import Row

SECTIONS = {
    "Model": ("Base size, random weights, CPU.", inference.row_groups),
    "ONNX": (onnx_graphs.EXPLANATION, onnx_graphs.row_groups),
    "Loader": (loader.EXPLANATION, loader.row_groups),
    "Batches": (padding.EXPLANATION, padding.row_groups),
    "Sampler": (sampler.EXPLANATION, sampler.row_groups),
    "Training": (training.EXPLANATION, training.row_groups),
    "Benchmarks": (benchmarks.EXPLANATION, benchmarks.row_groups),
}


ELSEWHERE = """\
By `make perf-training`: [memory of steps beside the plan](training_memory.md), and
[steps on many devices](scale.md). On a GPU: [a check of its own](gpu.md)."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file for the Markdown tables")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each pair")
    parser.add_argument("--only", choices=[name.lower() for name in SECTIONS], help="measure one section")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows: dict[str, list[Row]] = {}
    for name, (_, row_groups) in SECTIONS.items():
        if arguments.only not in (None, name.lower()):
            continue
        rows[name] = []
        for group in row_groups(arguments.runs):
            rows[name] += group()
            if arguments.output:  # after each group, so that an interrupted run leaves what it has measured
                arguments.output.parent.mkdir(parents=True, exist_ok=True)
                arguments.output.write_text(markdown(rows), encoding="utf-8")
    print(markdown(rows))
    return int(any(row.held is False for section in rows.values() for row in section))


def markdown(rows: dict[str, list[Row]]) -> str:
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {platform.python_implementation()} "
    machine += f"{platform.python_version()}, torch {torch.__version__}, fgclip2 {fgclip2.__version__}"
    lines = ["# Performance", "", f"Made by `make perf`. {ELSEWHERE}", "", machine]
    for name, section in rows.items():
        lines += ["", f"## {name}", "", SECTIONS[name][0], ""]
        lines += ["| figure | value | bound | held |", "|---|---|---|---|", *map(table_line, section)]
    return "\n".join(lines) + "\n"


def table_line(row: Row) -> str:
    value = row.note if row.value is None else f"{row.value:.4g} {row.unit}".strip()
    note = f" ({row.note})" if row.note and row.value is not None else ""
    held = {True: "yes", False: "**no**", None: "-"}[row.held]
    return f"| {row.name} | {value}{note} | {row.bound} | {held} |"


if __name__ == "__main__":
    sys.exit(main())
