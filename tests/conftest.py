"""Fixtures shared by the tests: the golden data and tiny models."""

import gc
import json
import os
from pathlib import Path

# Before torch is imported, and for the processes that tests start: models this small gain nothing from threads, which
# only take the cores from one another. On busy cores, tests/load took 74 s of CPU time with two threads, 20 s with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from safetensors.torch import load_file

from fgclip2 import FGClip2Config, FGClip2ImageProcessor, FGClip2Model

# The same examples each time, however long they take: a change must not fail by chance, nor on a busy machine.
# New ones are looked for by --hypothesis-profile default.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

GOLDEN = Path(__file__).parent / "golden"

# The files that take longest come first: else one of two workers ends with them, and the other has nothing left to do.
LONGEST = (
    "test_resuming.py",
    "test_trainer.py",
    "test_exported_folder.py",
    "test_train.py",
    "test_main.py",
    "test_callback.py",
    "test_training_recipes.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """Leave what has been imported, which stays, out of all collections of garbage: each training run asks for some.

    Those looked at 600,000 objects, for a quarter of the CPU time of test_trainer.py.
    """
    gc.freeze()


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def golden_model() -> FGClip2Model:
    """The tiny official checkpoint; don't change it."""
    return FGClip2Model.from_pretrained(GOLDEN / "model").eval()


@pytest.fixture(scope="session")
def golden_settings() -> dict:
    return json.loads((GOLDEN / "inference.json").read_text())


@pytest.fixture(scope="session")
def golden_inputs() -> dict[str, torch.Tensor]:
    images = [Image.open(path) for path in sorted((GOLDEN / "images").glob("*.png"))]
    processed = FGClip2ImageProcessor()(images, max_num_patches=256, do_resize=False, return_tensors="pt")
    return {**load_file(GOLDEN / "inputs.safetensors"), "pixel_values": processed["pixel_values"]}


@pytest.fixture(scope="session")
def golden_pixels(golden_inputs) -> dict[str, torch.Tensor]:
    return {name: golden_inputs[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}


@pytest.fixture(scope="session")
def golden_outputs() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "outputs.safetensors")


def tiny_config(text_width: int = 32, vision_width: int = 32, vocab_size: int = 512) -> FGClip2Config:
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return FGClip2Config(
        text_config={"hidden_size": text_width, "projection_size": vision_width, "vocab_size": vocab_size, **sizes},
        vision_config={"hidden_size": vision_width, **sizes},
    )


@pytest.fixture
def tiny_model() -> FGClip2Model:
    """A fresh random model whose text and vision widths differ."""
    torch.manual_seed(0)
    return FGClip2Model(tiny_config(text_width=24, vision_width=32)).eval()


@pytest.fixture
def photo() -> Image.Image:
    """A smooth colour image of 160 x 120 pixels."""
    y, x = np.mgrid[0:120, 0:160]
    return Image.fromarray(np.stack([x, y * 2, (x + y) % 256], -1).astype(np.uint8))
