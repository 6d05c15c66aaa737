"""`fgclip2 train`: settings from YAML and flags, the dry run, runs in one and two processes, resume."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fgclip2 import FGClip2Embedder
from fgclip2.cli import train_options
from fgclip2.data import read_finehard, read_pairs, write_shards
from fgclip2.modeling.auto import FAMILIES
from fgclip2.training import FGClip2TrainingArguments
from fgclip2.training import plan as planning
from fgclip2.training.run import make_trainer
from fgclip2.training.settings import DataSettings, ModelSettings, read_yaml, write_yaml
from fgclip2.training.start import adapter_config
from tests.training.conftest import records_folder
from tests.training.test_trainer import EVERYTHING

__all__ = ["records_folder"]

ROOT = Path(__file__).parents[2]

SETTINGS = {
    "per_device_train_batch_size": 4,
    "max_steps": 2,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


@pytest.fixture
def settings(saved_folder, records_folder) -> dict:
    """Of a short run on FineHARD-like records in both languages."""
    data = {"train_data": str(records_folder / "records.json"), "images_folder": str(records_folder / "images")}
    return {"model": str(saved_folder), **data, "output_dir": "训练", **SETTINGS}


@pytest.fixture
def config(folder, settings) -> Path:
    """The same in a file of the working folder."""
    Path("设置.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return Path("设置.yaml")


def change(config: Path, **changes) -> None:
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    config.write_text(yaml.safe_dump({**content, **changes}, allow_unicode=True), encoding="utf-8")


# -- settings ---------------------------------------------------------------------------------------------------------


def test_own_settings_change_only_on_purpose():
    inherited = {option.name for option in fields(FGClip2TrainingArguments.__mro__[1])}
    own = {option.name for option in fields(FGClip2TrainingArguments)} - inherited
    for group in (ModelSettings, DataSettings, train_options.BenchmarkOptions):
        own |= {option.name for option in fields(group)}
    assert own == {
        *("model", "revision", "lora", "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "lora_train_heads"),
        *("train_data", "eval_data", "data_format", "images_folder", "eval_images_folder", "language", "image_column"),
        *("short_caption_column", "long_caption_column", "language_column", "label_column"),
        *("shuffle_buffer", "follow_links", "sampling_rates"),
        *("benchmarks", "benchmark_images", "benchmark_settings", "benchmark_steps"),
        *("objective", "objective_settings", "gradient_cache_chunk_size", "language_batches", "max_num_patches"),
        *("patch_batches", "language_shares", "text_chunk_size", "device_memory"),
        *("patch_dropout", "resume_revision"),
        *("max_regions", "num_hard_negatives", "short_caption_prefix", "on_error", "head_learning_rate", "layer_decay"),
        *("freeze", "freeze_vision_layers", "freeze_text_layers", "max_logit_scale", "ema_decay", "image_augmentation"),
    }
    assert set(train_options.COMMON_ARGUMENTS) <= inherited


def test_the_help_is_short_and_the_whole_is_there(run):
    short = run("train", "--help", model=False).stdout
    assert len(short.splitlines()) < 170
    for word in ("--gradient_cache_chunk_size", "--train_data", "--output_dir", "--help-all", "Objective"):
        assert word in short
    assert "--hub_model_id" not in short
    assert "--hub_model_id" in run("train", "--help-all", model=False).stdout


def test_flags_win_over_the_file(config):
    change(config, freeze=["text_model"], objective_settings={"region_negatives": "global"}, bf16=False, seed=1)
    options = train_options.parse([str(config), "--seed", "2", "--freeze", "logit_bias", "logit_scale", "--lora"])
    assert (options.args.seed, options.args.learning_rate) == (2, 1e-3)
    assert options.args.freeze == ["logit_bias", "logit_scale"]
    assert options.args.settings == {"region_negatives": "global"}
    assert options.model.lora
    assert options.data.train_data == [options.changed["train_data"][0]]


def test_sets_to_evaluate_on_have_names(config):
    change(config, eval_data={"方块": ["a.json", "~/b.json"], "more": "c=d.csv"})
    data = train_options.parse([str(config)]).data
    assert data.eval_data == ["more=c=d.csv", "方块=a.json", f"方块={Path.home() / 'b.json'}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rte: 1.0", "did you mean learning_rate"),
        ("lr: 1.0", "unknown option lr; did you mean learning_rate\\?"),
        ("用户: 1", "unknown option 用户; fgclip2 train --help lists all"),
        ("max_regions: four", "--max_regions.*invalid int value: 'four'"),
        ("max_regions: 4.5", "--max_regions.*invalid int value"),
        ("language_batches: both", "language_batches"),
        ("seed: 1\nseed: 2", "seed given twice"),
        ("eval_data: {a/b: x}", "a set of `eval_data` must have a name of letters, digits, '_' and '-', got 'a/b'"),
        ("- a list", "must hold settings, lines such as `learning_rate: 1e-6`, got list"),
        ("", "must hold settings, .*, got nothing"),
        ("a: [", "can't be read as YAML in UTF-8: .*; correct it there"),
    ],
)
def test_mistakes_in_the_file_are_named(run, content, message):
    Path("错.yaml").write_text(content, encoding="utf-8")
    text = run("train", "错.yaml", model=False, code=1).stderr
    with pytest.raises(AssertionError, match=f"错.yaml.*{message}"):
        raise AssertionError(text)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--learning_rte", "1"], 2, "did you mean --learning_rate?"),
        (["--learning-rte", "1"], 2, "did you mean --learning_rate?"),
        (["--lr", "1"], 2, "unknown option --lr; did you mean --learning_rate?"),
        (["--caption_column", "描述"], 2, "did you mean --short_caption_column?"),
        (["--caption-column=描述"], 2, "did you mean --short_caption_column?"),
        (["--max_regions", "four"], 2, "invalid int value"),
        (["--max_regions", "0"], 1, "`max_regions` must be a positive integer, got 0"),
        (["--processes", "4"], 2, "4 is planned for only with --dry-run; add --dry-run, or leave it out"),
        (["--freeze", *EVERYTHING], 1, "freeze leaves nothing to train"),
        (["--train_data", "没有.json"], 1, "没有.json"),
        (
            ["--data_format", "lmdb"],
            1,
            "`data_format` must be 'finehard', 'fineregion-cn', 'ccmb', 'flickr30k-cna', 'zero', 'pairs', 'folder' or "
            "'shards', got 'lmdb'",
        ),
        (["--images_folder", "a", "b"], 1, "`images_folder` must have one value, or one for each of 1 sources, got 2"),
        (
            ["--image_column", "path"],
            1,
            "columns are named (`image_column`: path), but the format is finehard: leave them out",
        ),
        (["--eval_data", "没有.csv"], 1, "没有.csv"),
        (["--sampling_rates", "1", "2"], 1, "`sampling_rates` must have one value, or one for each of 1 sources"),
        (["--sampling_rates", "0"], 1, "`sampling_rates` must be a positive number for each of 1 sources, got [0.0]"),
        (["--model", "没有"], 1, "没有"),
        (["--per_device_train_batch_size", "400"], 1, "don't fill one batch"),
        (["--benchmarks", "lit-cn=没有"], 1, "没有"),
        (["--benchmarks", "lit-cn"], 1, "give the path of the data set of lit-cn; only bundled has none"),
        (["--benchmarks", "lit-cm=LIT-CN"], 1, "there is no benchmark 'lit-cm'"),
        (["--benchmarks", "lit-cn="], 1, "benchmarks: 'lit-cn=' must be NAME=FOLDER"),
        (["--benchmark_steps", "2"], 1, "benchmark_steps has no effect without benchmarks"),
        (["--benchmarks", "image-folder=照片", "--benchmark_images", "lit-cn=x"], 1, "benchmark_images names lit-cn"),
        (
            ["--benchmarks", "image-folder=照片", "--benchmark_settings", "crowds"],
            1,
            "'crowds' must be NAME=VALUE",
        ),
    ],
)
def test_mistakes_in_flags_are_named(run, config, flags, code, message):
    result = run("train", config, *flags, model=False, code=code)
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert not any(Path("训练").glob("*"))


def test_what_is_missing_is_named(run):
    assert "model is missing: pass --model" in run("train", code=2, model=False).stderr
    assert "train_data is missing" in run("train", "-m", "x", code=2, model=False).stderr
    assert "没有.yaml: no such file" in run("train", "没有.yaml", code=1, model=False).stderr


@pytest.mark.skipif(torch.accelerator.is_available(), reason="it is used")
def test_processes_of_a_launcher_train_on_the_cpu_if_there_is_nothing_else(config, monkeypatch):
    change(config, use_cpu=None)
    assert not train_options.parse([str(config)]).args.use_cpu
    monkeypatch.setenv("RANK", "0")
    options = train_options.parse([str(config)])
    assert options.args.use_cpu
    assert "use_cpu" not in options.changed  # settings.yaml is for other machines too


# -- dry run ----------------------------------------------------------------------------------------------------------


def test_the_plan(run, config):
    plan = run.json("train", config, "--dry-run", "--max_steps", -1, "--num_train_epochs", 2, model=False)
    assert plan["data"]["languages"] == {"en": 27, "zh": 13}
    assert plan["data"]["left_out"] == 3 + 1
    assert plan["data"]["sample"]["with_regions"] == 0.75
    assert (plan["steps"]["per_epoch"], plan["steps"]["total"]) == (9, 18)
    assert plan["steps"]["contrastive_batch"] == 4
    assert plan["memory"]["total"] > sum(plan["memory"][name] for name in ("weights", "gradients", "optimizer"))
    assert plan["traffic"] == {"gradients": 0.0, "gather": 0.0, "ring": 0.0}
    assert not Path("训练").exists()


def test_the_plan_says_which_terms_have_data(run, config):
    terms = run.json("train", config, "--dry-run", model=False)["terms"]
    assert terms["region"] == terms["hard_negative"] | {"weight": 0.2} == {"weight": 0.2, "records": 0.75}
    Path("对.csv").write_text("filepath,title\n" + "photo.png,一张照片\n照片/dog.png,a dog\n" * 4, encoding="utf-8")
    change(config, train_data="对.csv", images_folder=None, objective_settings={"tic_weight": 0})
    lines = run("train", config, "--dry-run", model=False).stdout.splitlines()
    start = lines.index("terms of the objective, by the 8 records looked at")
    assert [line.split(maxsplit=1) for line in lines[start + 1 : start + 6]] == [
        ["short", "weight 1, data in 100% of the records"],
        ["long", "weight 1, no data"],
        ["region", "weight 0.2, no data"],
        ["tic", "turned off (weight 0), no data"],
        ["hard_negative", "weight 0.5, no data"],
    ]


def test_the_plan_of_other_processes_and_ways(run, config):
    flags = [
        "--lora",
        "--lora_rank",
        2,
        "--gradient_cache_chunk_size",
        2,
        "--bf16",
        "--tf32",
        "true",
        "--ema_decay",
        "0.9",
    ]
    plan = run.json("train", config, "--dry_run", "--processes", 2, *flags, model=False)
    parameters = plan["model"]["parameters"]
    assert 0 < parameters["adapters"]["trained"] < parameters["total"]["trained"] < parameters["total"]["all"]
    assert plan["steps"]["contrastive_batch"] == 8
    assert 0 < plan["traffic"]["gather"] < plan["traffic"]["ring"]
    text = run("train", config, "--dry-run", "--processes", 2, *flags, model=False).stdout
    for word in (
        "with LoRA",
        "4 per process x 2 = 8",
        "gradient_cache_chunk_size=2",
        "an estimate",
        "sent by one process",
    ):
        assert word in text
    lines = text.splitlines()
    first = lines.index("activations at once by setting, an estimate") + 1
    rows = lines[first : first + 5]
    assert rows[-1].startswith("  gradient_cache_chunk_size=2, gradient_checkpointing ")  # the longest name
    assert len({len(row.removesuffix(" ".join(row.split()[-2:]))) for row in rows}) == 1  # one column of bytes


def test_texts_are_cut_by_the_plan_where_a_step_does_not_fit(run, config, caplog):
    flags = ["--device_memory", "0.01"]
    plan = run.json("train", config, "--dry-run", *flags, model=False)["memory"]
    assert (plan["text_chunk_size"], plan["fits"]) == (32, False)
    text = run("train", config, "--dry-run", *flags, model=False).stdout
    assert "32: so many texts at once" in text
    assert "does not fit" in text
    options = train_options.parse([str(config), *flags])
    with caplog.at_level("INFO", logger="fgclip2"):
        trainer = make_trainer(options)
    assert trainer.args.text_chunk_size == 32
    assert "a step would not fit the device: texts are encoded 32 at a time" in caplog.text
    trainer = make_trainer(train_options.parse([str(config), "--device_memory", "100"]))
    assert trainer.args.text_chunk_size == 0


def test_the_plan_names_records_that_cannot_be_used(run, config):
    Path("对.jsonl").write_text(
        '{"image": "photo.png", "caption": "一张照片"}\n{"image": "没有.png", "caption": "a photo"}\n' * 4,
        encoding="utf-8",
    )
    change(config, train_data="对.jsonl", images_folder=None)
    assert "nothing to train" in run("train", config, "--dry-run", "--freeze", *EVERYTHING, model=False, code=1).stderr
    text = run("train", config, "--dry-run", model=False).stdout
    assert "4: 对.jsonl:2: " in text
    assert "没有.png" in text


def test_the_plan_of_shards(run, config, records_folder, caplog):
    write_shards(read_finehard(records_folder / "records.json", records_folder / "images"), "分片", 15)
    change(config, train_data="分片", images_folder=None)
    evaluated = ("--eval_data", "分片", "--patch_batches", "alike")
    small = (*evaluated, "--shuffle_buffer", 8)
    plan = run.json("train", config, "--dry-run", "--processes", 3, *small, model=False)
    assert "among 1 batches of 4 only, which is all that the buffer of 8 samples of two languages" in caplog.text
    assert plan["data"]["sources"] == [{"path": "分片", "format": "shards", "records": 40, "draws": 40}]
    assert plan["data"]["held_out"] == 40
    assert (plan["data"]["records"], plan["data"]["left_out"], plan["steps"]["per_epoch"]) == (40, 4, 3)
    assert plan["steps"]["language_batches"] == "homogeneous"  # 24 of 27 English ones and 12 of 13 Chinese ones
    mixed = run.json("train", config, "--dry-run", "--processes", 4, "--language_batches", "mixed", model=False)
    assert (mixed["data"]["left_out"], mixed["steps"]["language_batches"]) == (8, "mixed")
    assert "languages" not in mixed["data"]
    assert (
        "`language_shares` must name the languages of the records ({'en': 27, 'zh': 13}), got {'en': 1.0}"
        in run("train", config, "--dry-run", "--language_shares", '{"en": 1.0}', code=1, model=False).stderr
    )
    short = run("train", config, "--dry-run", "--processes", 4, model=False).stdout
    assert "never trained on: zh                      13, too few for a batch" in short
    assert (
        "`images_folder` must be left out with shards, which hold their images, got x"
        in run("train", config, "--images_folder", "x", code=1, model=False).stderr
    )


@pytest.fixture
def without_regions(config) -> Path:
    """A file of eight pairs, half of them Chinese."""
    rows = [{"image": "photo.png", "caption": caption} for caption in ("一张照片", "a photo")] * 4
    Path("对.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return Path("对.jsonl")


def test_the_plan_of_weighted_shards(run, config, records_folder, without_regions):
    """Of 12 + 7 and 18 + 23 draws, of which the first 15 have regions."""
    write_shards(read_finehard(records_folder / "records.json", records_folder / "images"), "分片", 15)
    write_shards(read_pairs(without_regions), "对", 5)
    change(config, train_data=["分片", "对"], images_folder=None, sampling_rates=[0.5, 5])
    plan = run.json("train", config, "--dry-run", "--language_shares", '{"en": 0.5, "zh": 0.5}', model=False)
    assert [(source["records"], source["draws"]) for source in plan["data"]["sources"]] == [(40, 19), (8, 41)]
    assert (plan["data"]["languages"], plan["data"]["draws"]) == ({"en": 31, "zh": 17}, {"en": 30, "zh": 30})
    assert (plan["data"]["records"], plan["data"]["left_out"], plan["steps"]["per_epoch"]) == (48, 4, 14)
    assert (plan["data"]["sample"]["looked_at"], plan["data"]["sample"]["with_regions"]) == (60, 0.25)
    text = run("train", config, "--dry-run", "--language_batches", "mixed", model=False).stdout
    assert "对 shards, 8 records, 40 in an epoch" in " ".join(text.split())


def test_the_plan_looks_into_several_shards(run, config, records_folder, without_regions, monkeypatch):
    """Not at the first of them alone, which has no regions: at 4 of its records, and 8 of others, 6 with regions."""
    monkeypatch.setattr(planning, "LOOKED_AT", 12)
    write_shards(read_pairs(without_regions), "对", 8)
    write_shards(read_finehard(records_folder / "records.json", records_folder / "images"), "分片", 15)
    shards = [str(next(Path("对").glob("*.tar"))), str(sorted(Path("分片").glob("*.tar"))[0])]
    change(config, train_data=shards, images_folder=None)
    sample = run.json("train", config, "--dry-run", "--language_batches", "mixed", model=False)["data"]["sample"]
    assert (sample["looked_at"], round(sample["with_regions"] * 12)) == (12, 6)


def test_the_plan_judges_records_by_their_sampling_rates(run, config, settings, without_regions):
    """Of 14 + 6 and 20 + 20 draws, of which three quarters of the first twenty have regions."""
    change(config, train_data=[settings["train_data"], str(without_regions)], sampling_rates=[0.5, 5])
    change(config, images_folder=[settings["images_folder"], "."])
    data = run.json("train", config, "--dry-run", model=False)["data"]
    assert [(source["records"], source["draws"]) for source in data["sources"]] == [(40, 20), (8, 40)]
    assert data["sample"]["looked_at"] == 60
    assert data["sample"]["with_regions"] == pytest.approx(0.25, abs=0.08)


def test_links_out_of_the_folders_are_followed_on_demand_only(run, config, records_folder):
    Path("数据").mkdir()
    Path("数据/记录.json").symlink_to(records_folder / "records.json")
    change(config, train_data="数据")
    refused = run("train", config, "--dry-run", model=False, code=1).stderr
    assert "数据/记录.json is a link that leads out of 数据: set follow_links if you trust it" in refused
    plan = run.json("train", config, "--dry-run", "--follow-links", model=False)
    assert plan["data"]["records"] == 40


def test_no_secret_is_written(tmp_path):
    write_yaml(tmp_path / "settings.yaml", {"hub_token": "hf_secret", "hub_model_id": "我/模型"})
    assert read_yaml(tmp_path / "settings.yaml") == {"hub_model_id": "我/模型"}


# -- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_continued(run, config):
    plan = run.json("train", config, "--dry-run", model=False)
    first = run.json("train", config, "--save_steps", 1, model=False)
    assert first["steps"] == plan["steps"]["total"] == 2
    assert first["metrics"]["train_loss"] > 0
    folder = Path("训练")
    sizes = [
        file.stat().st_size for file in (folder / "checkpoint-2").iterdir() if file.suffix in (".safetensors", ".pt")
    ]
    assert sum(sizes) == pytest.approx(plan["disk"]["checkpoint"], rel=0.1)
    assert FGClip2Embedder.from_pretrained(folder).encode_texts(["红色方块", "a red square"]).shape == (2, 32)
    assert train_options.parse([str(folder / "settings.yaml")]).args.save_steps == 1

    repeated = run.json("train", config, "--resume", model=False)
    assert repeated["steps"] == 2
    assert repeated["metrics"] == {name: value for name, value in first["metrics"].items() if name.startswith("train_")}
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]

    again = run("train", config, model=False, code=1).stderr
    assert "训练 is not empty (its last checkpoint is checkpoint-2): pass --resume" in again
    result = run("train", config, "--resume", "--max_steps", 3, model=False)
    assert "going on from 训练/checkpoint-2" in result.stderr
    assert result.stdout.startswith("3 steps")
    assert "next: fgclip2 classify" in result.stdout


def test_evaluation_and_lora(run, config, records_folder):
    named = [f"方块={records_folder / 'records.json'}", f"again={records_folder / 'records.json'}"]
    flags = ["--eval_data", *named, "--lora", "--lora_rank", 2, "--gradient_checkpointing"]
    result = run("train", config, "--resume", *flags, model=False)
    assert "训练 has no complete checkpoint: from the start" in result.stderr
    values = [re.search(rf"{name}_hard_negative_accuracy +(\S+)", result.stdout)[1] for name in ("方块", "again")]
    assert values[0] == values[1]
    assert "merge_lora('训练')" in result.stdout
    assert "fgclip2 export exported --model 训练" in result.stdout  # which merges the adapter
    assert (Path("训练") / "adapter_model.safetensors").is_file()


def test_an_adapter_names_the_revision_of_its_base_model(monkeypatch):
    """By which it is loaded, and trained further."""
    monkeypatch.setattr("fgclip2.training.start.is_adapter", lambda name, revision=None: False)
    monkeypatch.setattr("fgclip2.training.start.family_to_train", lambda name, revision=None: FAMILIES[0])
    settings = ModelSettings(model="org/模型", revision="v1", lora=True)
    assert adapter_config(settings).revision == "v1"


def test_lora_runs_with_the_same_seed_are_the_same(run, config):
    def adapter(output, *flags):
        torch.manual_seed(len(output))  # whatever came before
        common = ["--output_dir", output, "--lora", "--lora_rank", 2, "--max_steps", 1, "--save_strategy", "no"]
        run("train", config, *common, *flags, model=False)
        return Path(output, "adapter_model.safetensors").read_bytes()

    first, second, another = adapter("一"), adapter("second"), adapter("another one", "--seed", 7)
    assert first == second
    assert first != another


def test_an_adapter_is_trained_further(run, config):
    flags = ["--lora", "--lora_rank", 2, "--max_steps", 2]
    planned = run.json("train", config, "--dry-run", *flags, model=False)["model"]
    run("train", config, *flags, "--output_dir", "适配器", model=False)
    change(config, model="适配器", learning_rate=0.0, max_steps=1)
    plan = run.json("train", config, "--dry-run", model=False)["model"]
    assert plan == {**planned, "name": "适配器", "lora": True}
    result = run.json("train", config, model=False)
    assert (result["lora"], result["steps"]) == (True, 1)
    before, after = (load_file(Path(name, "adapter_model.safetensors")) for name in ("适配器", "训练"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    assert any(value.any() for name, value in after.items() if "lora_B" in name)
    for mode in ([], ["--dry-run"]):
        stderr = run("train", config, "--lora", "--output_dir", "新", *mode, model=False, code=1).stderr
        assert "适配器 is an adapter, which is trained further as it is: leave `lora` out" in stderr


def test_benchmarks_of_a_run(run, config):
    """After steps, and once more at the end, for there is nothing to evaluate; from YAML."""
    for name in ("黑猫", "dog"):
        Path("类别", name).mkdir(parents=True)
        Path("照片", f"{name}.png").rename(Path("类别", name, "1.png"))
    change(config, benchmarks=["image-folder=类别"], benchmark_settings=["templates=none"], benchmark_steps=1)
    plan = run("train", config, "--dry-run", model=False).stdout
    assert f"{'image-folder':<42}2 images, 2 items" in plan
    result = run.json("train", config, model=False)
    top1 = result["metrics"]["eval_image-folder/top1"]
    history = json.loads(Path("训练/trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert [row["step"] for row in history if "eval_image-folder/top1" in row] == [1, 2, 2]
    bench = run("bench", "run", "image-folder", "类别", "--set", "templates=none", "-m", "训练", model=False)
    assert f"{100 * top1:.2f}%" in bench.stdout
    assert "image-folder/top1" in run("train", config, "--resume", "--max_steps", 3, model=False).stdout


def test_sources_are_joined(run, config, records_folder):
    Path("对.csv").write_text("路径,描述\n" + "photo.png,一张彩色的照片\n照片/dog.png,a dog\n" * 4, encoding="utf-8")
    change(config, train_data=[str(records_folder / "records.json"), "对.csv"], data_format=["finehard", "pairs"])
    change(
        config, images_folder=[str(records_folder / "images"), "."], image_column="路径", short_caption_column="描述"
    )
    plan = run.json("train", config, "--dry-run", model=False)
    assert plan["data"]["records"] == 48
    assert [source["format"] for source in plan["data"]["sources"]] == ["finehard", "pairs"]
    change(config, sampling_rates=[1, 0.5], language_shares={"en": 0.5, "zh": 0.5}, language_batches="mixed")
    lines = run("train", config, "--dry-run", model=False).stdout.splitlines()
    start = lines.index("data") + 1
    assert [line.split(maxsplit=1)[1] for line in lines[start : start + 5]] == [
        "finehard, 40 records, 39 in an epoch",
        "pairs, 8 records, 5 in an epoch",
        "48",
        "31, 22 in an epoch (50%)",
        "17, 22 in an epoch (50%)",
    ]
    assert f"  {'steps per epoch':<42}11" in lines


def launch(folder: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def assert_two_processes_train(folder: Path, command: list[str]) -> None:
    """Only the first process prints."""
    assert json.loads(launch(folder, *command, "--json").stdout)["steps"] == 2
    state = json.loads((folder / "训练" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["epoch"] == 2 / 4  # of 8 records a step, in English 3 and in Chinese 1 of them


@pytest.mark.slow
def test_two_processes_by_torchrun(folder, config):
    """On a stream of shards, without being told that there is no accelerator."""
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    write_shards(read_finehard(content["train_data"], content["images_folder"]), "shards", 15)
    change(config, use_cpu=None, train_data="shards", images_folder=None)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    command = [*torchrun, "fgclip2.cli", "train", config.name]
    plan = json.loads(launch(folder, *command, "--dry-run", "--json").stdout)
    assert plan["steps"]["contrastive_batch"] == 8
    assert_two_processes_train(folder, command)
    result = json.loads(launch(folder, *command, "--json", "--resume", "--max_steps=3").stdout)
    assert result["steps"] == 3
    assert result["resumed_from"].endswith("checkpoint-2")


@pytest.mark.slow
def test_two_processes_by_accelerate(folder, config):
    """On records, without being told that there is no accelerator."""
    change(config, use_cpu=None)
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2"]
    accelerate += ["--config_file", str(ROOT / "recipes/accelerate/ddp.yaml"), "-m"]
    assert_two_processes_train(folder, [*accelerate, "fgclip2.cli", "train", config.name])
