"""Define the parts of a check, their cases, and the record that each case leaves."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from fgclip2.files import replacing

Value = TypeVar("Value")
Record = dict[str, Any]  # labels and values of a case by the keys of columns; `problem`, if there is one

# Kinds of problems, which the page names in its languages.
OUT_OF_MEMORY, NOT_INSTALLED, NOT_AVAILABLE = "out of memory", "not installed", "not available"
TIMED_OUT, FAILED = "timed out", "failed"
INTERRUPTED = "interrupted"  # a case that is under way has it, in case that its process does not outlive it
MAY_BE_MISSING = ("flash_attn", "onnxruntime", "siglip_kernel", "triton")  # modules; without any other, a case failed
COMPLETE = "complete"  # how a part ended that came to its last case


class NotAvailableError(Exception):
    """The device or this release of torch can't do what a case asks for."""


@dataclass(frozen=True)
class Settings:
    """Where a part runs; a dry run has tiny shapes, and tells nothing but that the script runs through."""

    device: torch.device
    is_dry: bool = False

    def pick(self, full: Value, tiny: Value) -> Value:
        """Return what a real run takes, or a dry one."""
        return tiny if self.is_dry else full


class Words(NamedTuple):
    """One text of the page in English and in Chinese."""

    english: str
    chinese: str


@dataclass(frozen=True)
class Column:
    """A column of a part's table.

    Attributes:
        key: Of the records.
        title: What stands above it.
        form: Format of its numbers.
    """

    key: str
    title: Words
    form: str = ""


@dataclass(frozen=True)
class Case:
    """One row: what it is of, and the function that measures the rest of it."""

    labels: dict[str, Any]
    measure: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """A table of the page.

    Attributes:
        title, explanation: What stands above the table.
        columns: Of the table.
        cases: Gives the cases one after another. Those that share a model make it in between.
    """

    title: Words
    explanation: Words
    columns: tuple[Column, ...]
    cases: Callable[[Settings], Iterable[Case]]


def run_case(case: Case) -> Record:
    """Measure a case; what goes wrong is part of its record."""
    try:
        return {**case.labels, **case.measure()}
    except Exception as error:  # a report names every failure, whatever it is
        problem = problem_of(error)
    # Outside of the clause above, where the error would still hold the frames and their tensors.
    release_memory()
    return {**case.labels, "problem": problem}


def problem_of(error: Exception) -> dict[str, str]:
    """Return kind and detail of an error."""
    text = str(error)
    lower = text.lower()
    if isinstance(error, ModuleNotFoundError) and error.name in MAY_BE_MISSING:
        return {"kind": NOT_INSTALLED, "detail": error.name}
    if isinstance(error, NotAvailableError):
        return {"kind": NOT_AVAILABLE, "detail": text}
    if "out of memory" in lower or "cublas_status_alloc_failed" in lower:
        return {"kind": OUT_OF_MEMORY, "detail": ""}
    lines = text.strip().splitlines() or [""]
    return {"kind": FAILED, "detail": f"{type(error).__name__}: {lines[0]}"[:300]}


def release_memory() -> None:
    """Give what nobody holds any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of a part's file, an empty one if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"records": []}


def write_results(path: Path, content: dict[str, Any]) -> None:
    """Replace a part's file at once, so that whoever is killed meanwhile leaves the old one."""
    with replacing(path) as staging:
        staging.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
