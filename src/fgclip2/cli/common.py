"""Options, loading and output that the commands share."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import printable

if TYPE_CHECKING:
    import numpy as np

    from ..embedding import Embedder, Skipped

_ADDRESS = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters at least: C:/ is a drive of Windows

SKIPPED_SHOWN = 20

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Folder, hub id or modelscope://namespace/name of a checkpoint or an adapter.  "
        "[default: the one in the package]",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where to compute, e.g. cpu, cuda:1, or cuda:0,cuda:1 to share the work.  [default: accelerator, else cpu]"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
MaxPatches = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Patches per image; auto chooses by its size; not for FG-CLIP v1.  [default: the checkpoint's setting]",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most pixels of an image file; larger ones can't be used, and are not decoded.  [default: 178956970]",
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        min=1, help="Images per step if they have 256 patches; other inputs come in batches of as many tokens."
    ),
]
SkipErrors = Annotated[
    bool, typer.Option("--skip-errors", help="Leave out images that can't be read, and report them.")
]
Labels = Annotated[str | None, typer.Option(help="Labels separated by commas (, or ， or 、), e.g. 猫,狗,car.")]
LabelsFile = Annotated[Path | None, typer.Option(help="UTF-8 file with one label on each line.")]
Templates = Annotated[
    list[str] | None,
    typer.Option("--template", help="Text to put each label into, e.g. 一张{}的照片; may be repeated.  [default: {}]"),
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        help="File of `fgclip2 calibrate`, for probabilities of a match.  [default: the checkpoint's calibration.json]",
    ),
]
MinProbability = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Least probability of a match; where none has it, this is said. Texts have one if the calibration has a "
        "curve for their head and language at the patches of the images.  [default: 0.5]",
    ),
]
Prevalence = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Share of matches that you expect among the pairs compared, e.g. 0.01.  [default: 1 in their number + 1]",
    ),
]
TopK = Annotated[int, typer.Option(min=1, help="Number of results to print.")]


def given_path(value: Any) -> Any:
    """Return a value of an option as it is, but a path, or a list of them, as the user means it.

    A shell leaves the `~` of a home folder where it is quoted or follows `=`.

    Raises:
        ValueError: The path is an address, or `~` names no user.
    """
    if isinstance(value, list):
        return [given_path(item) for item in value]
    if not isinstance(value, Path) or value.exists():
        return value
    if _ADDRESS.match(str(value)):  # in which pathlib has made one slash of two
        address = str(value).replace(":/", "://", 1)
        raise ValueError(f"{address}: addresses are not fetched; download the file and give its path")
    try:
        return value.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value}: there is no home folder {value.parts[0]}; give the whole path") from error


def with_home(path: str) -> str:
    """Return a path, an address or an id of the hub, a path that begins with `~` as [`given_path`] does."""
    return str(given_path(Path(path))) if path.startswith("~") else path


def refuse_folders(images: Iterable[Path]) -> None:
    """Raise a `ValueError` if one of the image files that a command takes is a folder."""
    for path in images:
        if path.is_dir():
            raise ValueError(f"{path} is a folder: give image files, e.g. {path / '*.jpg'}")


def check_output(path: Path) -> None:
    """Raise a `ValueError` if a file can't be written there."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"{path}: the folder {path.parent} can't be written to; choose another one")


@contextmanager
def kept_when_interrupted(what: str) -> Iterator[None]:
    """Let the message that Ctrl-C ends a command with say what is kept of the work in this block.

    What the work itself says of it goes before.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(str(error) or what) from error


def load_embedder(
    model: str | None, device: str | None = None, dtype: str = "auto", max_pixels: int | None = None
) -> Embedder:
    """Load a checkpoint; `device` may name several with commas between them, `max_pixels` is the embedder's."""
    from ..embedding import Embedder

    embedder = Embedder.from_pretrained(model, split_devices(device), dtype)
    if max_pixels is not None:
        from PIL import Image

        embedder.max_pixels = max_pixels
        # Pillow refuses larger files by a limit of its own, whatever that of the embedder.
        Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
    return embedder


def use_calibration(
    embedder: Embedder, calibration: Path | None, min_probability: float | None, prevalence: float | None
) -> float:
    """Give the embedder the options on probabilities, and return the least probability of a match.

    Raises:
        ValueError: The file is damaged or of another checkpoint, or there is an option and no calibration.
        typer.BadParameter: The prevalence is 0 or 1, at which no cosine would change anything.
    """
    if calibration is not None:
        embedder.use_calibration(calibration)
    if prevalence in (0, 1):
        raise typer.BadParameter(f"must be above 0 and below 1, got {prevalence:g}", param_hint="--prevalence")
    if embedder.calibration is None and (min_probability, prevalence) != (None, None):
        raise ValueError(
            f"there is no calibration of {embedder.name}, so there are no probabilities: give one by --calibration, "
            "which `fgclip2 calibrate` makes of labelled pairs"
        )
    from ..calibration import LEAST_PROBABILITY

    embedder.prevalence = prevalence
    return LEAST_PROBABILITY if min_probability is None else min_probability


def tell_missing_curves(
    embedder: Embedder, texts: Sequence[str], role: str, budget: int | str | None, *options: Path | float | None
) -> None:
    """Say on stderr which texts have no probability, for the calibration has no curve of their kind.

    Args:
        embedder: Has the calibration, if there is one.
        texts: What images or regions are compared with.
        role: Of the texts.
        budget: Patches of the images.
        options: Those on probabilities: if none of them was given, nobody misses any.
    """
    if not texts or embedder.calibration is None or all(option is None for option in options):
        return
    from ..calibration import ScoreKey
    from ..languages import detect_language

    pairs = zip(embedder.roles_of(texts, role), texts, strict=True)  # type: ignore[arg-type]
    kinds = {ScoreKey(its_role, detect_language(text), embedder.budget_of(budget)) for its_role, text in pairs}
    known = [scores.key for scores in embedder.calibration.scores]
    missing = sorted(str(kind) for kind in kinds.difference(known))
    if missing:
        typer.echo(
            f"no probability for {', '.join(missing)}: the calibration has curves for "
            f"{', '.join(map(str, known)) or 'nothing'}",
            err=True,
        )


def match_probabilities(
    embedder: Embedder, cosines: np.ndarray, texts: Sequence[str], role: str, budget: int | str | None
) -> np.ndarray | None:
    """Return the probability of each label, of cosines (..., labels), NaN where the calibration says nothing of it.

    `None`: the calibration says nothing of any of them, or there is none.
    """
    if embedder.calibration is None:
        return None
    options: dict[str, Any] = {"role": role, "max_num_patches": budget, "candidates": len(texts)}
    found = embedder.match_probabilities(cosines, texts, **options)
    return None if (found != found).all() else found  # NaN alone is not itself


def split_devices(device: str | None) -> str | list[str] | None:
    """Return the devices that share the work as a list if there are several, separated by commas."""
    return device.split(",") if device and "," in device else device


def hide_loading_bars() -> None:
    """Hide the bars that transformers shows while it loads a model."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def parse_max_patches(value: str | None) -> int | str | None:
    """Return a patch budget as the embedder takes it.

    Raises:
        typer.BadParameter: It is neither `auto` nor a positive integer.
    """
    if value is None or value == "auto":
        return value
    if not value.isdecimal() or int(value) < 1:
        raise typer.BadParameter(f"must be auto or a positive integer, got {value!r}", param_hint="--max-patches")
    return int(value)


def parse_box(text: str) -> list[float]:
    """Return the box of an option `--box`, as x1,y1,x2,y2; its numbers are checked against the image later."""
    try:
        return [float(value) for value in text.replace("，", ",").split(",")]
    except ValueError as error:
        raise ValueError(f"--box must be four numbers, e.g. 10,20,200,180: {error}") from error


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a UTF-8 file, or of stdin for `-`."""
    try:
        content = typer.get_binary_stream("stdin").read() if str(path) == "-" else path.read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): convert it") from error
    return [line for line in lines if line.strip()]


def read_labels(labels: str | None, labels_file: Path | None) -> list[str]:
    """Return the labels of `--labels` or `--labels-file`, exactly one of which must be given."""
    if (labels is None) == (labels_file is None):
        raise typer.BadParameter("give either --labels or --labels-file", param_hint="--labels")
    if labels_file is not None:
        found = [line.strip() for line in read_lines(labels_file)]
    else:
        found = [label.strip() for label in re.split("[,，、]", labels or "") if label.strip()]
    if not found:
        raise ValueError(f"{labels_file or '--labels'} has no label")
    return found


def rank_labels(
    labels: Sequence[str], scores: np.ndarray, top_k: int, **others: np.ndarray | None
) -> list[dict[str, Any]]:
    """Return the best labels with their scores, and with those `others` that there are by their names, best first."""
    order = (-scores).argsort(kind="stable")[:top_k]
    columns = {"score": scores, **{name: column for name, column in others.items() if column is not None}}
    ranked: list[dict[str, Any]] = [
        {"label": labels[row], **{name: float(column[row]) for name, column in columns.items()}} for row in order
    ]
    return [{name: None if value != value else value for name, value in row.items()} for row in ranked]  # no NaN


def shows_no_match(rows: Sequence[dict[str, Any]], least: float) -> bool:
    """Return whether all of some hits or labels have a probability of a match, and none the least that is asked for."""
    from ..calibration import none_matches

    return none_matches([row.get("probability") for row in rows], least) is True


def probability_column(row: dict[str, Any]) -> str:
    """Return the probability of a hit or a label as it is printed, with the space behind it; "" where it has none."""
    return "" if row.get("probability") is None else f"p={row['probability']:<8.3f} "


def without_indices(inputs: Sequence[Any], skipped: Iterable[Skipped]) -> list[tuple[Any, str]]:
    """Return what was left out and why, with the inputs themselves in place of their indices."""
    return [(inputs[index], reason.removeprefix(f"images[{index}]: ")) for index, reason in skipped]


def report_skipped(skipped: Sequence[tuple[Any, str]]) -> list[dict[str, str]]:
    """Say on stderr what was left out and why, and return it for the JSON output."""
    skipped = [(item, reason.removeprefix(f"{item}: ")) for item, reason in skipped]
    for item, reason in skipped[:SKIPPED_SHOWN]:
        typer.echo(f"skipped {printable(str(item))}: {printable(reason)}", err=True)
    if len(skipped) > SKIPPED_SHOWN:
        typer.echo(f"skipped {len(skipped) - SKIPPED_SHOWN} more (--json lists all)", err=True)
    return [{"input": str(item), "reason": reason} for item, reason in skipped]


def print_json(result: dict[str, Any]) -> None:
    typer.echo(json.dumps(result, ensure_ascii=False, indent=1))


def print_labels(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        typer.echo(f"  {row['score']:<10.4g} {probability_column(row)}{row['label']}")
