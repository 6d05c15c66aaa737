"""Image processor and processor of R2D2: squares, folders, wrong inputs."""

import shutil

import pytest
import torch

from fgclip2 import R2D2ImageProcessor, R2D2Processor, R2D2Tokenizer
from fgclip2.modeling.interface import DualEncoderProcessor
from tests.golden_of_r2d2 import GOLDEN_R2D2


@pytest.fixture(scope="module")
def processor() -> R2D2Processor:
    tokenizer = R2D2Tokenizer(vocab_file=str(GOLDEN_R2D2 / "vocab.txt"), short_length=24)
    return R2D2Processor(R2D2ImageProcessor(size={"height": 32, "width": 32}), tokenizer)


def test_offers_what_the_package_asks_of_a_family(processor, photo):
    assert isinstance(processor, DualEncoderProcessor)
    assert processor.text_roles == ("caption",)
    assert processor.text_length("caption") == processor.max_caption_tokens == 24
    prepared = [processor.prepare_image(image) for image in (photo, photo.resize((9, 30)))]
    batch = processor.collate_images(prepared)
    assert torch.equal(batch["pixel_values"], processor.process_images([photo, photo.resize((9, 30))])["pixel_values"])
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    assert processor.count_tokens(["红猫", "大" * 40]) == [4, 42]
    texts = processor.tokenize(["红猫", "大" * 40], "caption")
    assert list(texts) == ["input_ids", "attention_mask"]
    assert texts["attention_mask"].sum(1).tolist() == [4, 24]
    with pytest.raises(ValueError, match=r"`max_num_patches` must be None .* got 256"):
        processor.prepare_image(photo, 256)


def test_texts_and_images(processor, photo):
    inputs = processor(text=["红猫", "大车"], images=[photo])
    assert list(inputs) == ["input_ids", "attention_mask", "pixel_values"]
    assert processor(text=["红猫"], padding="max_length", truncation=True)["input_ids"].shape == (1, 24)
    with pytest.raises(ValueError, match="unknown arguments: boxes"):
        processor(images=[photo], boxes=[[[0, 0, 5, 5]]])
    with pytest.raises(ValueError, match="pass images, text or both"):
        processor()


def test_saved_and_loaded_again(processor, photo, tmp_path):
    processor.save_pretrained(tmp_path)
    again = R2D2Processor.from_pretrained(tmp_path)
    assert again.text_length("caption") == 24
    arguments = {"text": ["红猫 A Dog", "两只狗"], "images": [photo]}
    first, second = processor(**arguments), again(**arguments)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_folder_with_a_plain_vocabulary(processor, tmp_path):
    processor.image_processor.save_pretrained(tmp_path)
    with pytest.raises(OSError, match=r"has no tokenizer\.json or vocab\.txt"):
        R2D2Processor.from_pretrained(tmp_path)
    shutil.copyfile(GOLDEN_R2D2 / "vocab.txt", tmp_path / "vocab.txt")
    assert (
        R2D2Processor.from_pretrained(tmp_path).tokenizer("红猫")["input_ids"]
        == processor.tokenizer("红猫")["input_ids"]
    )
