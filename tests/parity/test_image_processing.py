"""The image processor against the official one, bit for bit."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from fgclip2 import FGClip2ImageProcessor
from fgclip2.modeling.image_processing_fgclip2 import naflex_size, patch_budget

FOLDER = Path(__file__).parents[1] / "golden" / "imageproc"
TABLE = json.loads((FOLDER / "imageproc.json").read_text())


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["case"])
def test_pixel_values(case):
    image = Image.open(FOLDER / case["source"])
    budgets = [case["max_num_patches_used"]] + (["auto"] if case["case"].endswith("@dynamic_single") else [])
    for budget in budgets:
        outputs = FGClip2ImageProcessor()(image, max_num_patches=budget, return_tensors="np")
        assert outputs["spatial_shapes"][0].tolist() == case["spatial_shape"]
        assert outputs["pixel_values"].shape == (1, case["padded_length"], 768)
        assert sha256(outputs["pixel_values"][0]) == case["pixel_values_sha256"]
        assert sha256(outputs["pixel_attention_mask"][0]) == case["pixel_attention_mask_sha256"]


def test_every_value_of_thevalue_table():
    expected = load_file(FOLDER / "lut.safetensors")["lut_u8_to_float32"]
    for channel in FGClip2ImageProcessor().value_table():
        assert np.array_equal(channel, expected)


def test_size_rule():
    for height, width, budget, target_height, target_width in TABLE["size_rule"]:
        assert naflex_size(height, width, 16, budget) == (target_height, target_width)


def test_patch_budget_rule():
    for height, width, budget in TABLE["dynamic_rule"]:
        assert patch_budget(height, width) == budget
