"""Exported folders name classes of transformers; where this package is imported, Auto classes give its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from fgclip2 import (
    FGClip2ImageProcessor,
    FGClip2Processor,
    FGClip2Tokenizer,
    FGClipImageProcessor,
    FGClipTokenizer,
)
from fgclip2.embedding.fingerprint import checkpoint_fingerprint
from fgclip2.hub import export_checkpoint
from fgclip2.hub._folders import update_json
from tests.checkpoints import load

TEXTS = ["A Black CAT", "一只黑猫趴在窗台上"]


@pytest.fixture(scope="module", params=["fgclip2", "fgclip"])
def folder(request) -> Path:
    return request.getfixturevalue({"fgclip2": "exported_folder", "fgclip": "exported_fgclip_folder"}[request.param])


def test_auto_classes_give_ours(folder, photo):
    _, processor = load(folder)
    tokenizer, image_processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    assert type(tokenizer) is type(processor.tokenizer) in (FGClip2Tokenizer, FGClipTokenizer)
    assert type(image_processor) is type(processor.image_processor) in (FGClip2ImageProcessor, FGClipImageProcessor)
    assert tokenizer(TEXTS, padding=True) == processor.tokenizer(TEXTS)
    pixels = image_processor(photo, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, processor.image_processor(photo, return_tensors="pt")["pixel_values"])


def test_classes_of_transformers_by_name_give_ours_too(folder, official_folder, official_fgclip_folder):
    """An official folder gives the class of transformers whose name is in the exported one."""
    official = official_folder if "fgclip2" in (folder / "config.json").read_text() else official_fgclip_folder
    stock = type(AutoImageProcessor.from_pretrained(official))
    assert stock.__module__.startswith("transformers.")
    assert type(stock.from_pretrained(folder)) in (FGClip2ImageProcessor, FGClipImageProcessor)
    assert type(PreTrainedTokenizerFast.from_pretrained(folder)) in (FGClip2Tokenizer, FGClipTokenizer)


def test_settings_of_ours_are_as_they_were(folder, official_folder, official_fgclip_folder):
    official = official_folder if "fgclip2" in (folder / "config.json").read_text() else official_fgclip_folder
    found, expected = (
        checkpoint_fingerprint("", model.config, processor) for model, processor in map(load, (folder, official))
    )
    assert found == expected  # so indexes and results of the checkpoint stay those of its export


@pytest.mark.parametrize("budget", [576, "auto"])
def test_a_budget_given_to_the_auto_class_counts(exported_folder, budget):
    assert AutoImageProcessor.from_pretrained(exported_folder, max_num_patches=budget).max_num_patches == budget


def test_an_integer_budget_is_that_of_both(official_folder, tmp_path):
    model, _ = load(official_folder)
    export_checkpoint(model, FGClip2Processor.from_pretrained(official_folder, max_num_patches=784), tmp_path / "导出")
    settings = json.loads((tmp_path / "导出" / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert settings["max_num_patches"] == 784
    assert FGClip2Processor.from_pretrained(tmp_path / "导出").image_processor.max_num_patches == 784


def test_tokenizer_json_alone_cuts_and_pads(exported_folder):
    backend = Tokenizer.from_file(str(exported_folder / "tokenizer.json"))
    ours = FGClip2Tokenizer.from_pretrained(exported_folder)
    texts = [*TEXTS, "词语 words " * 99]
    assert [encoding.ids for encoding in backend.encode_batch(texts)] == ours(texts)["input_ids"]
    assert ours.encode(TEXTS[0])[-1] == ours.eos_token_id


def test_folders_of_before_load_as_they_did(exported_folder, photo, tmp_path):
    """They named our classes, and neither cut nor padded in tokenizer.json."""
    folder = shutil.copytree(exported_folder, tmp_path / "以前")
    ours = {"image_processor_type": "FGClip2ImageProcessor", "max_num_patches": "auto"}
    for name in ("preprocessor_config.json", "processor_config.json"):
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        nested = settings.get("image_processor", settings)
        del nested["own_max_num_patches"]
        nested |= ours
        (folder / name).write_text(json.dumps(settings), encoding="utf-8")
    update_json(folder / "tokenizer_config.json", tokenizer_class="FGClip2Tokenizer", model_max_length=196)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(folder / "tokenizer.json"))
    before, now = AutoProcessor.from_pretrained(folder), AutoProcessor.from_pretrained(exported_folder)
    assert type(AutoImageProcessor.from_pretrained(folder)) is FGClip2ImageProcessor
    assert AutoTokenizer.from_pretrained(folder)(TEXTS) == now.tokenizer(TEXTS)
    for name, tensor in now(text=TEXTS, images=[photo]).items():
        assert torch.equal(before(text=TEXTS, images=[photo])[name], tensor), name


def test_other_folders_keep_the_classes_that_they_name(official_folder, official_fgclip_folder):
    """Also those of SigLIP 2 and CLIP, whose names exported folders use."""
    for folder, name in ((official_folder, "Siglip2ImageProcessor"), (official_fgclip_folder, "CLIPImageProcessor")):
        assert type(AutoImageProcessor.from_pretrained(folder)).__name__.startswith(name)
        assert type(AutoTokenizer.from_pretrained(folder)).__module__.startswith("transformers.")
