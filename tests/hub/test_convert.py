"""convert_checkpoint: from the official layout to ours."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from fgclip2 import FGClip2ImageProcessor, FGClip2Model, FGClip2Processor, FGClip2Tokenizer, FGClipModel
from fgclip2.hub import convert, convert_checkpoint
from tests.checkpoints import read_tensors
from tests.interpreters import run_python

TEXTS = ["A Black Cat", "一只黑猫"]


@pytest.fixture
def source(official_folder, tmp_path):
    """A copy to damage."""
    return shutil.copytree(official_folder, tmp_path / "source")


@pytest.fixture(scope="module")
def converted(official_folder, tmp_path_factory):
    return convert_checkpoint(official_folder, tmp_path_factory.mktemp("convert") / "converted")


def test_files_are_ours_and_weights_the_same_bytes(official_folder, converted):
    assert {path.name for path in converted.iterdir()} == {
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "preprocessor_config.json",
        "processor_config.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    name = "model.safetensors"
    assert (converted / name).read_bytes() == (official_folder / name).read_bytes()
    config = json.loads((converted / "config.json").read_text())
    assert config["architectures"] == ["FGClip2Model"]
    assert config["dtype"] == "float32"
    assert not {"auto_map", "custom_pipelines"} & config.keys()


def test_the_first_fg_clip(official_fgclip_folder, converted_fgclip_folder, converted):
    """Tests of what the Auto classes make of it are in tests/load."""
    names = {path.name for path in converted_fgclip_folder.iterdir()}
    assert names == {path.name for path in converted.iterdir()}
    name = "model.safetensors"
    assert (converted_fgclip_folder / name).read_bytes() == (official_fgclip_folder / name).read_bytes()
    config = json.loads((converted_fgclip_folder / "config.json").read_text())
    assert (config["model_type"], config["architectures"], config["dtype"]) == ("fgclip", ["FGClipModel"], "float32")
    assert not {"auto_map", "torch_dtype"} & config.keys()
    assert config["text_config"]["eos_token_id"] == 519


def test_the_first_fg_clip_with_stored_positions(official_fgclip_folder, tmp_path):
    """As releases of transformers before 4.31 saved it."""
    source = shutil.copytree(official_fgclip_folder, tmp_path / "source")
    weights = {**read_tensors(source), "text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    _, info = FGClipModel.from_pretrained(convert_checkpoint(source, tmp_path / "out"), output_loading_info=True)
    assert not any(info.values())


def test_auto_classes_are_right_on_it(official_folder, converted):
    tokenizer = AutoTokenizer.from_pretrained(converted)
    image_processor = AutoImageProcessor.from_pretrained(converted)
    processor = AutoProcessor.from_pretrained(converted)
    assert type(tokenizer) is type(processor.tokenizer) is FGClip2Tokenizer
    assert type(image_processor) is type(processor.image_processor) is FGClip2ImageProcessor
    assert type(processor) is FGClip2Processor
    assert image_processor.max_num_patches == processor.image_processor.max_num_patches == "auto"
    expected = FGClip2Tokenizer.from_pretrained(official_folder)(TEXTS)["input_ids"]
    assert tokenizer(TEXTS)["input_ids"] == processor.tokenizer(TEXTS)["input_ids"] == expected


def test_shards(official_folder, source, tmp_path):
    (source / "model.safetensors").unlink()
    FGClip2Model.from_pretrained(official_folder).save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    shards = list((tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) > 2
    for path in [*shards, tmp_path / "sharded" / "model.safetensors.index.json"]:
        shutil.copyfile(path, source / path.name)
    output = convert_checkpoint(source, tmp_path / "out")
    assert all((output / path.name).read_bytes() == path.read_bytes() for path in shards)
    weights = load_file(official_folder / "model.safetensors")
    loaded = FGClip2Model.from_pretrained(output).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_scales_of_a_training_checkpoint_are_no_fault(source, tmp_path):
    weights = load_file(source / "model.safetensors")
    weights |= {name: torch.tensor(4.6) for name in ("logit_scale_finegraind", "logit_scale_hardneg")}
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    _, info = FGClip2Model.from_pretrained(convert_checkpoint(source, tmp_path / "out"), output_loading_info=True)
    assert not any(info.values())


def test_licences_and_card_come_along(source, tmp_path):
    for name in ("LICENSE", "NOTICE.txt", "README.md", "secrets.txt"):
        (source / name).write_text(name)
    output = convert_checkpoint(source, tmp_path / "out")
    assert {path.name for path in output.iterdir() if path.suffix in ("", ".txt", ".md")} == {
        "LICENSE",
        "NOTICE.txt",
        "README.md",
    }


def test_links_of_the_cache_of_the_hub_are_followed(official_folder, tmp_path):
    (tmp_path / "snapshot").mkdir()
    for path in official_folder.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    output = convert_checkpoint(tmp_path / "snapshot", tmp_path / "out")
    assert not any(path.is_symlink() for path in output.iterdir())


def test_the_source_stays_as_it_is(source, tmp_path):
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    output = convert_checkpoint(source, tmp_path / "out")
    (output / "model.safetensors").write_bytes(b"")  # a copy, not a link
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def test_converting_again_changes_nothing(converted, tmp_path):
    again = convert_checkpoint(converted, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in converted.iterdir()
    }


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_nothing(error, official_folder, tmp_path, monkeypatch):
    def fail(path, target):
        target.write_bytes(b"half")
        raise error

    monkeypatch.setattr(convert.shutil, "copyfile", fail)
    with pytest.raises(type(error)):
        convert_checkpoint(official_folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_nothing_that_looks_like_a_checkpoint(official_folder, tmp_path):
    code = f"""
import os, shutil, signal
from fgclip2.hub import convert_checkpoint
def die(path, target):
    target.write_bytes(path.read_bytes()[:1000])
    os.kill(os.getpid(), signal.SIGKILL)
shutil.copyfile = die
convert_checkpoint({str(official_folder)!r}, {str(tmp_path / "out")!r})
"""
    assert run_python("-c", code).returncode == -9
    assert not (tmp_path / "out").exists()
    (partial,) = tmp_path.iterdir()
    assert partial.match(".out.*.partial")
    assert not (partial / "config.json").exists()


def write_index(source, names: dict[str, str]) -> None:
    (source / "model.safetensors").rename(source / "part.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_that_leads_elsewhere_is_refused(name, source, tmp_path):
    shutil.copyfile(source / "model.safetensors", tmp_path / "elsewhere.safetensors")
    write_index(source, {"logit_scale": name})
    with pytest.raises(ValueError, match=r"index.json must name .safetensors files in this folder"):
        convert_checkpoint(source, tmp_path / "out")


def test_a_missing_shard_is_named(source, tmp_path):
    write_index(source, {"logit_scale": "part.safetensors", "logit_bias": "model-00002-of-00002.safetensors"})
    with pytest.raises(ValueError, match=r"model-00002-of-00002.safetensors, which is missing"):
        convert_checkpoint(source, tmp_path / "out")


def test_pickled_weights_are_refused(source, tmp_path):
    (source / "model.safetensors").unlink()
    torch.save({}, source / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin may run code when loaded.*safetensors"):
        convert_checkpoint(source, tmp_path / "out")


def test_a_truncated_file_is_named(source, tmp_path):
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors is no whole safetensors file"):
        convert_checkpoint(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("boxtext_head.bias"), "boxtext_head.bias: missing, expected \\(32,\\)"),
        (lambda weights: weights.update(extra=torch.zeros(2)), "extra: \\(2,\\), expected no such tensor"),
        (lambda weights: weights.update(logit_bias=torch.zeros(2)), "logit_bias: \\(2,\\), expected \\(1,\\)"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_named(change, message, source, tmp_path):
    weights = read_tensors(source)
    change(weights)
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"source has 1 tensors that don't fit its config: {message}"):
        convert_checkpoint(source, tmp_path / "out")


def test_other_models_are_refused(source, tmp_path):
    (source / "config.json").write_text('{"model_type": "siglip2"}')
    with pytest.raises(ValueError, match="`model_type` must be 'fgclip2' or 'fgclip' or 'r2d2', got 'siglip2'"):
        convert_checkpoint(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is missing"), ("{", "not JSON"), ("[]", "must be 'fgclip2' or")]
)
def test_a_broken_config_is_named(content, message, source, tmp_path):
    (source / "config.json").unlink()
    if content is not None:
        (source / "config.json").write_text(content)
    with pytest.raises(ValueError, match=f"config.json.* {message}|config.json is {message}"):
        convert_checkpoint(source, tmp_path / "out")


def test_a_hub_id_is_told_how_to_get_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"acme/model is not a folder; .*hf download"):
        convert_checkpoint("acme/model", tmp_path / "out")


def test_converting_in_place_is_refused(source):
    with pytest.raises(ValueError, match="not an empty folder"):
        convert_checkpoint(source, source)
