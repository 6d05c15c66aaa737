"""Published numbers of FG-CLIP 2 and its baselines, to stand beside one's own; data/published.json has them all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..files import read_json


@dataclass(frozen=True)
class Source:
    """Where a number is printed."""

    key: str  # e.g. "fg-clip-2-table-5"
    paper: str
    table: str | None  # None: not known which
    url: str


@dataclass(frozen=True)
class PublishedNumber:
    """One number of a table; measured by its authors, under settings that are often not stated."""

    benchmark: str  # e.g. "lit-cn"
    metric: str  # e.g. "image_to_text/recall@1"
    model: str
    backbone: str | None  # e.g. "B/16"; None: not stated
    value: float  # share, 0 to 1
    source: Source
    subset: str | None = None  # part of the data, where the benchmark has several


def published_numbers(benchmark: str) -> list[PublishedNumber]:
    """Return the published zero-shot numbers of a benchmark, in the order of their tables; often there are none.

    Args:
        benchmark: Name of a benchmark, e.g. `"lit-cn"`.
    """
    return [number for number in _read() if number.benchmark == benchmark]


@cache
def _read() -> tuple[PublishedNumber, ...]:
    content = read_json(Path(__file__).parent / "data" / "published.json")
    sources = {key: Source(key=key, **fields) for key, fields in content["sources"].items()}
    return tuple(PublishedNumber(**{**row, "source": sources[row["source"]]}) for row in content["numbers"])
