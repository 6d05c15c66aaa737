"""`fgclip2 data hard-negatives`: make false variants of region texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..files import printable
from . import common

EXAMPLES = """
fgclip2 data hard-negatives regions.jsonl with_negatives.jsonl
fgclip2 data hard-negatives 区域标注.json 带负例.json --count 5 --replace
"""


def hard_negatives(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="File of records as FineHARD has them: a JSON list, or one record on each line."
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="New file to write, of the same form.")],
    count: Annotated[int, typer.Option(min=1, help="Largest number of negatives of a region.")] = 10,
    seed: Annotated[
        int, typer.Option(help="Seed of the choice among possible negatives; the same seed gives the same negatives.")
    ] = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Make new negatives also for regions that have some.")
    ] = False,
    show: Annotated[
        int, typer.Option(min=0, help="Number of regions without negatives to list; --json lists all.")
    ] = 20,
    as_json: common.AsJson = False,
) -> None:
    """Give regions hard negatives.

    These are their short texts with one attribute, count, relation or object made false, in Chinese and English, by
    rules and a lexicon. The input stays as it is.
    """
    common.check_output(target)
    from ..hard_negatives import write_hard_negatives

    report = write_hard_negatives(source, target, count, seed, replace)
    if as_json:
        counts = {name: getattr(report, name) for name in ("records", "regions", "kept", "filled")}
        without = [{"source": place, "text": text} for place, text in report.without]
        common.print_json({"output": str(target), **counts, "by_kind": dict(report.by_kind), "without": without})
        return
    rows = [
        ("records", report.records),
        ("regions", report.regions),
        ("  with negatives as before", report.kept),
        ("  with new negatives", report.filled),
        ("  for which none could be made", len(report.without)),
        ("new negatives", report.by_kind.total()),
        *((f"  {kind}", number) for kind, number in sorted(report.by_kind.items())),
    ]
    for name, value in rows:
        typer.echo(f"{name:<36}{value}")
    for place, text in report.without[:show]:
        typer.echo(f"none: {printable(place)}: {printable(text)}", err=True)
    if len(report.without) > show:
        typer.echo(f"… and {len(report.without) - show} more (--json has all, --show N lists N)", err=True)
