"""An adapter wherever a checkpoint is named: merged into the base model that it names."""

import json
import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fgclip2 import Embedder, FGClip2Embedder, FGClip2Model, embedded_checkpoint
from fgclip2.benchmarks.models import load_model
from fgclip2.cli.main import app
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.lora import add_lora, lora_config, merge_lora, save_lora
from tests.checkpoints import read_tensors

TEXTS = ["a red apple", "一只狗"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A folder with an adapter that changes something, scales included."""
    model = FGClip2ForTraining.from_pretrained(embedded_checkpoint(), dtype=torch.float32)
    model = add_lora(model, lora_config(rank=2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return save_lora(model, tmp_path_factory.mktemp("adapters") / "适配器")


@pytest.fixture(scope="module")
def expected(adapter) -> np.ndarray:
    merged = Embedder(merge_lora(adapter), Embedder.from_pretrained(device="cpu").processor, "cpu")
    vectors = merged.encode_texts(TEXTS)
    assert abs(vectors - Embedder.from_pretrained(device="cpu").encode_texts(TEXTS)).max() > 0.01
    return vectors


def test_a_subfolder_is_that_of_the_adapter(adapter, expected):
    adapter.with_name("config.json").write_text("{}")  # of something else, beside it
    embedder = Embedder.from_pretrained(adapter.parent, device="cpu", subfolder=adapter.name)
    np.testing.assert_allclose(embedder.encode_texts(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("load", [Embedder.from_pretrained, FGClip2Embedder.from_pretrained, load_model])
def test_the_embedder_merges_it(load, adapter, expected):
    embedder = load(adapter, device="cpu")
    assert type(embedder.model) is FGClip2Model
    assert embedder.name == str(adapter)
    assert embedder.fingerprint != Embedder.from_pretrained(device="cpu").fingerprint
    assert embedder.score_scale_and_bias != Embedder.from_pretrained(device="cpu").score_scale_and_bias
    np.testing.assert_allclose(embedder.encode_texts(TEXTS), expected, rtol=0, atol=1e-6)


def test_export_merges_it(adapter, expected, tmp_path):
    exported = tmp_path / "合并"
    done = CliRunner().invoke(app, ["export", str(exported), "--model", str(adapter)])
    assert done.exit_code == 0, done.output
    assert set(read_tensors(exported)) == set(read_tensors(embedded_checkpoint()))
    vectors = Embedder.from_pretrained(exported, device="cpu").encode_texts(TEXTS)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)


def test_an_adapter_without_a_base_is_named(adapter, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} is an adapter that names no base model")):
        Embedder.from_pretrained(tmp_path)


def test_a_base_that_is_not_there_is_named(adapter, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "不在/这里"}))
    with pytest.raises(OSError, match="不在/这里"):
        Embedder.from_pretrained(tmp_path)
