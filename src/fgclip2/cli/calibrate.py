"""`fgclip2 calibrate`: fit probabilities to labelled pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common

if TYPE_CHECKING:
    from ..calibration import CalibratedScores, Calibration

EXAMPLES = """
fgclip2 calibrate pairs.jsonl --output calibration.json
fgclip2 calibrate 图文对.csv --images 照片 --output 校准.json --max-patches 256
fgclip2 search photos "a dog" --calibration calibration.json --min-probability 0.5
"""


def calibrate(
    pairs: Annotated[
        Path,
        typer.Argument(
            help="JSONL, JSON, CSV or TSV with image, text, label (1: they match, 0: they don't) and, for regions, box "
            "(x1, y1, x2, y2 in pixels); or a folder of such files."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="JSON file to write; what it has of the same model for other pairs is kept."
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder that paths of images are relative to.  [default: that of the pairs]")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="platt (a line, for some hundred pairs) or isotonic (any rising curve, for thousands)."),
    ] = "platt",
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Use files that links lead to outside of their folder.")
    ] = False,
    max_patches: common.MaxPatches = None,
    max_pixels: common.MaxPixels = None,
    batch_size: common.BatchSize = 32,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Fit probabilities to labelled pairs.

    For each head (short and long captions, region phrases) and language among the pairs, and for one patch budget, a
    curve from cosines to probabilities is fitted on half of the images, and evaluated on the other half; 130 pairs that
    match and 130 that don't are needed of each. Run it again with other --max-patches to add other budgets.

    The file is used by --calibration of search, classify and regions, and by itself where it is called calibration.json
    and lies in the folder of the checkpoint. It belongs to this checkpoint: others refuse it.

    Of pairs without labels there are only the quantiles of their cosines, which are no probabilities.
    """
    from ..calibration import Calibration
    from ..data.readers.labelled_pairs import read_labelled_pairs
    from ..embedding import calibrate

    budget = common.parse_max_patches(max_patches)
    common.check_output(output)
    before = Calibration.load(output) if output.exists() else None
    labelled = read_labelled_pairs(pairs, images, follow_links)
    embedder = common.load_embedder(model, device, max_pixels=max_pixels)
    if before is not None:
        before.require_model(embedder.fingerprint, embedder.name)
    found = calibrate(embedder, labelled, budget, method, batch_size)
    (found if before is None else before.updated(found)).save(output)
    if as_json:
        common.print_json({"model": embedder.name, "output": str(output), **_described(found)})
        return
    for scores in found.scores:
        _print_scores(scores)
    for quantiles in found.quantiles:
        median, high = (quantiles.cosines[round(share * (len(quantiles.cosines) - 1))] for share in (0.5, 0.99))
        typer.echo(f"{quantiles.key}: quantiles of {quantiles.pairs} pairs without labels, no probabilities")
        typer.echo(f"  half of the cosines are below {median:.4f}, 99% below {high:.4f}")
    typer.echo(output)


def _described(found: Calibration) -> dict[str, list[dict]]:
    """Return what was found without the curves, for the JSON output."""
    return {
        "scores": [
            {**its.key._asdict(), "method": its.method, "thresholds": its.thresholds, **its.evaluation.__dict__}
            for its in found.scores
        ],
        "quantiles": [{**its.key._asdict(), "pairs": its.pairs} for its in found.quantiles],
    }


def _print_scores(scores: CalibratedScores) -> None:
    checked = scores.evaluation
    before = checked.calibration_error_before
    typer.echo(
        f"{scores.key}: {scores.method}, fitted on {scores.matches} matches and {scores.others} others, evaluated on "
        f"{checked.matches} and {checked.others}"
    )
    typer.echo(
        f"  expected calibration error {checked.calibration_error:.4f}"
        + ("" if before is None else f", {before:.4f} by the model's own probabilities")
    )
    for rate, threshold in scores.thresholds.items():
        if threshold is None:
            typer.echo(f"  false positives {rate:>6.1%}  {1 / rate - 1:.0f} others are needed")
        else:
            promise = f"false positives {rate:>6.1%}  cosine above {threshold:.4f}"
            typer.echo(f"  {promise}  ({checked.false_positive_rates[rate]:.1%} in the evaluation)")
