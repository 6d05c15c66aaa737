"""Check the official weights and another system, neither of which was there, and print a report in Markdown.

    python scripts/verify_elsewhere.py --checkpoint qihoo360/fg-clip2-base --image 000000039769.jpg > report.md

Runs on Linux, macOS and Windows. Checks whose weights are missing are listed as not run. The image is number 39769 of
COCO val2017 (two cats and two remote controls, 640 x 480). Accelerators have a check of their own: docs/gpu.md.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

import fgclip2
from fgclip2 import FGClip2Embedder, FGClip2Model, FGClip2Processor
from fgclip2.diagnostics import check_official_regions

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
TENSORS = {383_803_394: 425, 896_622_594: 809, 1_154_017_410: 905}


class NotRunError(Exception):
    """A check can't run here; the message says what is missing."""


def check(condition: bool, message: str) -> str:
    if not condition:
        raise AssertionError(message)
    return message


def official_weights(checkpoint: str | None) -> str:
    """Every tensor is loaded, none is left over, and there are as many as published."""
    model, info = _load(checkpoint)
    left = {name: info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[name]}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tensors = len(model.state_dict())
    return check(
        not left and TENSORS.get(parameters) == tensors,
        f"{parameters:,} parameters, {tensors} tensors, left over: {left}",
    )


def official_tokenizer(checkpoint: str | None) -> str:
    """The official tokenizer gives the ids of the official implementation."""
    if checkpoint is None:
        raise NotRunError("no --checkpoint")
    processor = FGClip2Processor.from_pretrained(checkpoint)
    rows = json.loads((GOLDEN / "tokenizer_ids.json").read_text(encoding="utf-8"))["rows"]
    wrong = []
    for row in rows:
        for walk_type, length in (("short", 64), ("long", 196)):
            ids = processor(text=row["text"], walk_type=walk_type)["input_ids"][0].tolist()
            expected = row[f"ids_{length}"]
            if ids != expected + [0] * (length - len(expected)):
                wrong.append(row["text"])
    return check(
        len(set(wrong)) <= 1, f"{len(rows)} texts, different: {sorted(set(wrong))} (Greek and Turkish letters may)"
    )


def official_region_answer(checkpoint: str | None, image: str | None) -> str:
    """The published answer for two boxes and the text "remote control" with the base checkpoint."""
    if checkpoint is None or image is None:
        raise NotRunError("no --checkpoint or no --image")
    embedder = FGClip2Embedder.from_pretrained(checkpoint, device="cpu", dtype="float32")
    answer = check_official_regions(embedder, image)
    return check(answer.ok, answer.detail)


def save_and_load() -> str:
    """Saved and reloaded weights are bitwise equal on this file system, in a folder with a Chinese name."""
    model = FGClip2Model.from_pretrained(GOLDEN / "model")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "模型"
        model.save_pretrained(path)
        reloaded = FGClip2Model.from_pretrained(path)
        same = all(torch.equal(a, b) for a, b in zip(model.parameters(), reloaded.parameters(), strict=True))
        del reloaded  # Windows can't remove files that are mapped into memory
    return check(same, "bitwise equal")


def _load(checkpoint: str | None) -> tuple[FGClip2Model, dict]:
    if checkpoint is None:
        raise NotRunError("no --checkpoint")
    model, info = FGClip2Model.from_pretrained(checkpoint, output_loading_info=True)
    return model.eval(), info


def report(checks: list[tuple[str, Callable[[], str]]]) -> int:
    print("# fgclip2: verification report\n")
    versions = f"fgclip2 {fgclip2.__version__}, torch {torch.__version__}"
    print(f"{versions}, Python {platform.python_version()}, {platform.platform()}\n")
    print("| check | result | detail |\n|---|---|---|")
    failed = 0
    for name, function in checks:
        try:
            result, detail = "passed", function()
        except NotRunError as reason:
            result, detail = "not run", str(reason)
        except Exception as error:  # a report names every failure, whatever it is
            result, detail = "**FAILED**", f"{type(error).__name__}: {error}"
            failed += 1
        print(f"| {name} | {result} | {detail} |", flush=True)
    return int(failed > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="folder or hub id of an official checkpoint")
    parser.add_argument("--image", help="COCO val2017 000000039769.jpg")
    arguments = parser.parse_args()
    checkpoint, image = arguments.checkpoint, arguments.image
    return report(
        [
            ("official weights", lambda: official_weights(checkpoint)),
            ("official tokenizer", lambda: official_tokenizer(checkpoint)),
            ("official region answer (base)", lambda: official_region_answer(checkpoint, image)),
            ("save and load", save_and_load),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
