"""Print how the package is built: helpers, lengths, prose, comments, and what one call of encode_regions passes.

Run `python -m scripts.structure` from the root. The tests hold the numbers within `BOUNDS`.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import threading
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

PACKAGE = Path(__file__).parents[1] / "src" / "fgclip2"
LONG_FUNCTION = 60  # lines
HALF_SENTENCES = ("Of ", "What ", "Whether ", "The same ")
# One of the files is that of the back end: what runs a model is apart from what reads images and makes batches of them.
BOUNDS = {"private functions with one caller per 1,000 code lines": 7.0, "functions passed": 8, "files passed": 4}


@dataclass
class Room:
    """Counts of the files of one room, or of the package."""

    lines: int = 0
    code: int = 0  # lines that are neither empty nor a comment
    comments: int = 0  # lines that have one
    private: list[str] = field(default_factory=list)  # names of private functions
    lengths: list[int] = field(default_factory=list)  # lines of functions
    docstrings: int = 0
    half_sentences: int = 0
    each: int = 0  # uses of a variable of this name

    def add(self, source: str) -> None:
        """Count one file."""
        stripped = [line.strip() for line in source.splitlines()]
        self.lines += len(stripped)
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        self.comments += sum(token.type == tokenize.COMMENT for token in tokens)
        self.code += sum(bool(line) and not line.startswith("#") for line in stripped)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name) and node.id == "each":
                self.each += 1
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)):
                continue
            docstring = ast.get_docstring(node)
            self.docstrings += docstring is not None
            self.half_sentences += docstring is not None and docstring.startswith(HALF_SENTENCES)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.lengths.append((node.end_lineno or 0) - node.lineno + 1)
                if node.name.startswith("_") and not node.name.startswith("__"):
                    self.private.append(node.name)

    def describe(self, name: str, references: Counter[str]) -> str:
        """Return one line of the table."""
        lengths = sorted(self.lengths) or [0]
        long = sum(length > LONG_FUNCTION for length in lengths) / len(lengths)
        return (
            f"{name:16}{self.code:7}{one_caller_rate(self, references):12.1f}{statistics.median(lengths):8.0f}"
            f"{lengths[int(0.9 * (len(lengths) - 1))]:5}{long:8.1%}"
            f"{self.half_sentences / max(self.docstrings, 1):10.1%}{self.each:6}{self.comments / self.lines:10.1%}"
        )


def one_caller_rate(room: Room, references: Counter[str]) -> float:
    """Return how many private functions of a room have exactly one reference, per 1,000 lines of its code."""
    return 1000 * sum(references[name] == 1 for name in room.private) / max(room.code, 1)


def count(package: Path = PACKAGE) -> tuple[dict[str, Room], Counter[str]]:
    """Return the counts of each room, and of "all" of them, and how often each name is referred to."""
    rooms: dict[str, Room] = {"all": Room()}
    references: Counter[str] = Counter()
    for path in sorted(package.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for counts in (rooms.setdefault(room, Room()), rooms["all"]):
            counts.add(source)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.Name, ast.Attribute)):
                references[node.id if isinstance(node, ast.Name) else node.attr] += 1
    return rooms, references


def trace_encode_regions(package: Path = PACKAGE) -> list[tuple[str, str]]:
    """Return (file, function) of what one call of `encode_regions` passes on its way to the model and its processor.

    Functions within functions count; comprehensions and lambdas, which stand where they are read, do not.
    """
    from PIL import Image

    from fgclip2 import FGClip2Embedder

    embedder = FGClip2Embedder.from_pretrained(device="cpu")
    arguments: Any = ([Image.new("RGB", (160, 120), "red")], [[[0, 0, 50, 50]]])
    embedder.encode_regions(*arguments)  # what a first call imports is no part of it
    passed: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and not code.co_name.startswith("<") and code.co_filename.startswith(f"{package}/"):
            file = Path(code.co_filename).relative_to(package).as_posix()
            if not file.startswith("modeling/"):
                passed.add((file, code.co_name))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        embedder.encode_regions(*arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return sorted(passed)


def main() -> None:
    """Print the table and the trace."""
    rooms, references = count()
    print(
        f"{'room':16}{'code':>7}{'one-caller':>12}{'median':>8}{'p90':>5}{f'>{LONG_FUNCTION}':>8}"
        f"{'half sent.':>10}{'each':>6}{'comments':>10}"
    )
    for name in sorted(rooms, key=lambda room: (room == "all", room)):
        print(rooms[name].describe(name, references))
    passed = trace_encode_regions()
    print(f"\nencode_regions passes {len(passed)} functions in {len({file for file, _ in passed})} files:")
    for file, function in passed:
        print(f"  {file}  {function}")


if __name__ == "__main__":
    main()
