"""The options of `fgclip2 search` that say what is searched by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common

if TYPE_CHECKING:
    from ..search.queries import Query

Texts = Annotated[
    list[str] | None, typer.Argument(help="Texts to search by; without any, the index is only brought up to date.")
]
Images = Annotated[list[Path] | None, typer.Option(help="Image to search by; may be repeated.")]
Boxes = Annotated[
    list[str] | None,
    typer.Option(
        help="Region of --image to search by instead of the whole, as x1,y1,x2,y2 in pixels; one for each image."
    ),
]
Combine = Annotated[
    bool, typer.Option("--combine", help="Search by all texts and images as one query, their weighted sum.")
]
Weights = Annotated[
    list[float] | None,
    typer.Option(
        "--weight",
        help="Weight of a part of --combine, first of the texts, then of the images; one for each.  [default: 1 each]",
    ),
]
Negatives = Annotated[
    list[str] | None,
    typer.Option("--not", help="Text of what hits should not be like, for all queries; may be repeated."),
]
NegativeWeight = Annotated[
    float | None, typer.Option(help="How much each --not counts, above zero; a text counts 1.  [default: 0.5]")
]


def read_queries(
    texts: list[str],
    images: list[Path],
    boxes: list[str],
    combine: bool,
    weights: list[float],
    negatives: list[str],
    negative_weight: float | None,
) -> list[tuple[dict[str, Any], Query]]:
    """Return each query with what the output says of it, its `kind` and `query`, and its `parts` if it has several."""
    from ..search import NEGATIVE_WEIGHT, CombinedQuery, Region

    for text in [*texts, *negatives]:
        if not text.strip():
            raise ValueError(f"the query {text!r} is empty: give a text, or an image by --image")
    if boxes and len(boxes) != len(images):
        raise typer.BadParameter(
            f"there are {len(boxes)} of {len(images)} images: give one for each --image", param_hint="--box"
        )
    if weights and not combine:
        raise typer.BadParameter("works with --combine", param_hint="--weight")
    if negative_weight is not None and not negatives:
        raise typer.BadParameter("works with --not", param_hint="--not-weight")
    if negative_weight is not None and not negative_weight > 0:
        raise typer.BadParameter(f"must be above zero, got {negative_weight}", param_hint="--not-weight")
    simple: list[tuple[dict[str, Any], Any]] = [({"kind": "text", "query": text}, text) for text in texts]
    if boxes:
        for path, box in zip(images, map(common.parse_box, boxes), strict=True):
            simple.append(({"kind": "region", "query": str(path), "box": box}, Region(path, box)))
    else:
        simple += [({"kind": "image", "query": str(path)}, path) for path in images]
    if not simple and (combine or negatives):
        raise typer.BadParameter(
            "says nothing of what hits should be: give a text or an image too, if only 'a photo'",
            param_hint="--not" if negatives else "--combine",
        )
    if weights and len(weights) != len(simple):
        raise typer.BadParameter(
            f"there are {len(weights)} of {len(simple)} texts and images: give one for each", param_hint="--weight"
        )
    if not combine and not negatives:
        return simple
    weighted = [
        ({**said, "weight": weight}, query)
        for (said, query), weight in zip(simple, weights or [1.0] * len(simple), strict=True)
    ]
    factor = NEGATIVE_WEIGHT if negative_weight is None else -negative_weight
    unwanted: list[tuple[dict[str, Any], Any]] = [
        ({"kind": "text", "query": text, "weight": factor}, text) for text in negatives
    ]
    combined: list[tuple[dict[str, Any], Any]] = []
    for wanted in [weighted] if combine else [[part] for part in weighted]:
        said, its = zip(*wanted, *unwanted, strict=True)
        query = CombinedQuery(its, [part["weight"] for part in said])
        combined.append(({"kind": "combined", "query": _in_words(said), "parts": list(said)}, query))
    return combined


def _in_words(parts: Sequence[dict[str, Any]]) -> str:
    """Return a combined query as a sum, e.g. `a tiger + 2 x cat.png - 0.5 x a cage`."""
    words = ""
    for part in parts:
        sign = "-" if part["weight"] < 0 else "+" if words else ""
        factor = "" if abs(part["weight"]) == 1 else f"{abs(part['weight']):g} x"
        words += " ".join(["", *filter(None, [sign, factor]), part["query"]])
    return words.strip()
