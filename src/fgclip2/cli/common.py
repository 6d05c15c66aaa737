"""What the subcommands share: options, loading, output."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from ..embedding import FGClip2Embedder, Skipped

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Checkpoint: folder or hub id.  [default: the one in the package]"),
]
Device = Annotated[str | None, typer.Option(help="E.g. cpu or cuda:1; cuda:0,cuda:1 share the work.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
MaxPatches = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Patches per image; auto: by its size.  [default: the checkpoint's setting]"),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images of 256 patches per step; others by the same memory.")]
SkipErrors = Annotated[
    bool, typer.Option("--skip-errors", help="Leave images out that can't be read, and report them.")
]
Labels = Annotated[str | None, typer.Option(help="Labels with commas between them (, or ， or 、), e.g. 猫,狗,car.")]
LabelsFile = Annotated[Path | None, typer.Option(help="UTF-8 file with one label per line.")]
Templates = Annotated[
    list[str] | None,
    typer.Option("--template", help="Text around a label, e.g. 一张{}的照片; may be repeated.  [default: {}]"),
]
TopK = Annotated[int, typer.Option(min=1, help="How many to print.")]


def load_embedder(model: str | None, device: str | None = None, dtype: str = "auto") -> FGClip2Embedder:
    """Load a checkpoint; `device` may name several with commas between them."""
    from ..embedding import FGClip2Embedder

    hide_loading_bars()
    return FGClip2Embedder.from_pretrained(model, split_devices(device), dtype)


def split_devices(device: str | None) -> str | list[str] | None:
    """Several devices with commas between them share the work."""
    return device.split(",") if device and "," in device else device


def hide_loading_bars() -> None:
    """Transformers shows one for each checkpoint, however small."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def parse_max_patches(value: str | None) -> int | str | None:
    """Raises typer's usage error for anything but a positive integer or `auto`."""
    if value is None or value == "auto":
        return value
    if not value.isdecimal() or int(value) < 1:
        raise typer.BadParameter(f"{value!r}; allowed: auto or a positive integer", param_hint="--max-patches")
    return int(value)


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a UTF-8 file, or of stdin for `-`."""
    try:
        content = typer.get_binary_stream("stdin").read() if str(path) == "-" else path.read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    return [line for line in lines if line.strip()]


def read_labels(labels: str | None, labels_file: Path | None) -> list[str]:
    """Return the labels of `--labels` or `--labels-file`, of which one must be given."""
    if (labels is None) == (labels_file is None):
        raise typer.BadParameter("give one of --labels and --labels-file", param_hint="--labels")
    if labels_file is not None:
        found = [line.strip() for line in read_lines(labels_file)]
    else:
        found = [label.strip() for label in re.split("[,，、]", labels or "") if label.strip()]
    if not found:
        raise ValueError(f"{labels_file or '--labels'} has no label")
    return found


def rank_labels(labels: Sequence[str], scores: np.ndarray, top_k: int) -> list[dict[str, Any]]:
    """Return the best labels with their scores, best first."""
    order = (-scores).argsort(kind="stable")[:top_k]
    return [{"label": labels[row], "score": float(scores[row])} for row in order]


def report_skipped(inputs: Sequence[Any], skipped: Iterable[Skipped]) -> list[dict[str, str]]:
    """Say on stderr what was left out, and return it for the JSON output."""
    rows = []
    for index, reason in skipped:
        reason = reason.removeprefix(f"images[{index}]: ")
        typer.echo(f"skipped {inputs[index]}: {reason}", err=True)
        rows.append({"input": str(inputs[index]), "reason": reason})
    return rows


def print_json(result: dict[str, Any]) -> None:
    typer.echo(json.dumps(result, ensure_ascii=False, indent=1))


def print_labels(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        typer.echo(f"  {row['score']:<10.4g} {row['label']}")
