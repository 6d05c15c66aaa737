"""The image processor: modes, orientation, arrays, budgets, wrong images."""

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fgclip2 import FGClip2ImageProcessor
from fgclip2.modeling.image_processing_fgclip2 import PATCH_BUDGETS, load_image, naflex_size, patch_budget


@pytest.fixture(scope="module")
def processor() -> FGClip2ImageProcessor:
    return FGClip2ImageProcessor()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes(photo, processor, mode):
    image = photo.convert("RGBA").convert("LA") if mode == "LA" else photo.convert(mode)
    assert load_image(image).mode == "RGB"
    assert np.array_equal(np.asarray(load_image(image)), np.asarray(image.convert("RGB")))
    assert processor(image)["pixel_values"].shape == (1, 128, 768)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    path = tmp_path / "灰度.png"
    Image.fromarray(values).save(path)
    expected = np.round(values / 257).astype(np.uint8)
    assert np.array_equal(np.asarray(load_image(path))[..., 0], expected)
    assert np.array_equal(np.asarray(load_image(values))[..., 2], expected)


def test_exif_orientation(tmp_path, photo):
    path = tmp_path / "竖拍.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(path, exif=exif, quality=95)
    upright = load_image(path)
    assert upright.size == (photo.height, photo.width)
    assert upright.getexif().get(0x0112, 1) == 1


def test_arrays_paths_and_images_give_the_same(tmp_path, photo, processor):
    path = tmp_path / "图像.png"
    photo.save(path)
    array = np.asarray(photo)
    expected = processor(photo)["pixel_values"]
    inputs = [
        path,
        str(path),
        array,
        array.transpose(2, 0, 1),
        torch.from_numpy(array.copy()),
        array / 255.0,
        array / np.float32(255),
    ]
    for given_input in inputs:
        assert np.array_equal(processor(given_input)["pixel_values"], expected)
    grey = array[..., 0]
    assert np.array_equal(processor(grey)["pixel_values"], processor(np.stack([grey] * 3, -1))["pixel_values"])


def test_a_batch_of_tensors_and_return_tensors(processor):
    batch = processor(torch.rand(2, 3, 32, 48), return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 128, 768)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_attention_mask"].dtype == torch.int32
    assert batch["spatial_shapes"].dtype == torch.int64


def test_animation_gives_its_first_frame(tmp_path, photo):
    path = tmp_path / "动画.gif"
    frames = [photo.convert("P"), Image.new("P", photo.size, 7)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    first = Image.open(path)
    assert np.array_equal(np.asarray(load_image(path)), np.asarray(first.convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (16, 16), (17, 15)])
def test_extreme_sizes(processor, size):
    batch = processor(Image.new("RGB", size, "red"))
    height, width = batch["spatial_shapes"][0]
    assert 1 <= height * width <= 128
    assert batch["pixel_attention_mask"].sum() == height * width


def test_auto_gives_each_image_its_own_budget(photo, processor):
    large = photo.resize((600, 500))
    batch = processor([photo, large])
    alone = processor(photo)
    assert batch["pixel_values"].shape[1] == patch_budget(500, 600) == 1024
    assert np.array_equal(batch["spatial_shapes"][0], alone["spatial_shapes"][0])
    assert np.array_equal(batch["pixel_values"][0, :128], alone["pixel_values"][0])
    assert not batch["pixel_values"][0, 128:].any()


@settings(max_examples=100)
@given(st.integers(1, 6000), st.integers(1, 6000), st.sampled_from([*PATCH_BUDGETS, 1, 7, 16384]))
def test_sizes_fit_their_budget(height, width, budget):
    target = naflex_size(height, width, 16, budget)
    assert all(side % 16 == 0 and side >= 16 for side in target)
    assert target[0] * target[1] // 256 <= budget


class TestWrongInputs:
    def test_files(self, tmp_path, photo, processor):
        whole = io.BytesIO()
        photo.save(whole, "JPEG")
        truncated = tmp_path / "截断.jpg"
        truncated.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
        text = tmp_path / "note.png"
        text.write_text("not an image")
        empty = tmp_path / "empty.png"
        empty.touch()
        for path in (truncated, text, empty):
            with pytest.raises(ValueError, match=rf"images\[1\]: .*{path.name}: not a readable image"):
                processor([photo, path])
        with pytest.raises(FileNotFoundError, match=r"missing\.png: no such image file"):
            processor(tmp_path / "missing.png")
        with pytest.raises(ValueError, match="addresses are not fetched"):
            processor("https://example.com/a.png")

    def test_objects(self, processor):
        with pytest.raises(ValueError, match="empty list"):
            processor([])
        with pytest.raises(ValueError, match=r"images\[0\]: an image is a int"):
            processor([3])
        with pytest.raises(ValueError, match=r"shape \(5, 5, 7\)"):
            processor(np.zeros((5, 5, 7), np.uint8))
        with pytest.raises(ValueError, match="allowed for floats: 0 to 1"):
            processor(np.full((4, 5, 3), 200.0))
        with pytest.raises(ValueError, match="values from nan to nan"):
            processor(np.full((4, 5, 3), np.nan))
        with pytest.raises(ValueError, match="values from -1"):
            processor(np.full((4, 5, 3), -1, np.int32))
        with pytest.raises(ValueError, match="allowed: integers or floats"):
            processor(np.zeros((4, 5, 3), bool))

    def test_settings(self, photo, processor):
        for value in ("large", 0, -3, 2.5, True):
            with pytest.raises(ValueError, match="must be 'auto' or a positive integer, got"):
                processor(photo, max_num_patches=value)
        with pytest.raises(ValueError, match="multiples of 16"):
            processor(photo.resize((33, 20)), do_resize=False)


def test_saved_settings_come_back_but_official_ones_do_not_override_auto(tmp_path):
    FGClip2ImageProcessor(max_num_patches=576).save_pretrained(tmp_path)
    assert FGClip2ImageProcessor.from_pretrained(tmp_path).max_num_patches == 576
    stored = {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 256, "patch_size": 16}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stored))
    assert FGClip2ImageProcessor.from_pretrained(tmp_path).max_num_patches == "auto"
    assert FGClip2ImageProcessor.from_pretrained(tmp_path, max_num_patches=784).max_num_patches == 784


def test_different_means_per_channel(photo):
    processor = FGClip2ImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7])
    batch = processor(photo.resize((32, 32)), do_resize=False)
    expected = (np.asarray(photo.resize((32, 32)))[:16, :16] / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    assert np.allclose(batch["pixel_values"][0, 0], expected.reshape(-1), atol=1e-6)


def test_a_batch_equals_its_images_one_by_one_however_many_threads():
    generator = np.random.default_rng(0)
    sizes = [(48, 64), (97, 33), (16, 160), (200, 120), (31, 31)]
    images = [Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    processor = FGClip2ImageProcessor(max_num_patches=64)
    alone = [processor(image)["pixel_values"][0] for image in images]
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert np.array_equal(processor(images)["pixel_values"], np.stack(alone))
    finally:
        torch.set_num_threads(threads)


def test_errors_in_a_batch_name_the_image():
    images = [Image.new("RGB", (32, 32)), Image.new("RGB", (33, 32))]
    with pytest.raises(ValueError, match=r"images\[1\] is 33 x 32 pixels"):
        FGClip2ImageProcessor(max_num_patches=64, do_resize=False)(images)
