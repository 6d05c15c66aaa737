"""Benchmarks during training: their numbers are those of the saved folder, and training does not notice them."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import EarlyStoppingCallback

import fgclip2
from fgclip2 import FGClip2Embedder, FGClip2Processor
from fgclip2.benchmarks.callback import BenchmarkCallback
from fgclip2.benchmarks.catalogue import find_benchmark
from fgclip2.benchmarks.runner import run
from fgclip2.data import RecordDataset, read_finehard
from fgclip2.training import FGClip2ForTraining, FGClip2Trainer, FGClip2TrainingArguments
from tests.checkpoints import official_folder, saved_folder
from tests.training.conftest import _one_thread, make_records

__all__ = ["_one_thread", "official_folder", "saved_folder"]

CHANGES = {"max_num_patches": "24"}
ENTRIES = [("lit-cn", "LIT-CN", None), ("docci", "DOCCI", "LIT-CN/images"), ("boxclass-cn", "BoxClass-CN", None)]
RECALL = "eval_lit-cn/image_to_text/recall@5"
SETTINGS = {
    "per_device_train_batch_size": 4,
    "max_num_patches": "24",
    "max_steps": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


@pytest.fixture
def records(tmp_path, monkeypatch) -> RecordDataset:
    """16 English and 8 Chinese records of the working folder, and benchmarks made of them."""
    monkeypatch.chdir(tmp_path)
    make_records(tmp_path / "squares", 24)
    write_data_sets(json.loads(Path("squares/records.json").read_text(encoding="utf-8")), Path("squares/images"))
    return read_finehard("squares/records.json", "squares/images")


def write_data_sets(rows: list[dict], images: Path) -> None:
    """Captions in Chinese as LIT-CN has them and in English as DOCCI, Chinese boxes as BoxClass-CN."""
    for name in ("LIT-CN", "BoxClass-CN"):
        shutil.copytree(images, Path(name, "images"))
    chinese, english = ([row for row in rows if row.get("is_cn", False) == zh] for zh in (True, False))
    lines = [f"{row['f_path']}\t{row['caption']}\n" for row in chinese]
    Path("LIT-CN", "image_caption_long_cn.txt").write_text("".join(lines), encoding="utf-8")
    docci = [{"split": "test", "image_file": row["f_path"], "description": row["caption"]} for row in english]
    Path("DOCCI").mkdir()
    Path("DOCCI", "docci_descriptions.jsonlines").write_text("\n".join(map(json.dumps, docci)), encoding="utf-8")
    names = sorted({region["short_expr"] for row in chinese for region in row["bbox_info"]})
    boxes = [(i, region) for i, row in enumerate(chinese) for region in row["bbox_info"]]
    content = {
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "images": [{"id": index, "file_name": row["f_path"]} for index, row in enumerate(chinese)],
        "annotations": [
            {"id": n, "image_id": i, "bbox": xywh(region["bbox"]), "category_id": 1 + names.index(region["short_expr"])}
            for n, (i, region) in enumerate(boxes)
        ],
    }
    text = json.dumps(content, ensure_ascii=False)
    Path("BoxClass-CN", "valid_category_data_total_zh.json").write_text(text, encoding="utf-8")


def xywh(box: list[float]) -> list[int]:
    x1, y1, x2, y2 = (round(value * side) for value, side in zip(box, (96, 64, 96, 64), strict=True))
    return [x1, y1, x2 - x1, y2 - y1]


@pytest.fixture
def make_trainer(saved_folder, records):
    def make(evaluated=True, **settings) -> FGClip2Trainer:
        args = FGClip2TrainingArguments("训练", **(SETTINGS | settings))
        return FGClip2Trainer(str(saved_folder), args, records, records if evaluated is True else evaluated)

    return make


def logged(trainer: FGClip2Trainer, name: str = RECALL) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in trainer.state.log_history if name in row]


def trained(trainer: FGClip2Trainer) -> list[tuple]:
    rows = [row for row in trainer.state.log_history if "loss" in row]
    moving = ("samples_per_second", "data_wait")
    return [tuple((name, value) for name, value in row.items() if name not in moving) for row in rows]


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}], ids=["plain", "averaged"])
def test_the_numbers_are_those_of_the_saved_folder(make_trainer, settings):
    trainer = make_trainer(**settings)
    trainer.add_callback(BenchmarkCallback(trainer, ENTRIES, changes=CHANGES))
    trainer.train()
    trainer.save_model("最终")
    embedder = FGClip2Embedder.from_pretrained("最终", device="cpu")
    expected = {}
    for name, folder, images in ENTRIES:
        result = run(find_benchmark(name), folder, embedder, images, changes=CHANGES, show_progress_bar=False)
        expected |= {f"eval_{name}/{metric}": each["value"] for metric, each in result["metrics"].items()}
        expected[f"eval_{name}/left_out"] = 0
    (row,) = [row for row in trainer.state.log_history if RECALL in row and row["step"] == 4]
    assert {name: value for name, value in row.items() if name not in ("epoch", "step")} == expected
    assert {name.split("/")[0] for name in expected} == {"eval_lit-cn", "eval_docci", "eval_boxclass-cn"}


def test_training_does_not_notice(make_trainer):
    plain, measured, often = make_trainer(), make_trainer(), make_trainer()
    measured.add_callback(BenchmarkCallback(measured, ENTRIES, changes=CHANGES))
    often.add_callback(BenchmarkCallback(often, ENTRIES[:1], every_steps=1, changes=CHANGES))
    for trainer in (plain, measured, often):
        trainer.train()
    assert trained(plain) == trained(measured) == trained(often)
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, measured.model.state_dict()[name]), name
    assert [step for step, _ in logged(measured)] == [2, 4]
    assert [step for step, _ in logged(often)] == [1, 2, 3, 4]


def test_measuring_leaves_everything_as_it_was(make_trainer, capfd):
    trainer = make_trainer(bf16=True)
    trainer.model.text_model.to(torch.bfloat16)  # as a frozen part may be
    trainer.model.train()
    callback = BenchmarkCallback(trainer, ENTRIES[:1], changes=CHANGES)
    before = {name: (weight, weight.dtype, weight.data_ptr()) for name, weight in trainer.model.named_parameters()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    capfd.readouterr()
    callback.measure()
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert all(module.training for module in trainer.model.modules())
    for name, weight in trainer.model.named_parameters():
        assert before[name] == (weight, weight.dtype, weight.data_ptr()), name
    assert "%|" not in capfd.readouterr().err  # no progress bar


def test_the_best_checkpoint_and_early_stopping(make_trainer, monkeypatch):
    values = iter([0.5, 0.75, 0.25, 0.25])
    monkeypatch.setattr(BenchmarkCallback, "measure", lambda self: {RECALL: next(values)})
    settings = {"save_strategy": "steps", "save_steps": 1, "eval_steps": 1, "load_best_model_at_end": True}
    trainer = make_trainer(metric_for_best_model=RECALL.removeprefix("eval_"), max_steps=9, **settings)
    trainer.add_callback(BenchmarkCallback(trainer, ENTRIES[:1]))
    trainer.add_callback(EarlyStoppingCallback(2))
    trainer.train()
    assert trainer.state.best_metric == 0.75
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    assert trainer.state.global_step == 4


def test_of_several_evaluation_sets_the_first_brings_them(make_trainer, records):
    trainer = make_trainer({"zh": records, "zh_hard": records, "en": records}, max_steps=2)
    trainer.add_callback(BenchmarkCallback(trainer, ENTRIES[:1], changes=CHANGES))
    trainer.train()
    assert len(logged(trainer)) == 1
    assert RECALL in trainer.evaluate()


def test_lora_is_measured_with_its_adapter(saved_folder, records):
    pytest.importorskip("peft")
    from fgclip2.training.lora import add_lora, lora_config, merge_lora

    processor = FGClip2Processor.from_pretrained(saved_folder)
    model = add_lora(FGClip2ForTraining.from_pretrained(saved_folder), lora_config(rank=2))
    args = FGClip2TrainingArguments("训练", **(SETTINGS | {"learning_rate": 0.05}))
    trainer = FGClip2Trainer(model, args, records, records, processor)
    callback = BenchmarkCallback(trainer, ENTRIES[:1], changes=CHANGES)
    before = callback.measure()
    trainer.add_callback(callback)
    trainer.train()
    trainer.save_model("适配器")
    merged = FGClip2Embedder(merge_lora("适配器"), processor)
    result = run(find_benchmark("lit-cn"), "LIT-CN", merged, changes=CHANGES, show_progress_bar=False)
    for metric, each in result["metrics"].items():
        assert logged(trainer, f"eval_lit-cn/{metric}")[-1] == (4, each["value"]), metric
    assert any(logged(trainer, name)[-1][1] != value for name, value in before.items())


def test_what_is_left_out_is_said_and_counted(make_trainer, caplog):
    Image.new("RGB", (20, 20)).save("LIT-CN/images/好.png")
    Path("LIT-CN/images/坏.png").write_bytes(b"broken")
    lines = "好.png\t一张好图\n坏.png\t一张坏图\n没有.png\t没有这张图\n"
    Path("LIT-CN/image_caption_long_cn.txt").write_text(lines, encoding="utf-8")
    trainer = make_trainer()
    callback = BenchmarkCallback(trainer, ENTRIES[:1])
    assert "1 records can't be used and are left out, e.g. " in caplog.text
    assert "没有.png" in caplog.text
    assert callback.measure()["eval_lit-cn/left_out"] == 2


@pytest.mark.parametrize(
    ("entries", "options", "message"),
    [
        ([("lit-cn", "没有", None)], {}, "没有"),
        ([("lit-cm", "LIT-CN", None)], {}, "no benchmark 'lit-cm'"),
        ([("docci", "LIT-CN", None)], {}, "docci_descriptions"),
        ([*ENTRIES, ("lit-cn", "LIT-CN", None)], {}, "lit-cn is given twice"),
        (ENTRIES, {"changes": {"templates": "none"}}, "no setting 'templates'"),
        (
            ENTRIES,
            {"changes": {"max_num_patches": "many"}},
            "max_num_patches must be 'auto' or a positive integer, got 'many'",
        ),
        (ENTRIES, {"every_steps": 0}, "every_steps must be a positive integer, or None"),
    ],
)
def test_mistakes_are_named_before_the_run(make_trainer, entries, options, message):
    with pytest.raises(ValueError, match=message):
        BenchmarkCallback(make_trainer(), entries, **options)


def test_a_data_set_of_broken_images_stops_the_run_before_it_begins(make_trainer):
    for image in Path("LIT-CN/images").iterdir():
        image.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"LIT-CN: no image of lit-cn can be used: .*\.png: .*"):
        BenchmarkCallback(make_trainer(), ENTRIES[:1])


def test_what_does_not_go_together_is_named(make_trainer, monkeypatch, caplog):
    trainer = make_trainer(metric_for_best_model=RECALL)
    with pytest.raises(ValueError, match="is looked for at evaluations: leave every_steps="):
        BenchmarkCallback(trainer, ENTRIES[:1], every_steps=2)
    trainer.add_callback(EarlyStoppingCallback(2))
    trainer.add_callback(BenchmarkCallback(trainer, ENTRIES[:1]))
    with pytest.raises(ValueError, match="EarlyStoppingCallback comes before BenchmarkCallback"):
        trainer.train()
    trainer = make_trainer(None, eval_strategy="no", max_steps=1)
    trainer.add_callback(BenchmarkCallback(trainer, ENTRIES[:1]))
    trainer.train()
    assert "benchmarks don't run during training: eval_strategy is 'no'" in caplog.text
    monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
    with pytest.raises(ValueError, match="whole weights on each process, which FSDP divides: take DDP"):
        BenchmarkCallback(trainer, ENTRIES[:1])


SCRIPT = """
from fgclip2.benchmarks import encoding
from fgclip2.cli.main import app

encoding.BLOCK_SIZE = 5  # so that there is work for both processes
app()
"""


@pytest.mark.slow
def test_two_processes_share_the_work(saved_folder, records):
    settings = {**SETTINGS, "model": str(saved_folder), "per_device_train_batch_size": 2, "output_dir": "训练"}
    settings |= {"train_data": "squares/records.json", "images_folder": "squares/images"}
    settings |= {"eval_data": "squares/records.json", "save_strategy": "steps", "save_steps": 2}
    settings |= {"load_best_model_at_end": True, "metric_for_best_model": RECALL}
    benchmarks = ["lit-cn=LIT-CN", "docci=DOCCI", "boxclass-cn=BoxClass-CN"]
    settings |= {"benchmarks": benchmarks, "benchmark_images": ["docci=LIT-CN/images"]}
    settings |= {"benchmark_settings": ["max_num_patches=24"]}
    Path("设置.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    Path("run.py").write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "run.py"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONPATH"] = str(Path(fgclip2.__file__).parents[1])
    done = subprocess.run(
        [*command, "train", "设置.yaml", "--json"], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    measured = json.loads(done.stdout)["metrics"]
    embedder = FGClip2Embedder.from_pretrained("训练", device="cpu")
    for name, folder, images in ENTRIES:
        result = run(find_benchmark(name), folder, embedder, images, changes=CHANGES, show_progress_bar=False)
        for metric, each in result["metrics"].items():
            assert measured[f"eval_{name}/{metric}"] == each["value"], metric
    state = json.loads(Path("训练/trainer_state.json").read_text(encoding="utf-8"))
    assert [row["step"] for row in state["log_history"] if RECALL in row] == [2, 4, 4]
    assert state["best_metric"] == max(row[RECALL] for row in state["log_history"] if RECALL in row)
