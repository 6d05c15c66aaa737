"""`fgclip2 init`: what it writes, what it says, and that it never writes over anything."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, Siglip2Config, Siglip2Model, SiglipConfig, SiglipModel

from fgclip2 import FGClip2Model, FGClip2Processor
from fgclip2.training import initialization
from tests.checkpoints import GEMMA_TOKENIZER, read_tensors
from tests.training.test_initialization import TEXT, VISION, VOCAB_SIZE, write_source


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> dict[str, Path]:
    """Don't write into them."""
    naflex = Siglip2Model(Siglip2Config(text_config=TEXT, vision_config=VISION))
    fixed = SiglipModel(SiglipConfig(text_config=TEXT, vision_config={**VISION, "image_size": 64}))
    folder = tmp_path_factory.mktemp("sources")
    return {"siglip2": write_source(folder / "naflex", naflex), "siglip": write_source(folder / "fixed", fixed)}


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_from_siglip2(run, sources, kind):
    summary = run.json("init", sources[kind], "起点", model=False)
    expected = initialization.initialize_from_checkpoint(sources[kind])
    assert summary["kind"] == kind
    assert summary["output"] == "起点"
    total = sum(expected.parameters.values())
    assert summary["parameters"] == {**expected.parameters, "total": total}
    assert summary["bytes"] == 4 * total
    assert (summary["vocabulary"], summary["text_lengths"]) == (VOCAB_SIZE, [64, 196])
    state = FGClip2Model.from_pretrained("起点").state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in expected.model.state_dict().items())
    ids = AutoProcessor.from_pretrained("起点")(text=["A dog", "一只狗"])["input_ids"]
    assert torch.equal(ids, expected.processor(text=["A dog", "一只狗"])["input_ids"])


def test_it_says_what_was_taken_and_what_comes_next(run, sources):
    lines = run("init", sources["siglip"], "start", "--num-patches", 64, model=False).stdout.splitlines()
    assert lines[0] == f"start: from SigLIP 2 of fixed resolution ({sources['siglip']})"
    meanings = [line.split(" parameters ")[1].split()[0] for line in lines[1:5]]
    assert meanings == ["copied", "resized", "stretched", "new,"]
    assert lines[5].strip().endswith("GiB in float32")
    assert lines[6].startswith("next: train it; short texts and whole images work already")
    assert json.loads(Path("start/config.json").read_text())["vision_config"]["num_patches"] == 64


def test_from_fgclip2(run, saved_folder):
    summary = run.json("init", saved_folder, "start", model=False)
    assert summary["parameters"].keys() == {"copied", "total"}
    stored = read_tensors(Path("start"))
    assert all(torch.equal(stored[name], tensor) for name, tensor in read_tensors(saved_folder).items())
    assert "further" in run("init", saved_folder, "again", model=False).stdout


def test_from_scratch(run):
    for folder, seed in (("一", 1), ("again", 1), ("other", 2)):
        assert (
            "knows nothing"
            in run(
                *("init", folder, "--preset", "tiny", "--tokenizer", GEMMA_TOKENIZER, "--seed", seed), model=False
            ).stdout
        )
    weights = [(Path(folder) / "model.safetensors").read_bytes() for folder in ("一", "again", "other")]
    assert weights[0] == weights[1] != weights[2]


def test_from_scratch_with_a_vocabulary_of_ones_own(run):
    Path("en.txt").write_text("a black cat on a mat\na brown dog and a cat\n" * 20)
    Path("中文.txt").write_text("一只黑猫在垫子上\n一只棕狗和一只黑猫\n" * 20, encoding="utf-8")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**sizes, "max_position_embeddings": 24, "longtext_len": 36}
    Path("尺寸.json").write_text(json.dumps({"text_config": text, "vision_config": sizes}))
    summary = run.json(
        *("init", "起点", "--config", "尺寸.json", "--texts", "en.txt", "--texts", "中文.txt", "--vocab-size", 300),
        model=False,
    )
    assert summary["source"] is None
    assert summary["vocabulary"] <= 300
    assert summary["text_lengths"] == [24, 36]
    inputs = FGClip2Processor.from_pretrained("起点")(text=["a black cat", "一只黑猫"], walk_type="long")
    features = FGClip2Model.from_pretrained("起点").get_text_features(inputs["input_ids"], walk_type="long")
    assert features.shape == (2, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out"], "give SOURCE and OUTPUT, or --preset or --config"),
        (["a", "b", "c"], "give SOURCE and OUTPUT"),
        (["a", "out", "--preset", "tiny"], "give only OUTPUT with --preset or --config"),
        (["out", "--preset", "tiny", "--config", "c.json"], "one of --preset and --config"),
        (["out", "--preset", "tiny"], "one of --tokenizer and --texts"),
        (["out", "--preset", "tiny", "--tokenizer", "t", "--texts", "t.txt"], "one of --tokenizer and --texts"),
        (["out", "--preset", "tiny", "--tokenizer", "t", "--num-patches", "64"], "only with SOURCE"),
        (["out", "--preset", "tiny", "--tokenizer", "t", "--revision", "main"], "only with SOURCE"),
        (["a", "out", "--texts", "t.txt"], "need the source's vocabulary"),
    ],
)
def test_wrong_usage(run, arguments, message):
    stderr = " ".join(run("init", *arguments, code=2, model=False).stderr.replace("│", " ").split())
    assert message in stderr
    assert not Path("out").exists()


def test_other_models_and_unknown_presets_are_one_line(run):
    Path("blip").mkdir()
    Path("blip/config.json").write_text('{"model_type": "blip"}')
    assert "model_type is 'blip'; allowed" in run("init", "blip", "out", code=1, model=False).stderr
    arguments = ("init", "out", "--preset", "huge", "--tokenizer", GEMMA_TOKENIZER)
    assert (
        "`preset` must be 'tiny', 'base', 'large' or 'so400m', got 'huge'"
        in run(*arguments, code=1, model=False).stderr
    )
    assert {path.name for path in Path().iterdir()} == {"照片", "photo.png", "坏.png", "blip"}


def test_nothing_is_written_over(run, sources, monkeypatch):
    Path("taken").mkdir()
    Path("taken/照片.txt").write_text("mine")
    monkeypatch.setattr(initialization, "initialize_from_checkpoint", None)  # refused before the work
    for output in ("taken", "photo.png"):
        stderr = run("init", sources["siglip2"], output, code=1, model=False).stderr
        assert "exists and is not an empty folder" in stderr
    assert [path.name for path in Path("taken").iterdir()] == ["照片.txt"]


@pytest.mark.parametrize("error", [OSError("no space left on device"), ValueError("half"), KeyboardInterrupt()])
def test_an_interruption_leaves_nothing(run, sources, monkeypatch, error):
    before = set(Path().iterdir())

    def fail(self, folder, **kwargs):
        (Path(folder) / "tokenizer.json").write_text("half")
        raise error

    monkeypatch.setattr(FGClip2Processor, "save_pretrained", fail)
    code = 130 if isinstance(error, KeyboardInterrupt) else 1
    run("init", sources["siglip2"], "out", code=code, model=False)
    assert set(Path().iterdir()) == before
