"""Starting weights: features of the source kept, new heads copied, and everything that can't be right refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers
from transformers import Siglip2Config, Siglip2Model, SiglipConfig, SiglipModel

from fgclip2 import FGClip2Config, FGClip2Model, FGClip2Processor, FGClip2Tokenizer
from fgclip2.modeling.modeling_fgclip2 import patchify
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.initialization import (
    initialize_from_checkpoint,
    initialize_from_scratch,
    preset_config,
    read_sizes,
    stretch_position_embedding,
)
from fgclip2.training.source_checkpoint import is_new
from tests.checkpoints import GEMMA_TOKENIZER, official_folder, read_tensors, write_json

__all__ = ["official_folder"]

TEXTS = ["A black cat", "一只黑猫趴在窗台上。"]
VOCAB_SIZE = len(json.loads((GEMMA_TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
SIZES = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {"hidden_size": 24, "projection_size": 32, "vocab_size": VOCAB_SIZE, **SIZES}
VISION = {"hidden_size": 32, **SIZES}


def write_source(folder: Path, model: torch.nn.Module, **options) -> Path:
    """Save a random model of transformers with Gemma's kind of tokenizer, as SigLIP 2 is published."""
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too: what was mixed up must show
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) / 8
            )
    model.save_pretrained(folder, **options)
    for path in GEMMA_TOKENIZER.iterdir():
        shutil.copyfile(path, folder / path.name)
    return folder


def naflex_model(text: dict | None = None, **vision) -> Siglip2Model:
    return Siglip2Model(Siglip2Config(text_config={**TEXT, **(text or {})}, vision_config={**VISION, **vision})).eval()


def fixed_model(image_size: int = 64, patch_size: int = 16, **vision) -> SiglipModel:
    sizes = {**VISION, "image_size": image_size, "patch_size": patch_size, **vision}
    return SiglipModel(SiglipConfig(text_config=TEXT, vision_config=sizes)).eval()


@pytest.fixture(scope="module")
def naflex(tmp_path_factory) -> Path:
    """Don't write into it."""
    return write_source(tmp_path_factory.mktemp("naflex"), naflex_model())


@pytest.fixture(scope="module")
def fixed(tmp_path_factory) -> Path:
    """Don't write into it."""
    return write_source(tmp_path_factory.mktemp("fixed"), fixed_model())


@pytest.fixture
def source(naflex, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(naflex, tmp_path / "source")


def edit_json(path: Path, **fields) -> None:
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **fields})


def text_features(start, walk_type: str = "short") -> torch.Tensor:
    ids = start.processor(text=TEXTS, walk_type=walk_type)["input_ids"]
    return start.model.get_text_features(ids, walk_type=walk_type)


def short_ids() -> torch.Tensor:
    """As the source's own users make them: lower-cased, `<eos>`, padded with 0."""
    backend = Tokenizer.from_file(str(GEMMA_TOKENIZER / "tokenizer.json"))
    rows = [[*backend.encode(text.lower(), add_special_tokens=False).ids, 1] for text in TEXTS]
    return torch.tensor([row + [0] * (64 - len(row)) for row in rows])


# From SigLIP 2 -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_naflex_keeps_its_features(naflex):
    theirs = Siglip2Model.from_pretrained(naflex).eval()
    start = initialize_from_checkpoint(naflex)
    assert start.kind == "siglip2"
    torch.testing.assert_close(
        text_features(start), theirs.get_text_features(short_ids()).pooler_output, rtol=0, atol=1e-5
    )
    images = torch.randn(2, 3, 64, 96)
    pixel_values, shapes = patchify(images, 16)
    expected = theirs.get_image_features(pixel_values, torch.ones(pixel_values.shape[:2]), shapes).pooler_output
    actual = start.model.get_image_features(pixel_values, None, shapes)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_official_start_from_naflex(official_folder, golden_folder, golden_inputs, golden_pixels, tmp_path):
    """The golden weights as a SigLIP 2 checkpoint, against the features after the official three steps."""
    folder = shutil.copytree(official_folder, tmp_path / "source")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not is_new(name, "siglip2")}
    assert len(weights) - len(kept) == 17
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    edit_json(folder / "config.json", model_type="siglip2")
    model = initialize_from_checkpoint(folder).model
    expected = load_file(golden_folder / "conversions.safetensors")
    for walk_type in ("short", "long", "box"):
        actual = model.get_text_features(golden_inputs[f"input_ids_{walk_type}"], walk_type=walk_type)
        torch.testing.assert_close(actual, expected[f"from_siglip2.text_features_{walk_type}"], rtol=0, atol=1e-5)
    actual = model.get_image_dense_feature(**golden_pixels)
    torch.testing.assert_close(actual, expected["from_siglip2.dense_features"], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("image_size", "patch_size"), [(64, 16), (56, 14), (96, 32), (70, 16)])
@torch.no_grad()
def test_fixed_resolution_keeps_its_features(image_size, patch_size, tmp_path):
    theirs = fixed_model(image_size, patch_size)
    start = initialize_from_checkpoint(write_source(tmp_path, theirs))
    assert start.kind == "siglip"
    side = image_size // patch_size
    assert start.model.config.vision_config.num_patches == side**2
    torch.testing.assert_close(
        text_features(start), theirs.get_text_features(short_ids()).pooler_output, rtol=0, atol=1e-5
    )
    images = torch.randn(2, 3, side * patch_size, side * patch_size)
    expected = theirs.get_image_features(images).pooler_output
    torch.testing.assert_close(start.model.get_image_features(images), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_pixels_of_the_processor_fit(photo, tmp_path):
    """From the picture on, with another patch size and normalisation than ours."""
    theirs = fixed_model(56, 14)
    folder = write_source(tmp_path, theirs)
    write_json(
        folder / "preprocessor_config.json", {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "size": 3}
    )
    start = initialize_from_checkpoint(folder)
    image = photo.resize((56, 56))
    inputs = start.processor(images=[image], max_num_patches=16)
    pixels = torch.from_numpy(np.asarray(image, np.float32) / 255)
    pixels = (pixels - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.4])
    expected = theirs.get_image_features(pixels.permute(2, 0, 1)[None]).pooler_output
    torch.testing.assert_close(start.model.get_image_features(**inputs), expected, rtol=0, atol=1e-5)
    assert not hasattr(start.processor.image_processor, "size")


@torch.no_grad()
def test_new_parts_are_stretched_and_copied(fixed):
    start = initialize_from_checkpoint(fixed)
    model, weights = start.model, load_file(fixed / "model.safetensors")
    stretched = stretch_position_embedding(weights["text_model.embeddings.position_embedding.weight"])
    for table in (
        model.text_model.embeddings.position_embedding_ori,
        model.text_model.embeddings.position_embedding_res,
    ):
        assert torch.equal(table.weight, stretched)
    assert stretched.shape == (196, 24)
    for head, origin in (
        (model.longtext_head, "text_model.head."),
        (model.boxtext_head, "text_model.head."),
        (model.dense_feature_head, "vision_model.head."),
    ):
        for name, tensor in head.state_dict().items():
            assert torch.equal(tensor, weights[origin + name])
    assert text_features(start, "long").shape == (2, 32)
    torch.testing.assert_close(text_features(start, "box"), text_features(start, "short"))
    assert start.parameters == {
        "copied": sum(tensor.numel() for tensor in weights.values()),
        "stretched": 2 * stretched.numel(),
        "copied_heads": 2 * (24 * 32 + 32)
        + sum(t.numel() for n, t in weights.items() if n.startswith("vision_model.head.")),
    }
    assert sum(start.parameters.values()) == sum(parameter.numel() for parameter in model.parameters())
    # Copies, which train apart.
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    assert len(set(pointers)) == len(pointers)


def test_config_is_carried_over_and_special_tokens_are_the_tokenizers(tmp_path):
    source = naflex_model({"max_position_embeddings": 32}, num_patches=36, layer_norm_eps=1e-5, hidden_act="gelu")
    start = initialize_from_checkpoint(write_source(tmp_path / "source", source))
    text, vision = start.model.config.text_config, start.model.config.vision_config
    assert (text.max_position_embeddings, text.longtext_len, text.keep_len) == (32, 68, 20)
    assert (text.hidden_size, text.projection_size, text.vocab_size) == (24, 32, VOCAB_SIZE)
    assert (vision.hidden_size, vision.num_patches, vision.patch_size) == (32, 36, 16)
    assert (vision.layer_norm_eps, vision.hidden_act) == (1e-5, "gelu")
    assert (source.config.text_config.pad_token_id, source.config.text_config.eos_token_id) == (1, 49407)  # defaults
    assert (text.pad_token_id, text.eos_token_id, text.bos_token_id) == (0, 1, 2)
    assert start.processor(text=TEXTS, walk_type="short")["input_ids"].shape == (2, 32)
    assert start.processor(text=TEXTS, walk_type="long")["input_ids"].shape == (2, 68)


@pytest.mark.parametrize("kind", ["fixed", "naflex", "official"])
def test_what_is_saved_is_an_fgclip2_checkpoint_like_any_other(kind, naflex, fixed, official_folder, tmp_path):
    folder = {"fixed": fixed, "naflex": naflex, "official": official_folder}[kind]
    start = initialize_from_checkpoint(folder)
    start.model.save_pretrained(tmp_path)
    start.processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["dtype"], config["architectures"]) == ("fgclip2", "float32", ["FGClip2Model"])
    model, info = FGClip2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert model.dtype == torch.float32
    assert all(torch.equal(tensor, start.model.state_dict()[name]) for name, tensor in model.state_dict().items())
    processor = FGClip2Processor.from_pretrained(tmp_path)
    assert torch.equal(processor(text=TEXTS)["input_ids"], start.processor(text=TEXTS)["input_ids"])
    trained = FGClip2ForTraining.from_pretrained(tmp_path)
    assert torch.equal(trained.longtext_head.weight, start.model.longtext_head.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_shards_in_half_precision_become_float32(dtype, tmp_path):
    folder = write_source(tmp_path, fixed_model().to(dtype), max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    weights = read_tensors(folder)
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    state = initialize_from_checkpoint(folder).model.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    assert torch.equal(state[name], weights[name].float())


@torch.no_grad()
def test_the_position_grid_is_resized_as_for_an_image(fixed):
    own, resized = (initialize_from_checkpoint(fixed, num_patches) for num_patches in (16, 64))
    assert "resized" not in own.parameters
    assert resized.parameters["resized"] == 64 * 32
    assert resized.model.config.vision_config.num_patches == 64
    images = torch.randn(1, 3, 128, 128)  # a grid of 8 x 8
    expected = own.model.get_image_features(images)
    torch.testing.assert_close(resized.model.get_image_features(images), expected, rtol=0, atol=1e-5)
    table = own.model.vision_model.embeddings.position_embedding.weight.unflatten(0, (4, 4)).permute(2, 0, 1)
    grid = torch.nn.functional.interpolate(table[None], (8, 8), mode="bilinear", antialias=True)[0].flatten(1).T
    torch.testing.assert_close(resized.model.vision_model.embeddings.position_embedding.weight, grid)


def test_a_hub_id_is_read_from_the_cache(naflex, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--acme--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(naflex, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert initialize_from_checkpoint("acme/tiny").kind == "siglip2"
    with pytest.raises(ValueError, match="acme/other is no folder, and on the hub: "):
        initialize_from_checkpoint("acme/other")
    with pytest.raises(ValueError, match="没有 is no folder, and on the hub: "):
        initialize_from_checkpoint("没有")


MEASURE = """
import sys
from pathlib import Path
from fgclip2.training.initialization import initialize_from_checkpoint
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if "VmHWM" in line)
before = peak()
start = initialize_from_checkpoint(sys.argv[1])
start.model.save_pretrained(sys.argv[2], max_shard_size="100MB")
print((peak() - before) / sum(4 * parameter.numel() for parameter in start.model.parameters()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's peak of memory")
def test_memory_is_about_one_copy_of_the_weights(tmp_path):
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 8, "num_attention_heads": 12}
    text = {**TEXT, **sizes, "projection_size": 768}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config={**sizes, "image_size": 64}))
    folder = write_source(tmp_path / "source", model)
    arguments = [sys.executable, "-c", MEASURE, str(folder), str(tmp_path / "out")]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert float(done.stdout.split()[-1]) < 1.35


# From FG-CLIP 2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale_shape", [None, (), (1,)], ids=["model", "official_training", "our_training"])
@torch.no_grad()
def test_from_fgclip2_every_weight_is_copied(scale_shape, official_folder, tmp_path):
    folder = shutil.copytree(official_folder, tmp_path / "source")
    weights = load_file(folder / "model.safetensors")
    scales = ["logit_scale_finegraind", "logit_scale_hardneg"] if scale_shape is not None else []
    if scales:
        more = {name: torch.full(scale_shape, 4.6) for name in scales}
        save_file({**weights, **more}, folder / "model.safetensors", {"format": "pt"})
    start = initialize_from_checkpoint(folder)
    assert start.kind == "fgclip2"
    assert start.left_out == scales
    state = start.model.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
    assert start.parameters == {"copied": sum(tensor.numel() for tensor in weights.values())}
    expected = FGClip2Processor.from_pretrained(official_folder)
    assert torch.equal(start.processor(text=TEXTS)["input_ids"], expected(text=TEXTS)["input_ids"])


def test_from_fgclip2_the_processor_keeps_its_settings(official_folder, tmp_path):
    folder = tmp_path / "source"
    FGClip2Model.from_pretrained(official_folder).half().save_pretrained(folder)
    processor = FGClip2Processor.from_pretrained(official_folder)
    processor.image_processor.max_num_patches = 36
    processor.save_pretrained(folder)
    start = initialize_from_checkpoint(folder)
    assert start.processor.image_processor.max_num_patches == 36
    assert start.model.dtype == torch.float32


def test_the_embedded_checkpoint_is_a_source():
    from fgclip2 import embedded_checkpoint

    start = initialize_from_checkpoint(embedded_checkpoint())
    assert start.parameters.keys() == {"copied"}


# What can't be right -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "blip"}, "config.json: model_type is 'blip'; allowed: 'siglip', 'siglip2', 'fgclip2', "),
        ({"model_type": "siglip_vision_model"}, "model_type is 'siglip_vision_model'; allowed"),
        ({"model_type": None}, "model_type is None; allowed"),
        ({"text_config": None}, "text_config is None; allowed: an object"),
        ({"vision_config": {**VISION, "vision_use_head": False}}, "vision_use_head is false; allowed"),
        ({"vision_config": {**VISION, "num_patches": 250}}, "num_patches is 250; allowed: a square"),
        ({"vision_config": {**VISION, "patch_size": [16, 8]}}, r"patch_size is \[16, 8\]; allowed: squares"),
        ({"vision_config": {**VISION, "hidden_size": "wide"}}, "config.json: .*hidden_size"),
        (
            {"text_config": {**TEXT, "max_position_embeddings": 16}},
            "max_position_embeddings must be at least 21, got 16",
        ),
        (
            {"text_config": {**TEXT, "projection_size": 24}},
            "projection_size=24 must equal vision_config.hidden_size=32",
        ),
        ({"text_config": {**TEXT, "vocab_size": 500}}, f"tokenizer has {VOCAB_SIZE} entries, but .*vocab_size is 500"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(fields, message, source):
    edit_json(source / "config.json", **fields)
    with pytest.raises(ValueError, match=message):
        initialize_from_checkpoint(source)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is missing"), ("{", "is not JSON"), ("[]", "is not a JSON object")]
)
def test_a_broken_config_is_named(content, message, source):
    (source / "config.json").unlink()
    if content is not None:
        (source / "config.json").write_text(content)
    with pytest.raises(ValueError, match=f"config.json {message}"):
        initialize_from_checkpoint(source)


@pytest.mark.parametrize("num_patches", [0, -4, 200])
def test_a_grid_that_is_no_square_is_refused(num_patches, naflex):
    with pytest.raises(ValueError, match=f"`num_patches` must be a square number, such as 256, got {num_patches}"):
        initialize_from_checkpoint(naflex, num_patches)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("logit_bias"), r"logit_bias: missing, expected \(1,\)"),
        (lambda weights: weights.update(extra=torch.zeros(2)), r"extra: \(2,\), expected no such tensor"),
        (lambda weights: weights.update(logit_bias=torch.zeros(2)), r"logit_bias: \(2,\), expected \(1,\)"),
        (
            lambda weights: weights.update(logit_bias=torch.zeros(1, dtype=torch.int8)),
            "logit_bias has the dtype I8; allowed",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message, source):
    weights = read_tensors(source)
    change(weights)
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=message):
        initialize_from_checkpoint(source)


def test_naflex_weights_under_a_config_of_fixed_resolution_are_refused(naflex, fixed, tmp_path):
    folder = shutil.copytree(fixed, tmp_path / "source")
    shutil.copyfile(naflex / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"patch_embedding.weight: \(32, 768\), expected \(32, 3, 16, 16\)"):
        initialize_from_checkpoint(folder)


def test_pickled_weights_are_refused(source):
    (source / "model.safetensors").unlink()
    torch.save({}, source / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"neither model.safetensors nor .*pytorch_model.bin may run code"):
        initialize_from_checkpoint(source)


def test_a_truncated_file_is_named(source):
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors is no whole safetensors file"):
        initialize_from_checkpoint(source)


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("../elsewhere.safetensors", "must name .safetensors files in this folder"),
        ("weights.bin", "must name .safetensors files in this folder"),
        ("model-00002-of-00002.safetensors", "which is missing"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(shard, message, source):
    (source / "model.safetensors").rename(source.parent / "elsewhere.safetensors")
    write_json(source / "model.safetensors.index.json", {"weight_map": {"logit_bias": shard}})
    with pytest.raises(ValueError, match=f"index.json .*{message}"):
        initialize_from_checkpoint(source)


# Tokenizers ----------------------------------------------------------------------------------------------------------


def write_siglip1_tokenizer(folder: Path, characters: str, drops_punctuation: bool) -> None:
    """A SentencePiece vocabulary as SigLIP 1 has it: `</s>` ends and pads, nothing else is special."""
    pieces = ["</s>", "<unk>", "▁", *sorted(set(characters))]
    backend = Tokenizer(models.Unigram([(piece, -float(index)) for index, piece in enumerate(pieces)], unk_id=1))
    steps = [normalizers.Lowercase(), normalizers.Replace(" ", "▁")]
    if drops_punctuation:
        steps.insert(1, normalizers.Replace(Regex("[,.!?]"), ""))
    backend.normalizer = normalizers.Sequence(steps)
    backend.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {**names, "tokenizer_class": "SiglipTokenizer"})
    (folder / "special_tokens_map.json").unlink(missing_ok=True)


LETTERS = "abcdefghijklmnopqrstuvwxyz,."


def test_an_english_vocabulary_is_refused(source):
    write_siglip1_tokenizer(source, LETTERS, drops_punctuation=True)
    with pytest.raises(ValueError, match="can't spell '一只黑猫'"):
        initialize_from_checkpoint(source)


def test_punctuation_that_the_source_never_saw_is_refused(source):
    write_siglip1_tokenizer(source, LETTERS + "一只黑猫", drops_punctuation=False)
    with pytest.raises(ValueError, match="keeps punctuation"):
        initialize_from_checkpoint(source)


def test_a_multilingual_vocabulary_of_siglip_1_is_taken(source):
    write_siglip1_tokenizer(source, LETTERS + "一只黑猫", drops_punctuation=True)
    start = initialize_from_checkpoint(source)
    assert (start.model.config.text_config.pad_token_id, start.model.config.text_config.eos_token_id) == (0, 0)
    assert (
        start.processor(text="A.")["input_ids"][0, :4].tolist()
        == start.processor(text="a")["input_ids"][0, :4].tolist()
    )


def test_a_vocabulary_that_can_not_be_read_is_named(source, tmp_path):
    (source / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer.json: pass a tokenizer"):
        initialize_from_checkpoint(source)
    (source / "spiece.model").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has no tokenizer.json; its spiece.model is SigLIP 1's"):
        initialize_from_checkpoint(source)
    for tokenizer in (
        GEMMA_TOKENIZER,
        GEMMA_TOKENIZER / "tokenizer.json",
        FGClip2Tokenizer.from_pretrained(GEMMA_TOKENIZER),
    ):
        start = initialize_from_checkpoint(source, tokenizer=tokenizer)
        assert torch.equal(start.processor(text=TEXTS)["input_ids"], short_ids())
    other = FGClip2Tokenizer.from_pretrained(GEMMA_TOKENIZER, short_length=32, long_length=68)
    with pytest.raises(ValueError, match="lengths 32 and 68, but the text tower has 64 and 196"):
        initialize_from_checkpoint(source, tokenizer=other)


# From scratch --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_from_scratch_the_seed_decides():
    random_state = torch.get_rng_state()
    first, again, other = (initialize_from_scratch("tiny", GEMMA_TOKENIZER, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(text_features(first), text_features(again))
    assert not torch.equal(text_features(first), text_features(other))
    assert first.model.logit_scale.exp().item() == pytest.approx(10)
    assert first.model.logit_bias.item() == -10
    assert first.parameters == {"random": sum(parameter.numel() for parameter in first.model.parameters())}
    config = first.model.config.text_config
    assert (config.vocab_size, config.pad_token_id, config.eos_token_id) == (VOCAB_SIZE, 0, 1)


def test_presets():
    embedded = FGClip2Config.from_pretrained(Path(__file__).parents[2] / "src" / "fgclip2" / "assets" / "checkpoint")
    tiny = preset_config("tiny")
    for tower in ("text_config", "vision_config"):
        fields = set(getattr(tiny, tower).to_dict()) - {"vocab_size"}
        assert all(getattr(getattr(tiny, tower), each) == getattr(getattr(embedded, tower), each) for each in fields)
    assert preset_config("so400m").vision_config.hidden_size == 1152
    with pytest.raises(ValueError, match="`preset` must be 'tiny', 'base', 'large' or 'so400m', got 'huge'"):
        initialize_from_scratch("huge", GEMMA_TOKENIZER)


def test_sizes_of_a_file(tmp_path):
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}
    write_json(tmp_path / "尺寸.json", {"text_config": {**text, "longtext_len": 68}, "vision_config": vision})
    start = initialize_from_scratch(read_sizes(tmp_path / "尺寸.json"), GEMMA_TOKENIZER)
    assert start.model.config.text_config.projection_size == 16
    assert start.model.config.text_config.intermediate_size == 3072
    assert start.processor.image_processor.patch_size == 8
    assert text_features(start, "long").shape == (2, 16)


def test_a_saved_config_is_a_file_of_sizes(tmp_path):
    preset_config("tiny").save_pretrained(tmp_path)
    assert read_sizes(tmp_path / "config.json").to_dict() == preset_config("tiny").to_dict()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"hidden_size": 8}, "json: hidden_size is no field; there are text_config, vision_config"),
        (
            {"text_config": {"hiden_size": 8}},
            "json: text_config.hiden_size is no field; there are vocab_size, hidden_size",
        ),
        ({"text_config": {"hidden_size": "8"}}, "text_config.hidden_size must be a positive integer, got '8'"),
        (
            {"vision_config": {"num_hidden_layers": 0}},
            "vision_config.num_hidden_layers must be a positive integer, got 0",
        ),
        ({"vision_config": {"patch_size": True}}, "vision_config.patch_size must be a positive integer, got True"),
        ({"vision_config": {"layer_norm_eps": "1e-6"}}, "vision_config.layer_norm_eps must be a number, got '1e-6'"),
        ({"vision_config": {"hidden_act": "gelo"}}, "vision_config.hidden_act must be .*gelu.*, got 'gelo'"),
        ({"vision_config": 3}, "vision_config must be an object of sizes, got 3"),
    ],
)
def test_sizes_that_can_not_be_are_refused(content, message, tmp_path):
    write_json(tmp_path / "sizes.json", content)
    with pytest.raises(ValueError, match=message):
        read_sizes(tmp_path / "sizes.json")
