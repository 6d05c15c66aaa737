"""Pixels that travel as bytes become the values of the image processor, to the bit, in every family that trains."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fgclip2 import FGClip2Processor, FGClipProcessor, R2D2Processor, embedded_checkpoint
from fgclip2.training.collator import prepare_images
from fgclip2.training.gradient_cache import split_batch
from fgclip2.training.pixel_values import normalize_pixels

from ..checkpoints import official_fgclip_folder, official_r2d2_folder  # noqa: F401
from . import golden

SIZES = ((40, 30), (500, 90), (3, 700), (64, 64))  # pixels, with padding of all lengths


@pytest.fixture(params=["fgclip2", "fgclip", "r2d2"])
def processor(request):
    if request.param == "fgclip2":
        return FGClip2Processor.from_pretrained(embedded_checkpoint())
    if request.param == "fgclip":
        return FGClipProcessor.from_pretrained(request.getfixturevalue("official_fgclip_folder"))
    return R2D2Processor.from_pretrained(request.getfixturevalue("official_r2d2_folder"))


@pytest.fixture
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)) for width, height in SIZES]


def assert_same_bits(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.dtype == expected.dtype == torch.float32
    assert torch.equal(actual.view(torch.int32), expected.view(torch.int32))  # 0.0 is not -0.0


def test_values_are_those_of_the_image_processor(processor, images):
    batch, expected = prepare_images(processor, images), processor.process_images(images)
    assert batch["pixels"].dtype == torch.uint8
    normalized = normalize_pixels(batch)
    assert set(normalized) == set(expected)
    assert_same_bits(normalized["pixel_values"], expected["pixel_values"])
    assert "pixels" in batch  # it was not changed
    assert normalize_pixels(normalized)["pixel_values"] is normalized["pixel_values"]


def test_part_by_part_and_none_at_all(processor, images):
    batch, expected = prepare_images(processor, images), processor.process_images(images)
    parts = [normalize_pixels(part)["pixel_values"] for part in split_batch(batch, 3)]
    assert [len(part) for part in parts] == [3, 1]
    assert_same_bits(torch.cat(parts), expected["pixel_values"])
    nothing = normalize_pixels(prepare_images(processor, []))
    assert len(nothing["pixel_values"]) == 0


def test_in_bfloat16_too(images):
    """DeepSpeed makes the table bfloat16 where it made the values so before."""
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    batch, expected = prepare_images(processor, images), processor.process_images(images)
    batch["value_table"] = batch["value_table"].bfloat16()
    assert torch.equal(normalize_pixels(batch)["pixel_values"], expected["pixel_values"].bfloat16())


def test_golden_pixels(golden_folder):
    inputs = load_file(golden_folder / "train_inputs_rank0.safetensors")
    (table,) = load_file(golden_folder / "imageproc" / "lut.safetensors").values()
    batch = {name: inputs[name] for name in ("pixels", "pixel_attention_mask")} | {"value_table": table.expand(3, -1)}
    assert torch.equal(normalize_pixels(batch)["pixel_values"], golden.batch(0)["pixel_values"])


def test_a_batch_of_the_published_size_is_small(images):
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    batch = prepare_images(processor, images[:1], 1024)
    assert 512 * batch["pixels"][0].nbytes <= 0.4 * 2**30
