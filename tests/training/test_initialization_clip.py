"""Start weights of FG-CLIP, the first version: from CLIP as the official code makes them, and from FG-CLIP itself."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel
from typer.testing import CliRunner

from fgclip2 import FGClipModel, FGClipProcessor
from fgclip2.cli.main import app
from fgclip2.training.initialization import initialize_from_checkpoint

from .. import golden_of_v1
from ..checkpoints import official_fgclip_folder, write_clip_folder  # noqa: F401
from ..golden_of_v1 import DENSE, FEATURES, GOLDEN_V1, TABLES


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """Don't write into it."""
    return write_clip_folder(tmp_path_factory.mktemp("clip") / "clip")


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: dict) -> None:
    torch.testing.assert_close(actual, expected, **tolerance)


@torch.no_grad()
def test_clip_starts_as_the_official_code_has_it(clip_folder):
    start, expected, inputs = initialize_from_checkpoint(clip_folder), golden(), golden_of_v1.inputs()
    model = start.model
    for table in ("ori", "res"):
        found = model.get_parameter(f"text_model.embeddings.position_embedding_{table}.weight")
        close(found, expected[f"out.position_embedding_{table}"], TABLES)
    scales = torch.stack([model.logit_scale, model.logit_scale_finegraind, model.logit_scale_hardneg])
    close(scales, expected["out.scales"], TABLES)
    model.config.text_config.eos_token_id = 511  # of the golden ids
    for walk_type in ("short", "long"):
        actual = model.get_text_features(inputs[f"input_ids_{walk_type}"], walk_type=walk_type)
        close(actual, expected[f"out.text_features_{walk_type}"], FEATURES)
    close(model.get_image_features(inputs["pixel_values"]), expected["out.image_features"], FEATURES)
    close(model.get_image_dense_feature(inputs["pixel_values"]), expected["out.dense_features"], DENSE)
    width, projection = 24, 20
    assert start.parameters["stretched"] == 2 * 248 * width
    assert start.parameters["copied_heads"] == width * projection + 2
    assert start.left_out == ["text_model.embeddings.position_ids"]


def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN_V1 / "conversion.safetensors")


@torch.no_grad()
def test_the_command_writes_a_folder_that_is_clip_to_short_texts(clip_folder, tmp_path):
    done = CliRunner().invoke(app, ["init", str(clip_folder), str(tmp_path / "起点"), "--json"])
    assert done.exit_code == 0, done.output
    described = json.loads(done.stdout)
    assert (described["kind"], described["position_grid"], described["text_lengths"]) == ("clip", 25, [77, 248])
    ours, theirs = FGClipModel.from_pretrained(tmp_path / "起点"), CLIPModel.from_pretrained(clip_folder).eval()
    processor = FGClipProcessor.from_pretrained(tmp_path / "起点")
    assert processor.image_processor.size == {"height": 40, "width": 40}
    ids = processor.tokenize(["a cat", "两只猫"], "caption")["input_ids"]
    theirs.text_model.eos_token_id = processor.tokenizer.eos_token_id
    features = theirs.get_text_features(ids, attention_mask=torch.ones_like(ids))
    close(ours.get_text_features(ids, walk_type="short"), getattr(features, "pooler_output", features), FEATURES)


def test_fgclip_keeps_every_weight(official_fgclip_folder):  # noqa: F811
    start = initialize_from_checkpoint(official_fgclip_folder)
    assert start.kind == "fgclip"
    assert set(start.parameters) == {"copied"}
    stored = load_file(official_fgclip_folder / "model.safetensors")
    for name, tensor in start.model.state_dict().items():
        assert torch.equal(tensor, stored[name]), name


def test_what_does_not_fit_is_named(clip_folder, tmp_path):
    with pytest.raises(ValueError, match="`num_patches` must be None for a checkpoint of clip"):
        initialize_from_checkpoint(clip_folder, num_patches=64)
    with pytest.raises(ValueError, match="`tokenizer` must be None for a checkpoint of clip"):
        initialize_from_checkpoint(clip_folder, tokenizer=clip_folder)
    damaged = shutil.copytree(clip_folder, tmp_path / "damaged")
    config = json.loads((damaged / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["max_position_embeddings"] = 20
    (damaged / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="max_position_embeddings must be at least 21, got 20"):
        initialize_from_checkpoint(damaged)
    config["text_config"] |= {"max_position_embeddings": 77, "vocab_size": 100}
    (damaged / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ entries, but text_config.vocab_size is 100"):
        initialize_from_checkpoint(damaged)
