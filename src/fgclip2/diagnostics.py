"""Checks of an installation: versions, devices, and answers that are known."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .embedding import Embedder, FGClip2Embedder
from .embedding.labels import softmax
from .files import read_json
from .modeling.interface import Role
from .modeling.modeling_fgclip2 import FGClip2Model

KNOWN_ANSWERS = "known_answers.json"
# Measured on one CPU: float32 repeats within 5e-7, bfloat16 is off by 2e-3. Room for the float32 of other processors.
TOLERANCE = 2e-4
KNOWN_TEXTS: tuple[tuple[str, Role], ...] = (
    ("a red apple on a table", "caption"),
    ("一只黑猫", "caption"),
    ("the dog on the left", "region_phrase"),
    ("一张照片，左边是一只黑猫，右边是一个红苹果，后面有一扇窗户，窗外能看到山和湖。", "long_caption"),
)

# Region features of the official base checkpoint on COCO val2017 000000039769.jpg, as others have measured them.
OFFICIAL_TEXT = "remote control"
OFFICIAL_BOXES = ((345, 27, 640, 372), (41, 74, 177, 118))
OFFICIAL_SHARES = (2.0169e-05, 0.99998)
OFFICIAL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    name: str
    ok: bool
    detail: str


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of what the model runs on."""
    packages = ("fgclip2", "torch", "transformers", "tokenizers", "safetensors", "pillow", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def available_devices() -> list[dict[str, Any]]:
    """Return the devices that torch can use: `device`, `name`, and `memory_gib` of GPUs."""
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    devices: list[dict[str, Any]] = [{"device": "cpu", "name": cpu}]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = round(properties.total_memory / 2**30, 1)
        devices.append({"device": f"cuda:{index}", "name": properties.name, "memory_gib": memory})
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": platform.processor()})
    return devices


def known_images() -> list[Image.Image]:
    """Return two pictures made of integers alone, so that they are the same everywhere."""
    y, x = np.mgrid[0:120, 0:160]
    gradient = np.stack([x * 255 // 159, y * 255 // 119, (x + y) * 255 // 278], -1)
    y, x = np.mgrid[0:208, 0:96]
    tiles = np.stack([(x // 16 + y // 16) % 2 * 200, x // 32 % 3 * 100, y // 52 * 60], -1)
    return [Image.fromarray(pixels.astype(np.uint8)) for pixels in (gradient, tiles)]


def compute_answers(embedder: Embedder) -> np.ndarray:
    """Embed the known images and texts: float32 (6, D); fewer where the family lacks a role."""
    roles = embedder.processor.text_roles
    texts = [embedder.encode_texts(text, role=role) for text, role in KNOWN_TEXTS if role in roles]
    return np.stack([*embedder.encode_images(known_images()), *texts])


def write_known_answers(embedder: FGClip2Embedder | None = None, path: str | os.PathLike | None = None) -> Path:
    """Store the answers of a checkpoint; run this after training the embedded one.

    Args:
        embedder: Runs in float32; `None`: the embedded checkpoint.
        path: Where to write; `None`: where [`check_known_answers`] looks, inside the package.
    """
    embedder = embedder or FGClip2Embedder.from_pretrained(device="cpu", dtype="float32")
    target = _known_answers_file() if path is None else Path(path)
    answers = [[round(float(value), 6) for value in vector] for vector in compute_answers(embedder)]
    content = {"fingerprint": embedder.fingerprint, "versions": installed_versions(), "answers": answers}
    target.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return target


def check_known_answers(embedder: Embedder, path: str | os.PathLike | None = None) -> Check:
    """Compare what a checkpoint gives here with what it gave when the package was made.

    Args:
        embedder: In float32.
        path: File of [`write_known_answers`]; `None`: the one inside the package.
    """
    name = f"known answers of the checkpoint {embedder.name!r}"
    file = _known_answers_file() if path is None else Path(path)
    if not file.is_file():
        return Check(name, False, f"{file} is missing; install the package anew")
    known = read_json(file)
    if known["fingerprint"] != embedder.fingerprint:
        return Check(name, False, f"the weights are not those of {file}; install the package anew")
    difference = float(np.abs(compute_answers(embedder) - np.array(known["answers"])).max())
    detail = f"{len(known['answers'])} vectors, largest difference {difference:.1e} (allowed {TOLERANCE:.0e})"
    return Check(name, difference <= TOLERANCE, detail)


def check_checkpoint(embedder: Embedder) -> Check:
    """See whether a checkpoint embeds images and texts at all: finite, of length 1, not all the same."""
    vectors = compute_answers(embedder)
    lengths = np.linalg.norm(vectors, axis=1)
    distinct = len(np.unique(vectors.round(5), axis=0)) == len(vectors)
    parameters = sum(parameter.numel() for parameter in embedder.model.parameters())
    detail = f"{parameters:,} parameters, vectors of {embedder.embedding_size} values"
    ok = bool(np.isfinite(vectors).all() and np.abs(lengths - 1).max() < 1e-3 and distinct)
    return Check(
        f"checkpoint {embedder.name!r}", ok, detail if ok else f"{detail}, but they are not distinct and finite"
    )


def check_official_regions(embedder: Embedder, coco_image: str | os.PathLike) -> Check:
    """Compare the official base checkpoint's regions with the published answer.

    Args:
        embedder: The official base checkpoint in float32.
        coco_image: COCO val2017 000000039769.jpg (two cats, two remote controls; 640 x 480).
    """
    name = "regions of the official base checkpoint"
    if not isinstance(embedder.model, FGClip2Model):
        kind = type(embedder.model).__name__
        return Check(name, False, f"the known answer is of FG-CLIP 2, and {embedder.name!r} is an {kind}")
    regions = embedder.encode_regions(coco_image, OFFICIAL_BOXES)
    phrase = embedder.encode_texts(OFFICIAL_TEXT, role="region_phrase")
    shares = softmax(embedder.model.region_logit_scale * embedder.similarity(regions, phrase))  # (boxes,)
    difference = float(np.abs(shares - OFFICIAL_SHARES).max())
    found = ", ".join(f"{share:.4g}" for share in shares)
    expected = ", ".join(f"{share:.4g}" for share in OFFICIAL_SHARES)
    detail = f"shares of {OFFICIAL_TEXT!r} over two boxes {found}; known {expected} (allowed {OFFICIAL_TOLERANCE:.0e})"
    return Check(name, difference <= OFFICIAL_TOLERANCE, detail)


def _known_answers_file() -> Path:
    return Path(str(resources.files("fgclip2") / "assets" / KNOWN_ANSWERS))
