"""The model beyond parity: regions against a plain RoIAlign, batches, shapes, wrong inputs, export."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.utils.logging import warning_once

from fgclip2 import FGClip2Config, FGClip2ImageProcessor, FGClip2Model
from fgclip2.modeling.modeling_fgclip2 import (
    key_padding_mask,
    pool_regions,
    position_grids,
    position_grids_traceable,
    resize_position_grid,
)
from tests.conftest import tiny_config


def plain_roi_align(feature_map: torch.Tensor, box: list[float]) -> torch.Tensor:
    """RoIAlign to 1 x 1 (aligned, adaptive sampling) of one box, point by point; feature_map (h, w, D)."""
    height, width, _ = feature_map.shape
    x1, y1, x2, y2 = (torch.tensor(value, dtype=torch.float32) - 0.5 for value in box)
    count_x, count_y = math.ceil(x2 - x1), math.ceil(y2 - y1)
    total = torch.zeros(feature_map.shape[-1])
    if count_x <= 0 or count_y <= 0:
        return total
    for i in range(count_y):
        for j in range(count_x):
            y = float(y1 + (i + 0.5) * (y2 - y1) / count_y)
            x = float(x1 + (j + 0.5) * (x2 - x1) / count_x)
            if not (-1 <= y <= height and -1 <= x <= width):
                continue
            y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
            top, left = min(int(y), height - 1), min(int(x), width - 1)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            upper = feature_map[top, left] * (1 - dx) + feature_map[top, right] * dx
            lower = feature_map[bottom, left] * (1 - dx) + feature_map[bottom, right] * dx
            total += upper * (1 - dy) + lower * dy
    return total / (count_x * count_y)


coordinate = st.floats(-6, 14, width=32)


@settings(max_examples=150)
@given(
    grid=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    boxes=st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), min_size=1, max_size=4),
)
def test_regions_equal_a_plain_roi_align(grid, boxes):
    height, width = grid
    feature_map = torch.randn(height, width, 3, generator=torch.Generator().manual_seed(height * 10 + width))
    padding = torch.full((5, 3), 1e6)  # must never be mixed in
    dense = torch.cat([feature_map.flatten(0, 1), padding])[None]
    pooled = pool_regions(dense, torch.tensor([grid]), torch.tensor([boxes]))[0]
    expected = torch.stack([plain_roi_align(feature_map, list(box)) for box in boxes])
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-4)


def test_a_box_far_larger_than_the_map_costs_no_memory_for_its_outside():
    dense = torch.randn(1, 12, 3)
    pooled = pool_regions(dense, torch.tensor([[3, 4]]), torch.tensor([[[-1e7, -1e7, 1e7, 1e7]]]))
    assert pooled.abs().max() < 1e-6


def test_regions_of_images_with_different_grids_in_one_batch():
    maps = [torch.randn(2, 3, 4), torch.randn(5, 1, 4)]
    shapes = torch.tensor([[2, 3], [5, 1]])
    dense = torch.zeros(2, 6, 4)
    for index, feature_map in enumerate(maps):
        dense[index, : feature_map.shape[0] * feature_map.shape[1]] = feature_map.flatten(0, 1)
    boxes = torch.tensor([[[0.0, 0, 3, 2], [1, 0.5, 2.5, 1.5]], [[0, 0, 1, 5], [0.2, 1, 0.9, 3.3]]])
    pooled = pool_regions(dense, shapes, boxes)
    for index, feature_map in enumerate(maps):
        for row, box in enumerate(boxes[index].tolist()):
            torch.testing.assert_close(pooled[index, row], plain_roi_align(feature_map, box), rtol=1e-4, atol=1e-5)


def test_regions_are_differentiable():
    dense = torch.randn(1, 6, 4, requires_grad=True)
    pool_regions(dense, torch.tensor([[2, 3]]), torch.tensor([[[0.0, 0, 3, 2]]])).sum().backward()
    assert (dense.grad.abs().sum(-1) > 0).all()


@torch.no_grad()
def test_features_do_not_depend_on_the_batch(tiny_model, photo):
    processor = FGClip2ImageProcessor()
    images = [photo, photo.resize((40, 300)), photo.resize((900, 700))]
    together = processor(images, return_tensors="pt")
    sizes = [(image.height, image.width) for image in images]
    boxes = [[[1, 2, 30, 40]], [], [[0, 0, 900, 700], [10, 10, 300, 200]]]
    features = tiny_model.get_image_features(**together)
    regions = tiny_model.get_image_region_features(**together, image_sizes=sizes, region_infos=boxes)
    for index, image in enumerate(images):
        alone = processor([image], return_tensors="pt")
        torch.testing.assert_close(features[index], tiny_model.get_image_features(**alone)[0], rtol=1e-5, atol=1e-5)
        alone_regions = tiny_model.get_image_region_features(
            **alone, image_sizes=[sizes[index]], region_infos=[boxes[index]]
        )
        torch.testing.assert_close(regions[index], alone_regions[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_plain_square_images_equal_patches(tiny_model):
    image = Image.effect_noise((64, 64), 80).convert("RGB")
    patches = FGClip2ImageProcessor()(image, max_num_patches=16, do_resize=False, return_tensors="pt")
    plain = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    torch.testing.assert_close(
        tiny_model.get_image_features(plain), tiny_model.get_image_features(**patches), rtol=1e-5, atol=1e-5
    )
    boxes = {"image_sizes": [(64, 64)], "region_infos": [[[3, 4, 40, 60]]]}
    torch.testing.assert_close(
        tiny_model.get_image_region_features(plain, **boxes),
        tiny_model.get_image_region_features(**patches, **boxes),
        rtol=1e-5,
        atol=1e-5,
    )


def test_parameter_counts_of_the_presets():
    for name, count in (("base", 383_803_394), ("large", 896_622_594), ("so400m", 1_154_017_410)):
        with torch.device("meta"):
            model = FGClip2Model(FGClip2Config.from_preset(name))
        assert sum(parameter.numel() for parameter in model.parameters()) == count
    with pytest.raises(ValueError, match="'huge'; allowed: base, large, so400m"):
        FGClip2Config.from_preset("huge")


@torch.no_grad()
def test_eager_attention_equals_sdpa(golden_folder, golden_pixels, golden_inputs):
    outputs = []
    for implementation in ("eager", "sdpa"):
        model = FGClip2Model.from_pretrained(golden_folder / "model", attn_implementation=implementation).eval()
        assert model.dense_feature_head.attention.config._attn_implementation == implementation
        masked = model.get_text_features(golden_inputs["input_ids_short"], golden_inputs["attention_mask_short"])
        outputs.append(
            (model.get_image_features(**golden_pixels), model.get_image_dense_feature(**golden_pixels), masked)
        )
    for eager, sdpa in zip(*outputs, strict=True):
        torch.testing.assert_close(eager, sdpa, rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_attention_can_be_switched_on_a_loaded_model(golden_folder, golden_pixels, caplog):
    model = FGClip2Model.from_pretrained(golden_folder / "model", attn_implementation="sdpa").eval()
    dense = model.get_image_dense_feature(**golden_pixels)
    model.set_attn_implementation("eager")
    modules = [module for module in model.modules() if hasattr(module, "num_heads")]
    assert modules
    assert {module.config._attn_implementation for module in modules} == {"eager"}
    torch.testing.assert_close(model.get_image_dense_feature(**golden_pixels), dense, rtol=1e-4, atol=2e-5)
    assert "does not support" not in caplog.text


def test_masks_are_never_square():
    mask = torch.tensor([[1, 1, 0]])
    assert key_padding_mask(mask, "sdpa").shape == (1, 1, 1, 3)
    assert key_padding_mask(torch.ones(2, 3), "sdpa") is None
    assert key_padding_mask(None, "sdpa") is None
    assert key_padding_mask(mask, "flash_attention_2").shape == (1, 3)


def test_gradient_checkpointing_changes_no_gradient(golden_pixels, golden_inputs, golden_folder):
    gradients = []
    for checkpointing in (False, True):
        model = FGClip2Model.from_pretrained(golden_folder / "model").train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        ids = golden_inputs["input_ids_short"]
        model(input_ids=ids, **golden_pixels, return_loss=True).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-6)


def test_initial_weights_give_the_siglip_temperature_and_bias(tiny_model):
    assert tiny_model.logit_scale.item() == pytest.approx(math.log(10))
    assert tiny_model.logit_bias.item() == -10
    for name, parameter in tiny_model.named_parameters():
        assert parameter.isfinite().all(), name


@torch.no_grad()
def test_hidden_states_and_return_dict(tiny_model, golden_pixels, golden_inputs):
    outputs = tiny_model.vision_model(**golden_pixels, output_hidden_states=True)
    assert len(outputs.hidden_states) == tiny_model.config.vision_config.num_hidden_layers + 1
    wrapped = tiny_model.get_text_features(golden_inputs["input_ids_long"], return_dict=True)
    plain = tiny_model.get_text_features(golden_inputs["input_ids_long"], walk_type="long")
    assert torch.equal(wrapped.pooler_output, plain)
    assert plain.shape == (4, 32)  # the text width is 24


@torch.no_grad()
def test_texts_without_their_padding_are_warned_of(tiny_model, caplog):
    warning_once.cache_clear()  # other tests may have been warned
    ids = torch.ones(1, 64, dtype=torch.long)
    tiny_model.get_text_features(ids)
    assert "less than 64 tokens" not in caplog.text
    tiny_model.get_text_features(ids[:, :5])
    assert "less than 64 tokens, whose vectors are others" in caplog.text


class TestWrongInputs:
    def test_walks(self, tiny_model):
        ids = torch.ones(1, 196, dtype=torch.long)
        with pytest.raises(ValueError, match="takes 1 to 64: truncate to max_length=64, or use walk_type='long'"):
            tiny_model.get_text_features(ids, walk_type="short")
        with pytest.raises(ValueError, match="takes exactly 196"):
            tiny_model.get_text_features(ids[:, :100])
        with pytest.raises(ValueError, match="takes exactly 196"):
            tiny_model.get_text_features(ids[:, :64], walk_type="long")
        with pytest.raises(ValueError, match="walk_type must be one of 'short', 'long', 'box' or None, got 'medium'"):
            tiny_model.get_text_features(ids[:, :64], walk_type="medium")
        with pytest.raises(ValueError, match=r"allowed: \(texts, tokens\)"):
            tiny_model.get_text_features(ids[0])

    def test_pixels(self, tiny_model, golden_pixels):
        with pytest.raises(ValueError, match="spatial_shapes is missing"):
            tiny_model.get_image_features(golden_pixels["pixel_values"])
        with pytest.raises(ValueError, match=r"spatial_shapes has shape \(2, 2\)"):
            tiny_model.get_image_features(golden_pixels["pixel_values"], None, golden_pixels["spatial_shapes"][:2])
        with pytest.raises(ValueError, match=r"grid \(40, 40\), but pixel_values has 256"):
            tiny_model.get_image_features(golden_pixels["pixel_values"], None, torch.full((4, 2), 40))
        with pytest.raises(ValueError, match="60x64; sides must be multiples of 16"):
            tiny_model.get_image_features(torch.zeros(1, 3, 60, 64))
        with pytest.raises(ValueError, match="pass input_ids, pixel_values or both"):
            tiny_model()

    def test_regions(self, tiny_model, golden_pixels):
        with pytest.raises(ValueError, match="pass region_infos"):
            tiny_model.get_image_region_features(**golden_pixels)
        with pytest.raises(ValueError, match="4 images, but region_infos has 1 and image_sizes 4"):
            tiny_model.get_image_region_features(**golden_pixels, image_sizes=[(9, 9)] * 4, region_infos=[[]])
        with pytest.raises(ValueError, match=r"region_infos\[1\] has shape \(1, 3\)"):
            tiny_model.get_image_region_features(
                **golden_pixels, image_sizes=[(9, 9)] * 4, region_infos=[[], [[1, 2, 3]], [], []]
            )

    def test_configurations(self):
        with pytest.raises(ValueError, match=r"must equal vision_config\.hidden_size=32"):
            FGClip2Model(FGClip2Config(text_config={"hidden_size": 24}, vision_config={"hidden_size": 32}))
        config = tiny_config()
        config.vision_config.num_patches = 250
        with pytest.raises(ValueError, match="250 is not a square number"):
            FGClip2Model(config)
        config = tiny_config()
        config.text_config.num_attention_heads = 5
        with pytest.raises(ValueError, match="not divisible by num_attention_heads=5"):
            FGClip2Model(config)


class TestPositionGrids:
    table = torch.randn(16, 16, 8, generator=torch.Generator().manual_seed(1))

    @pytest.mark.parametrize(
        "grid", [(1, 1), (16, 16), (9, 14), (64, 16), (1, 64), (64, 1), (128, 128), (3, 300), (2, 1)]
    )
    def test_equal_to_interpolate(self, grid):
        expected = F.interpolate(self.table.permute(2, 0, 1)[None], grid, mode="bilinear", antialias=True)
        ours = resize_position_grid(self.table, *grid)
        torch.testing.assert_close(ours, expected[0].flatten(1).T, rtol=0, atol=1e-6)

    def test_traceable_form(self):
        shapes = torch.tensor([[4, 5], [1, 7], [20, 20], [2, 3]])
        expected = position_grids(self.table, shapes, 420)
        torch.testing.assert_close(position_grids_traceable(self.table, shapes, 420), expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_export_with_dynamic_batch_patches_and_grids(tiny_model, photo):
    class Regionless(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, pixel_values, pixel_attention_mask, spatial_shapes):
            inputs = (pixel_values, pixel_attention_mask, spatial_shapes)
            return self.model.get_image_features(*inputs), self.model.get_image_dense_feature(*inputs)

    processor = FGClip2ImageProcessor()
    names = ("pixel_values", "pixel_attention_mask", "spatial_shapes")
    example = processor([photo, photo.resize((30, 200))], max_num_patches=64, return_tensors="pt")
    batch, patches = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("patches", min=2, max=4096)
    dynamic = ({0: batch, 1: patches}, {0: batch, 1: patches}, {0: batch})
    program = torch.export.export(
        Regionless(tiny_model), tuple(example[name] for name in names), dynamic_shapes=dynamic
    )
    other = processor([photo.resize((77, 50))] * 3, max_num_patches=49, return_tensors="pt")
    inputs = tuple(other[name] for name in names)
    with torch.no_grad():
        for exported, expected in zip(program.module()(*inputs), Regionless(tiny_model)(*inputs), strict=True):
            torch.testing.assert_close(exported, expected, rtol=1e-5, atol=1e-5)


def test_adapters_on_every_output_projection_are_trained(tiny_model, golden_pixels, golden_inputs):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_model, LoraConfig(r=2, target_modules=["out_proj"], init_lora_weights=False))
    base = model.get_base_model()
    loss = base(input_ids=golden_inputs["input_ids_short"], **golden_pixels, return_loss=True).loss
    (loss + base.get_image_dense_feature(**golden_pixels).pow(2).mean()).backward()
    adapters = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert any("dense_feature_head" in name for name in adapters)
    for name, parameter in adapters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
