"""The processor: texts, images and boxes together; wrong boxes; saving."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fgclip2 import FGClip2ImageProcessor, FGClip2Processor, FGClip2Tokenizer
from fgclip2.modeling.processing_fgclip2 import MIN_BOX_SIDE, check_boxes

TOKENIZER = Path(__file__).parents[1] / "tokenization" / "gemma_small" / "saved_by_transformers_4_57"


@pytest.fixture(scope="module")
def processor() -> FGClip2Processor:
    return FGClip2Processor(FGClip2ImageProcessor(), FGClip2Tokenizer.from_pretrained(TOKENIZER))


def test_texts_and_images(processor, photo):
    inputs = processor(text=["A red apple", "一只狗"], images=photo)
    assert {name: tuple(tensor.shape) for name, tensor in inputs.items()} == {
        "input_ids": (2, 64),
        "pixel_values": (1, 128, 768),
        "pixel_attention_mask": (1, 128),
        "spatial_shapes": (1, 2),
    }
    assert processor(text="长" * 300, walk_type="long")["input_ids"].shape == (1, 196)
    assert processor(text="a dog", walk_type="box")["input_ids"].shape == (1, 64)
    assert processor(images=photo, max_num_patches=49)["pixel_values"].shape == (1, 49, 768)
    assert isinstance(processor(text="a", return_tensors="np")["input_ids"], np.ndarray)


def test_the_defaults_of_other_callers(processor, photo):
    """Transformers' pipelines ask for padding=True, sentence-transformers passes nested arguments."""
    padded = processor(text=["a", "一只狗"], padding=True)["input_ids"]
    assert padded.shape == (2, 64)
    nested = processor(
        text=["a"], text_kwargs={"walk_type": "long"}, images_kwargs={}, common_kwargs={"return_tensors": "pt"}
    )
    assert nested["input_ids"].shape == (1, 196)
    with pytest.raises(ValueError, match="unknown arguments: walk"):
        processor(text="a", walk="long")


def test_boxes_become_the_inputs_of_the_region_features(processor, golden_model, photo):
    boxes = [[[10, 20, 100, 90]], []]
    inputs = processor(images=[photo, photo.resize((32, 32))], boxes=boxes)
    assert inputs["image_sizes"] == [(120, 160), (32, 32)]
    assert inputs["region_infos"] == boxes
    with torch.no_grad():
        regions = golden_model.get_image_region_features(**inputs)
    assert [tuple(features.shape) for features in regions] == [(1, 32), (0, 32)]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([1, 2, 3], "four numbers"),
        (["a", 2, 3, 4], "four numbers"),
        ([1, 2, math.nan, 4], "not finite"),
        ([1, 2, math.inf, 4], "not finite"),
        ([50, 60, 20, 30], "inverted.*xywh"),
        ([5, 6, 5, 30], "no area"),
        ([5, 6, 5 + 1e-9, 30], "no area"),
        ([0, 0, 2**31, 2**31], "far outside its image of 160 x 120"),
        ([-1e300, 0, 1e300, 30], "far outside its image of 160 x 120"),
        ([160, 0, 170, 30], "outside its image of 160 x 120"),
        ([-9, 0, 0, 30], "outside its image of 160 x 120"),
    ],
)
def test_wrong_boxes(processor, photo, box, message):
    with pytest.raises(ValueError, match=rf"boxes\[1\]\[1\].*{message}"):
        processor(images=[photo, photo], boxes=[[], [[0, 0, 9, 9], box]])


@example([0.0, 0.0, 1.0, 0.5])
@example([0.0, 0.0, 1.0, 1.0])
@given(st.lists(st.floats(-50, 250, allow_nan=False), min_size=4, max_size=4))
def test_a_box_passes_exactly_if_it_has_area_inside_the_image_and_is_not_relative(box):
    x1, y1, x2, y2 = box
    has_area = x2 - x1 >= MIN_BOX_SIDE and y2 - y1 >= MIN_BOX_SIDE
    good = has_area and min(x2, 160) > max(x1, 0) and min(y2, 120) > max(y1, 0)
    # (0, 0, 1, 1) may be meant as a pixel.
    is_relative = all(0 <= value <= 1 for value in box) and not all(value in (0, 1) for value in box)
    if good and not is_relative:
        check_boxes([box], 120, 160)
    else:
        with pytest.raises(ValueError, match=r"boxes=.*relative" if good else r"boxes\[0\]"):
            check_boxes([box], 120, 160)


def test_wrong_calls(processor, photo):
    with pytest.raises(ValueError, match="pass images, text or both"):
        processor()
    with pytest.raises(ValueError, match="boxes are given without images"):
        processor(text="a", boxes=[[]])
    with pytest.raises(ValueError, match="boxes has 1 entries for 2 images"):
        processor(images=[photo, photo], boxes=[[[0, 0, 5, 5]]])


def test_saved_files_and_reloading(processor, tmp_path, photo):
    FGClip2Processor(FGClip2ImageProcessor(max_num_patches=256), processor.tokenizer).save_pretrained(tmp_path)
    # Older transformers and plain AutoImageProcessor read this file.
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["max_num_patches"] == 256
    reloaded = FGClip2Processor.from_pretrained(tmp_path)
    expected = processor(text="苹果 Apple", images=photo, max_num_patches=256)
    actual = reloaded(text="苹果 Apple", images=photo)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert FGClip2Processor.from_pretrained(tmp_path, max_num_patches=64).image_processor.max_num_patches == 64


@pytest.mark.parametrize("max_num_patches", ["auto", 64])
def test_a_batch_at_once_is_its_images_prepared_and_collated(processor, max_num_patches):
    images = [Image.effect_noise(size, 50).convert("RGB") for size in ((160, 120), (64, 300), (48, 48))]
    at_once = processor.process_images(images, max_num_patches)
    one_by_one = processor.collate_images([processor.prepare_image(image, max_num_patches) for image in images])
    assert at_once.keys() == one_by_one.keys()
    for name, value in one_by_one.items():
        assert torch.equal(at_once[name], value), name
