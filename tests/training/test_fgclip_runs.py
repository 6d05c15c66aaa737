"""Whole runs of FG-CLIP, the first version: trained in full and with LoRA, continued, planned, and used."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from fgclip2 import Embedder, FGClipConfig, FGClipModel, FGClipProcessor
from fgclip2.data import RecordDataset, read_finehard
from fgclip2.modeling.modeling_fgclip import SCALES
from fgclip2.training import FGClip2Objective, FGClip2Trainer, FGClipForTraining
from fgclip2.training.gradient_cache import cached_step
from tests.cli.conftest import Command

from ..checkpoints import official_fgclip_folder  # noqa: F401
from .conftest import make_records
from .test_fgclip import golden_batch
from .test_trainer import arguments, logs

GOLDEN_MODEL = Path(__file__).parent.parent / "golden_v1" / "model"
TEXTS = ["a red square on the left", "左边的红方块"]


@pytest.fixture
def run(official_fgclip_folder) -> Command:  # noqa: F811
    return Command(official_fgclip_folder)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> tuple[RecordDataset, RecordDataset]:
    """Records to train on, and half as many held out."""
    folder, read = tmp_path_factory.mktemp("parts"), []
    make_records(folder / "squares", 60)
    content = json.loads((folder / "squares" / "records.json").read_text(encoding="utf-8"))
    for name, rows in (("train", content[:40]), ("held_out", content[40:])):
        (folder / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        read.append(read_finehard(folder / f"{name}.json", folder / "squares" / "images"))
    return read[0], read[1]


@pytest.mark.slow
def test_lora_improves_what_is_held_out_and_its_adapter_is_used(official_fgclip_folder, tmp_path, parts):  # noqa: F811
    pytest.importorskip("peft")
    from fgclip2.training.lora import add_lora, lora_config, merge_lora

    torch.manual_seed(0)
    processor, base, adapter = FGClipProcessor.from_pretrained(official_fgclip_folder), tmp_path / "0", tmp_path / "1"
    FGClipModel(FGClipConfig.from_pretrained(official_fgclip_folder)).save_pretrained(base)
    processor.save_pretrained(base)
    model = FGClipForTraining.from_pretrained(base)
    model = add_lora(model, lora_config(rank=8, model_type="fgclip"))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad and "lora_" not in name]
    assert len(trained) == 6, trained  # three projections, three scales
    settings = {"per_device_train_batch_size": 8, "max_steps": 40, "learning_rate": 5e-3, "language_batches": "mixed"}
    trainer = FGClip2Trainer(model, arguments(adapter, **settings, logging_steps=20), *parts, processor)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_hard_negative_accuracy"] < 0.4
    assert after["eval_hard_negative_accuracy"] > 0.8
    assert after["eval_short_text_to_image_recall@5"] > before["eval_short_text_to_image_recall@5"] + 0.2
    trainer.save_model()

    # What was trained is what is used, on other ways to it.
    model.eval()
    ids = processor.tokenize(TEXTS, "caption")["input_ids"]
    with torch.no_grad():
        expected = F.normalize(model.get_text_features(ids), dim=-1).numpy()
    np.testing.assert_allclose(Embedder.from_pretrained(adapter, device="cpu").encode_texts(TEXTS), expected, atol=1e-5)
    merged = merge_lora(adapter)
    assert type(merged) is FGClipModel
    assert merged.logit_scale.item() == model.logit_scale.item() != FGClipModel.from_pretrained(base).logit_scale.item()
    further = FGClip2Trainer(str(adapter), arguments(tmp_path / "2"), *parts)
    assert further.evaluate()["eval_loss"] == pytest.approx(after["eval_loss"], rel=1e-4)


def test_an_adapter_loads_by_every_library_with_its_scales(tmp_path):
    peft = pytest.importorskip("peft")
    from fgclip2.training.lora import add_lora, load_lora, lora_config, save_lora

    model = add_lora(FGClipForTraining.from_pretrained(GOLDEN_MODEL), lora_config(rank=4, model_type="fgclip"))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(trained) + 0.1, trained)
    save_lora(model, tmp_path)
    ids = torch.tensor([[510, 3, 4, 511]])
    expected = [model.get_text_features(ids, None, "long"), *(getattr(model, name).reshape(()) for name in SCALES)]
    by_transformers = FGClipModel.from_pretrained(GOLDEN_MODEL)
    by_transformers.load_adapter(tmp_path)
    for loaded in (
        by_transformers,
        FGClipModel.from_pretrained(tmp_path),
        peft.PeftModel.from_pretrained(FGClipModel.from_pretrained(GOLDEN_MODEL), tmp_path),
        peft.PeftModel.from_pretrained(FGClipForTraining.from_pretrained(GOLDEN_MODEL), tmp_path),
        load_lora(tmp_path, trainable=True),
    ):
        found = [loaded.get_text_features(ids, None, "long"), *(getattr(loaded, name).reshape(()) for name in SCALES)]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_continued_run_is_bit_equal_and_its_folder_loads(official_fgclip_folder, tmp_path, parts):  # noqa: F811
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "ema_decay": 0.9}
    whole = FGClip2Trainer(str(official_fgclip_folder), arguments(tmp_path / "whole", **settings), *parts)
    whole.train()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "continued" / "checkpoint-2")
    continued = FGClip2Trainer(str(official_fgclip_folder), arguments(tmp_path / "continued", **settings), *parts)
    continued.train(resume_from_checkpoint=True)
    losses = [[(row["loss"], row["logit_scale_hardneg"]) for row in logs(run)] for run in (whole, continued)]
    assert losses[0] == losses[1]
    for run in (whole, continued):
        run.save_model()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "continued")]
    assert weights[0] == weights[1]
    _, info = FGClipModel.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert Embedder.from_pretrained(tmp_path / "whole", device="cpu").encode_texts(TEXTS).shape == (2, 20)


def test_the_command_plans_and_trains(run, records_folder, tmp_path):
    data = ("--train_data", records_folder / "records.json", "--images_folder", records_folder / "images")
    here = ("--use_cpu", "--report_to", "none", "--disable_tqdm", "true", "--dataloader_pin_memory", "false")
    flags = (*data, *here, "--output_dir", tmp_path / "run", "--per_device_train_batch_size", 4, "--max_steps", 2)
    assert re.search("patches per image +as the squares of this model have", run("train", *flags, "--dry-run").stdout)
    plan = run.json("train", *flags, "--dry-run")
    assert plan["objective"]["preset"] == "fgclip"
    assert plan["data"]["sample"]["max_patches"] == 25
    assert plan["model"]["parameters"]["text heads"]["all"] == 2 * 24 * 20
    tensors = load_file(Path(run.checkpoint) / "model.safetensors").values()
    assert plan["model"]["parameters"]["total"]["all"] == sum(tensor.numel() for tensor in tensors)
    result = run.json("train", *flags, "--save_strategy", "no", "--gradient_cache_chunk_size", 2)
    assert result["steps"] == 2
    for way in (("--dry-run",), ()):
        printed = run("train", *flags, "--max_num_patches", 128, "--resume", *way, code=1).stderr
        assert "`max_num_patches` means nothing to this model, whose images are squares of one size, got 128" in printed


def test_evaluation_does_not_depend_on_how_texts_are_padded(official_fgclip_folder, tmp_path, parts):  # noqa: F811
    """Each batch has texts as long as its longest."""
    found = []
    for size in (3, 14):
        args = arguments(tmp_path, per_device_eval_batch_size=size)
        found.append(FGClip2Trainer(str(official_fgclip_folder), args, eval_dataset=parts[1]).evaluate())
    for name in found[0]:
        if "recall" in name or "accuracy" in name:
            assert found[0][name] == pytest.approx(found[1][name]), name


def test_the_gradient_cache_gives_the_gradients_of_the_plain_step():
    batch, gradients = golden_batch(0), []
    batch |= {f"{name}_image_index": torch.arange(4) for name in ("short", "long")}
    for chunk_size in (None, 3):
        model = FGClipForTraining.from_pretrained(GOLDEN_MODEL).train()
        if chunk_size is None:
            FGClip2Objective("fgclip")(model(**batch), batch)["loss"].backward()
        else:
            cached_step(model, FGClip2Objective("fgclip"), batch, chunk_size)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, cached in zip(*gradients, strict=True):
        torch.testing.assert_close(cached, plain, rtol=1e-4, atol=1e-5)
