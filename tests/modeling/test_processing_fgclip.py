"""Image processor and processor of FG-CLIP, the first version: sizes, folders, boxes, wrong inputs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip2 import FGClipImageProcessor, FGClipProcessor
from fgclip2.modeling.interface import DualEncoderProcessor
from tests.tokenization.clip_vocabulary import write_tiny_vocabulary

# As in OpenAI's folders.
CLIP_PREPROCESSOR = {
    "crop_size": 32,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 32,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An official folder without a preprocessor_config.json and without weights. Don't write into it."""
    folder = write_tiny_vocabulary(tmp_path_factory.mktemp("processors") / "official")
    config = {"model_type": "clip", "architectures": ["FGCLIPModel"], "vision_config": {"image_size": 40}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def processor(folder) -> FGClipProcessor:
    return FGClipProcessor.from_pretrained(folder)


class TestImages:
    def test_squashed_not_cut(self, photo):
        """Each corner of the image is in a corner of the square."""
        pixels = FGClipImageProcessor(size=32, do_normalize=False)(photo, return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 32, 32)
        square = np.asarray(photo.resize((32, 32), Image.Resampling.BICUBIC), np.float32) / 255
        torch.testing.assert_close(pixels[0].permute(1, 2, 0), torch.from_numpy(square), rtol=0, atol=1e-6)

    def test_batches_threads_and_sizes_of_one_call(self, photo):
        processor = FGClipImageProcessor(size={"height": 32, "width": 32})
        images = [photo, photo.rotate(90, expand=True), photo.resize((7, 300))]
        together = processor(images, return_tensors="pt")["pixel_values"]
        for image, pixels in zip(images, together, strict=True):
            assert torch.equal(processor(image, return_tensors="pt")["pixel_values"][0], pixels)
        assert processor(images, size={"height": 16, "width": 24})["pixel_values"].shape == (3, 3, 16, 24)

    @pytest.mark.parametrize("size", [32, {"shortest_edge": 32}, {"height": 32, "width": 32}])
    @pytest.mark.parametrize("name", ["feature_extractor_type", "image_processor_type"])
    def test_settings_of_clip(self, size, name, tmp_path):
        settings = {**CLIP_PREPROCESSOR, "size": size, name: "CLIPImageProcessor"}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
        loaded = FGClipImageProcessor.from_pretrained(tmp_path)
        assert loaded.to_dict() == FGClipImageProcessor(size=32).to_dict()

    def test_folder_without_a_preprocessor_file(self, folder):
        assert FGClipImageProcessor.from_pretrained(folder).size == {"height": 40, "width": 40}
        assert FGClipImageProcessor.from_pretrained(folder, do_resize=False).do_resize is False

    def test_wrong_calls(self, photo):
        with pytest.raises(ValueError, match=r"`size` must be .* or one integer, got 0"):
            FGClipImageProcessor(size=0)
        with pytest.raises(ValueError, match=r"`size` must be .* or one integer, got \{'longest_edge': 9\}"):
            FGClipImageProcessor(size={"longest_edge": 9})
        with pytest.raises(ValueError, match=r"images\[1\] is 160 x 120 pixels; without resizing allowed: 32 x 32"):
            FGClipImageProcessor(size=32, do_resize=False)([photo.resize((32, 32)), photo])


class TestProcessor:
    def test_offers_what_the_package_asks_of_a_family(self, processor, photo):
        assert isinstance(processor, DualEncoderProcessor)
        assert [processor.text_length(role) for role in processor.text_roles] == [77, 248, 77]
        assert processor.patch_budgets is None
        prepared = [processor.prepare_image(image) for image in (photo, photo.resize((9, 30)))]
        assert prepared[0]["pixel_values"].shape == (3, 40, 40)
        batch = processor.collate_images(prepared)
        at_once = processor.process_images([photo, photo.resize((9, 30))])
        assert torch.equal(batch["pixel_values"], at_once["pixel_values"])
        texts = ["a cat", "一只猫" * 40]
        assert processor.count_tokens(texts)[0] == 4
        for role, length in (("caption", 77), ("long_caption", 248)):
            assert processor.tokenize(texts, role)["input_ids"].shape == (2, length)
        with pytest.raises(ValueError, match=r"`max_num_patches` must be None .* got 256: leave it out"):
            processor.prepare_image(photo, 256)

    def test_texts_images_and_boxes(self, processor, photo):
        inputs = processor(text=["a cat", "两只狗"], images=[photo], boxes=[[[10, 20, 100, 80]]], walk_type="box")
        assert list(inputs) == ["input_ids", "pixel_values", "image_sizes", "region_infos"]
        assert inputs["image_sizes"] == [(120, 160)]
        assert inputs["region_infos"] == [[[10.0, 20.0, 100.0, 80.0]]]
        official = processor(text="a cat", padding="max_length", max_length=248, truncation=True)
        assert official["input_ids"].shape == (1, 248)
        with pytest.raises(ValueError, match=r"boxes\[0\]\[0\]"):
            processor(images=[photo], boxes=[[[100, 20, 10, 80]]])
        with pytest.raises(ValueError, match="unknown arguments: max_num_patches"):
            processor(images=[photo], max_num_patches=256)

    def test_saved_and_loaded_again(self, processor, photo, tmp_path):
        processor.save_pretrained(tmp_path)
        again = FGClipProcessor.from_pretrained(tmp_path)
        arguments = {"text": ["A Cat", "两只狗"], "images": [photo]}
        first, second = processor(**arguments), again(**arguments)
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), name

    def test_folders_that_lack_files(self, folder, tmp_path):
        with pytest.raises(OSError, match=r"has no (tokenizer\.json or vocab\.json|preprocessor_config\.json)"):
            FGClipProcessor.from_pretrained(tmp_path)
        (tmp_path / "config.json").write_text((folder / "config.json").read_text())
        with pytest.raises(OSError, match=r"has no tokenizer\.json or vocab\.json"):
            FGClipProcessor.from_pretrained(tmp_path)
        write_tiny_vocabulary(tmp_path)
        (tmp_path / "merges.txt").write_text("b c d")
        with pytest.raises(ValueError, match=r"the tokenizer or image processor of .* can't be read"):
            FGClipProcessor.from_pretrained(tmp_path)
