"""`fgclip2 demo`: show what the embedded checkpoint can do, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common

EXAMPLES = """
fgclip2 demo
fgclip2 demo --output 演示
"""


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page and its data.")] = Path(
        "demo_output"
    ),
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Search and label the bundled pictures, and show the results on a page.

    The pictures are searched in Chinese and English, by single words and by queries as people write them, and their
    regions are labelled. It works offline.
    """
    from ..demo.run import run_demo

    embedder = common.load_embedder(model, device)
    with common.kept_when_interrupted(f"what is done is in {output}; the same command goes on"):
        page, results = run_demo(output, embedder)
    if as_json:
        common.print_json({"page": str(page), **results})
        return
    for query, hits in results["text_search"].items():
        names = ", ".join(f"{hit['name']} ({hit['score']:.2f})" for hit in hits[:3])
        typer.echo(f"{query}: {names}")
    for share in results["right"]:
        right = ", ".join(f"{language} {count}" for language, count in share["right"].items())
        typer.echo(f"{share['task']}: {right} of {share['of']} right; by chance {share['chance'] * share['of']:.1f}")
    typer.echo(f"{results['indexed']} pictures, {results['seconds']} s; open {page}")
