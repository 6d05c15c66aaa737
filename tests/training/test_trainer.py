"""FGClip2Trainer in one process."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fgclip2 import FGClip2Embedder, FGClip2Model, FGClip2Processor
from fgclip2.data import RecordDataset
from fgclip2.training import FGClip2ForTraining, FGClip2Objective, FGClip2Trainer, FGClip2TrainingArguments
from fgclip2.training.checkpoints import last_checkpoint
from fgclip2.training.evaluation import embed_batches
from fgclip2.training.gradient_cache import split_batch
from fgclip2.training.missing_data import terms_without_data
from fgclip2.training.pixel_values import normalize_pixels

LOGGED = ("loss", "short_loss", "long_loss", "region_loss", "tic_loss", "hard_negative_loss", "pair_loss", "rank_loss")


def arguments(folder, **settings) -> FGClip2TrainingArguments:
    defaults = {
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return FGClip2TrainingArguments(str(folder), **(defaults | settings))


def trainer(saved_folder, folder, records, **settings) -> FGClip2Trainer:
    return FGClip2Trainer(str(saved_folder), arguments(folder, **settings), records, records)


def logs(run: FGClip2Trainer) -> list[dict]:
    return [row for row in run.state.log_history if "loss" in row]


def test_a_run_logs_each_loss_and_learns(saved_folder, tmp_path, records):
    run = trainer(saved_folder, tmp_path, records, max_steps=12)
    run.train()
    rows = logs(run)
    assert len(rows) == 12
    for name in (*LOGGED, "margin", "logit_scale", "logit_scale_hardneg", "samples_per_second", "data_wait", "skipped"):
        assert all(math.isfinite(row[name]) for row in rows), name
    settings = run.objective.settings
    for row in rows:
        total = sum(
            getattr(settings, f"{name}_weight") * row[f"{name}_loss"]
            for name in ("short", "long", "region", "tic", "hard_negative")
        )
        assert row["loss"] == pytest.approx(total, rel=1e-3)
    assert sum(row["loss"] for row in rows[-3:]) < sum(row["loss"] for row in rows[:3])


@pytest.mark.parametrize(("strategy", "lines"), [("steps", 3), ("no", 0)])
def test_a_short_run_logs_too(saved_folder, tmp_path, records, strategy, lines):
    """With transformers' default of 500 it had no line."""
    run = trainer(saved_folder, tmp_path, records, max_steps=3, logging_steps=500, logging_strategy=strategy)
    run.train()
    assert len(logs(run)) == lines


def test_the_saved_folder_is_a_checkpoint(saved_folder, tmp_path, records):
    run = trainer(saved_folder, tmp_path / "run", records)
    run.train()
    run.save_model(str(tmp_path / "final"))
    embedder = FGClip2Embedder.from_pretrained(tmp_path / "final")
    assert embedder.encode_texts(["红色方块", "a red square"]).shape == (2, 32)
    trained = FGClip2Model.from_pretrained(tmp_path / "final")
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter, run.model.state_dict()[name]), name


def test_gradient_accumulation_averages(saved_folder, tmp_path, records):
    """Two accumulated steps at a learning rate of zero log the mean of what they log apart."""
    apart = trainer(saved_folder, tmp_path / "a", records, max_steps=4, learning_rate=0.0, objective_settings=NO_MARGIN)
    apart.train()
    together = trainer(
        saved_folder,
        tmp_path / "b",
        records,
        learning_rate=0.0,
        gradient_accumulation_steps=2,
        objective_settings=NO_MARGIN,
    )
    together.train()
    losses = [row["loss"] for row in logs(apart)]
    expected = [(losses[0] + losses[1]) / 2, (losses[2] + losses[3]) / 2]
    assert [row["loss"] for row in logs(together)] == pytest.approx(expected, rel=1e-3)


NO_MARGIN = {"margin_bounds": (0.0, 0.0)}


@pytest.mark.parametrize("chunk_size", [1, 3])
def test_gradient_cache_gives_the_same_run(saved_folder, tmp_path, records, chunk_size):
    runs = []
    for size in (None, chunk_size):
        run = trainer(saved_folder, tmp_path / str(size), records, max_steps=4, gradient_cache_chunk_size=size)
        run.train()
        runs.append(run)
    plain, cached = ([[row[name] for name in (*LOGGED, "margin")] for row in logs(run)] for run in runs)
    for ours, theirs in zip(cached, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-4)


def test_evaluation(saved_folder, tmp_path, records):
    run = trainer(saved_folder, tmp_path, records, per_device_eval_batch_size=16)
    metrics = run.evaluate()
    for name in ("loss", "short_loss", "hard_negative_loss", "region_accuracy", "hard_negative_accuracy"):
        assert math.isfinite(metrics[f"eval_{name}"])
    for direction in ("image_to_text", "text_to_image"):
        recalls = [metrics[f"eval_long_{direction}_recall@{k}"] for k in (1, 5, 10)]
        assert recalls == sorted(recalls)
        assert 0 <= recalls[0] <= recalls[2] <= 1
    assert run.objective.margin.item() == 0


def test_evaluation_is_that_of_the_embedder(saved_folder, tmp_path, records):
    """Recall by hand from the public API."""
    metrics = trainer(saved_folder, tmp_path, records).evaluate()
    embedder = FGClip2Embedder.from_pretrained(saved_folder)
    images = embedder.encode_images([record.image for record in records])
    captions = [record.long_caption for record in records]
    distinct = sorted(set(captions))  # of as many images as have it
    assert len(distinct) < len(captions)
    similarity = images @ embedder.encode_texts(distinct, walk_type="long").T
    own = similarity[range(len(captions)), [distinct.index(caption) for caption in captions]]
    rank = (similarity >= own[:, None]).sum(1)  # its own included
    assert metrics["eval_long_image_to_text_recall@5"] == pytest.approx((rank <= 5).mean(), abs=1e-6)


def test_evaluation_by_language_and_best_checkpoint(saved_folder, tmp_path, records):
    class Part(RecordDataset):
        def __init__(self, language):
            self.rows = [i for i in range(len(records)) if records.languages[i] == language]
            self.languages = records.languages[self.rows]

        def _read(self, index):
            return records[self.rows[index]]

        def _source(self, index):
            return records.source(self.rows[index])

    args = arguments(
        tmp_path,
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_zh_long_loss",
        greater_is_better=False,
    )
    sets = {"en": Part(0), "zh": Part(1)}
    with pytest.raises(ValueError, match="must be a number of one of the sets, eval_en_… or eval_zh_…"):
        FGClip2Trainer(str(saved_folder), replace(args, metric_for_best_model="eval_loss"), records, sets)
    run = FGClip2Trainer(str(saved_folder), args, records, sets)
    run.train()
    values = [row["eval_zh_long_loss"] for row in run.state.log_history if "eval_zh_long_loss" in row]
    assert len(values) == 3
    assert run.state.best_metric == min(values)
    assert run.evaluate()["eval_zh_long_loss"] == pytest.approx(min(values), rel=1e-5)


def test_bad_records_are_left_out_and_counted(saved_folder, tmp_path, records, caplog):
    broken = Failing(records, lambda index: index < 10)
    run = trainer(saved_folder, tmp_path, broken, max_steps=8, on_error="skip")
    with caplog.at_level("WARNING"):
        run.train()
    skipped = [row["skipped"] for row in logs(run)]
    assert skipped == sorted(skipped)
    assert skipped[-1] == sum("left out: " in message and "records.json:" in message for message in caplog.messages) > 0
    with pytest.raises(ValueError, match=r"records.json:\d+: .*missing.png"):
        trainer(saved_folder, tmp_path, broken, max_steps=8).train()


class Failing(RecordDataset):
    """Records whose images are not there if `is_lost` says so of their number."""

    def __init__(self, records, is_lost):
        self._records, self._is_lost, self.languages = records, is_lost, records.languages

    def _read(self, index):
        record = self._records[index]
        return replace(record, image="missing.png") if self._is_lost(index) else record

    def _source(self, index):
        return self._records.source(index)


def test_a_run_outlives_batches_without_one_readable_image(saved_folder, tmp_path, records, caplog):
    """One record is a batch and a line of the log: the first two and the fourth are lost."""
    settings = {"per_device_train_batch_size": 1, "max_steps": 5, "on_error": "skip"}
    order = [draw.index for draw in trainer(saved_folder, tmp_path, records, **settings)._get_train_sampler()]
    lost = {order[0], order[1], order[3]}
    run = trainer(saved_folder, tmp_path, Failing(records, lost.__contains__), **settings)
    with caplog.at_level("WARNING"):
        run.train()
    assert [row["skipped"] for row in logs(run)] == [1, 2, 2, 3, 3]
    assert sum(message.startswith("no record could be used") for message in caplog.messages) == 3


@pytest.mark.parametrize(("allowed", "batches"), [(4096, 9), (18, 5)])
def test_a_disk_that_is_lost_ends_the_run(saved_folder, tmp_path, records, monkeypatch, allowed, batches):
    """After so many records, or one epoch of 9 batches of 4, however many could be used before."""
    monkeypatch.setattr("fgclip2.training.trainer._LOST", allowed)
    run = None
    lost = Failing(records, lambda index: run is not None and run.state.global_step >= 3)
    run = trainer(saved_folder, tmp_path, lost, max_steps=30, on_error="skip")
    with pytest.raises(ValueError, match=rf"every record was left out, {4 * batches} in a row.*missing\.png"):
        run.train()
    assert run.state.global_step == 4 + batches  # a batch is fetched ahead


def test_a_wrong_path_ends_the_run_early(saved_folder, tmp_path, records, monkeypatch):
    monkeypatch.setattr("fgclip2.training.trainer._HOPELESS", 8)
    run = trainer(saved_folder, tmp_path, Failing(records, lambda index: True), max_steps=30, on_error="skip")
    with pytest.raises(ValueError, match=r"every record was left out, 8 in a row"):
        run.train()
    assert run.state.global_step == 2


@pytest.mark.parametrize("logging_steps", [1, 50])
def test_a_run_without_one_readable_image_is_an_error(saved_folder, tmp_path, records, logging_steps):
    lost = Failing(records, lambda index: True)
    run = trainer(saved_folder, tmp_path, lost, on_error="skip", logging_steps=logging_steps)
    with pytest.raises(ValueError, match=r"every record was left out.*records\.json:\d+: .*missing\.png"):
        run.train()


class Pairs(RecordDataset):
    """Records without regions."""

    def __init__(self, records):
        self._records, self.languages = records, records.languages

    def _read(self, index):
        return replace(self._records[index], regions=())

    def _source(self, index):
        return self._records.source(index)


def test_terms_without_data_turn_themselves_off(saved_folder, tmp_path, records, caplog):
    """In one line; and their heads are left alone, whatever the weight decay."""
    settings = {"max_steps": 4, "weight_decay": 0.1, "save_strategy": "steps", "save_steps": 2}
    run = trainer(saved_folder, tmp_path, Pairs(records), **settings)
    before = run.model.boxtext_head.weight.detach().clone()
    run.train()
    expected = (
        "no data for region, tic, hard_negative: region_weight, tic_weight, hard_negative_weight of 0 in this run; a "
        "weight in `objective_settings` keeps its term"
    )
    assert [message for message in caplog.messages if message.startswith("no data")] == [expected]
    assert torch.equal(run.model.boxtext_head.weight, before)
    assert "region_loss" not in logs(run)[0]
    again = trainer(saved_folder, tmp_path, Pairs(records), **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [row["loss"] for row in logs(again)] == [row["loss"] for row in logs(run)]
    again._resumed_from = None
    again._turn_off_terms()  # as a second `train` does, which finds no weights of these terms any more
    assert again._off == ["region", "tic", "hard_negative"]


class Unreadable(Pairs):
    def _read(self, index):
        raise OSError("the disk is away")


@pytest.mark.parametrize("weight", [0.0, 30.0])
def test_no_term_is_turned_off_where_no_record_can_be_read(records, weight):
    """Distillation, which needs no such data, would be all that is left."""
    assert terms_without_data(Unreadable(records), FGClip2Objective(distillation_weight=weight), ()) == []


def test_terms_that_were_asked_for_stay(saved_folder, tmp_path, records, caplog):
    asked = {"region_weight": 0.2, "tic_weight": 0.1, "hard_negative_weight": 0.5}
    with caplog.at_level("WARNING"):
        trainer(saved_folder, tmp_path, Pairs(records), max_steps=3, objective_settings=asked).train()
    named = [message.split()[3] for message in caplog.messages if message.startswith("no data for")]
    assert named == ["region_loss", "hard_negative_loss"]


def test_freezing_ends_with_the_run(saved_folder, tmp_path, records):
    model = FGClip2ForTraining.from_pretrained(saved_folder)
    processor = FGClip2Processor.from_pretrained(saved_folder)
    no_regions = {"region_weight": 0.0, "tic_weight": 0.0, "hard_negative_weight": 0.0}
    first = arguments(tmp_path / "1", objective_settings=no_regions, freeze=["vision_model"])
    FGClip2Trainer(model, first, records, processing_class=processor).train()
    assert [n for n, parameter in model.named_parameters() if not parameter.requires_grad] == [
        "dense_feature_head.probe"
    ]
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    FGClip2Trainer(model, arguments(tmp_path / "2"), records, processing_class=processor).train()
    same = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert same == ["dense_feature_head.probe"]


def test_what_is_trained_has_to_be_float32(saved_folder, tmp_path, records):
    model = FGClip2ForTraining.from_pretrained(saved_folder, dtype=torch.bfloat16)
    processor = FGClip2Processor.from_pretrained(saved_folder)
    with pytest.raises(ValueError, match=r"is torch\.bfloat16; allowed to be trained: torch\.float32"):
        FGClip2Trainer(model, arguments(tmp_path), records, processing_class=processor)


def test_processes_that_the_arguments_do_not_know_of(saved_folder, tmp_path, records, monkeypatch):
    """As without an accelerator under torchrun, where transformers has a process group and one process."""
    monkeypatch.setattr("fgclip2.training.trainer.world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"2 processes run, but the arguments know of 1: .*use_cpu=True"):
        trainer(saved_folder, tmp_path, records)


def test_predict_has_metrics(saved_folder, tmp_path, records):
    run = trainer(saved_folder, tmp_path, records)
    outcome = run.predict(records)
    evaluated = run.evaluate()
    assert outcome.metrics["test_region_accuracy"] == evaluated["eval_region_accuracy"]


def test_a_checkpoint_without_optimizer_is_not_gone_on_from(saved_folder, tmp_path, records):
    settings = {"save_strategy": "steps", "save_steps": 1, "save_only_model": True}
    trainer(saved_folder, tmp_path, records, **settings).train()
    with pytest.raises(ValueError, match=r"checkpoint-2 has no optimizer to go on with"):
        trainer(saved_folder, tmp_path, records, **settings).train(resume_from_checkpoint=True)


def test_a_finished_run_is_not_gone_on_with(saved_folder, tmp_path, records, caplog):
    """Two steps of the nine of an epoch are all: transformers would take a third, and so on at each repetition."""
    settings = {"save_strategy": "steps", "save_steps": 1, "ema_decay": 0.5}
    first = trainer(saved_folder, tmp_path, records, **settings)
    first.train()
    assert first.steps_taken == 2
    again = trainer(saved_folder, tmp_path, records, **settings)
    with caplog.at_level("INFO", logger="fgclip2"):
        outcome = again.train(resume_from_checkpoint=True)
    assert "all 2 steps have been taken before: nothing is trained" in caplog.messages
    assert (outcome.global_step, again.steps_taken) == (2, 0)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    assert again.evaluate()["eval_loss"] == pytest.approx(first.evaluate()["eval_loss"], rel=1e-6)  # of the average
    longer = trainer(saved_folder, tmp_path, records, max_steps=3, **settings)
    longer.train(resume_from_checkpoint=True)
    assert longer.steps_taken == 1


@pytest.mark.parametrize(("batch_size", "epoch", "had"), [(2, 0, 12), (8, 2, 2)])
def test_going_on_over_shards_with_another_batch(saved_folder, tmp_path, records, batch_size, epoch, had):
    """40 records: of 10 steps an epoch come 20 or 5; the run goes on from step 12 where its new epochs have that."""
    from fgclip2.data import ShardedRecords, write_shards

    write_shards(records, tmp_path / "shards", samples_per_shard=15)

    def over_shards(batch_size, max_steps):
        stream = ShardedRecords(tmp_path / "shards", batch_size, drop_last=True, buffer_size=8)
        settings = {"per_device_train_batch_size": batch_size, "save_strategy": "steps", "save_steps": 6}
        args = arguments(tmp_path / "run", max_steps=max_steps, learning_rate=0.0, **settings)
        return FGClip2Trainer(str(saved_folder), args, stream)

    over_shards(4, 12).train()
    run = over_shards(batch_size, 14)
    run.train(resume_from_checkpoint=True)
    position = run.train_dataset.records.state_dict()
    assert (position["epoch"], position["batches"]) == (epoch, had)
    assert run.state.epoch == pytest.approx(14 / (40 // batch_size))


def test_shards_have_the_shares_of_languages_of_the_run(saved_folder, tmp_path, records):
    from fgclip2.data import ShardedRecords, write_shards

    write_shards(records, tmp_path / "shards")
    shares = {"en": 0.5, "zh": 0.5}
    args = arguments(tmp_path / "run", language_shares=shares)
    options = {"batch_size": 4, "drop_last": True, "language_batches": "homogeneous", "sampling_rates": [2]}
    message = r"ShardedRecords has language_shares=None; allowed: \{'en': 0.5, 'zh': 0.5\}, as the run has"
    with pytest.raises(ValueError, match=message):
        FGClip2Trainer(str(saved_folder), args, ShardedRecords(tmp_path / "shards", **options))
    stream = ShardedRecords(tmp_path / "shards", language_shares=shares, **options)
    order = FGClip2Trainer(str(saved_folder), args, stream)._order_of_data()
    assert (order["sampling rates"], order["language shares"]) == ([2.0], shares)


def test_going_on_with_another_batch_is_warned_of(saved_folder, tmp_path, records, caplog):
    settings = {"save_strategy": "steps", "save_steps": 1}
    trainer(saved_folder, tmp_path, records, **settings).train()
    with caplog.at_level("WARNING"):
        changes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        trainer(saved_folder, tmp_path, records, **settings, max_steps=3, **changes).train(resume_from_checkpoint=True)
    for change in ("batch size: the run had 4 and goes on with 2", "accumulation: the run had 1 and goes on with 2"):
        assert any(message.startswith(change) for message in caplog.messages)


def test_plain_peft_trains_and_saves_the_scales(saved_folder, tmp_path, records):
    import peft

    from fgclip2.training.lora import lora_config, merge_lora

    model = peft.get_peft_model(FGClip2ForTraining.from_pretrained(saved_folder), lora_config(rank=4))
    processor = FGClip2Processor.from_pretrained(saved_folder)
    run = FGClip2Trainer(model, arguments(tmp_path / "run"), records, processing_class=processor)
    before = run.model.get_base_model().logit_scale.clone()
    run.train()
    run.save_model(str(tmp_path / "adapter"))
    trained = run.model.get_base_model().logit_scale
    assert not torch.equal(trained, before)
    torch.testing.assert_close(merge_lora(tmp_path / "adapter", saved_folder).logit_scale, trained)

    wrong = peft.get_peft_model(FGClip2Model.from_pretrained(saved_folder), lora_config(rank=4))
    with pytest.raises(ValueError, match="PEFT wraps a FGClip2Model; allowed: an FGClip2ForTraining"):
        FGClip2Trainer(wrong, arguments(tmp_path / "run"), records, processing_class=processor)


def test_parameter_groups_and_freezing(saved_folder, tmp_path, records):
    run = trainer(
        saved_folder, tmp_path, records, head_learning_rate=1e-2, freeze=["text_model"], freeze_vision_layers=1
    )
    before = {name: parameter.clone() for name, parameter in run.model.named_parameters()}
    run.train()
    rates = {group["initial_lr"] for group in run.optimizer.optimizer.param_groups}
    assert rates == {1e-2, 1e-3}
    for name, parameter in run.model.named_parameters():
        frozen = name.startswith(("text_model", "vision_model.embeddings", "vision_model.encoder.layers.0."))
        assert torch.equal(parameter, before[name]) == (frozen or name == "dense_feature_head.probe"), name
    scales = [
        p for g in run.optimizer.optimizer.param_groups if g["weight_decay"] for p in g["params"] if p.numel() == 1
    ]
    assert scales == []


def test_learning_rates_fall_from_layer_to_layer(saved_folder, tmp_path, records):
    run = trainer(saved_folder, tmp_path, records, layer_decay=0.5, head_learning_rate=1e-2, logging_steps=1)
    run.train()
    groups = run.optimizer.optimizer.param_groups
    rates = {id(parameter): group["initial_lr"] for group in groups for parameter in group["params"]}
    assert (run.model.config.vision_config.num_hidden_layers, run.model.config.text_config.num_hidden_layers) == (3, 2)
    expected = {
        "vision_model.embeddings.patch_embedding.weight": 1e-3 / 16,
        "vision_model.encoder.layers.0.mlp.fc1.weight": 1e-3 / 8,
        "vision_model.encoder.layers.2.mlp.fc1.weight": 1e-3 / 2,
        "vision_model.post_layernorm.weight": 1e-3,
        "text_model.embeddings.token_embedding.weight": 1e-3 / 8,
        "text_model.encoder.layers.1.self_attn.q_proj.bias": 1e-3 / 2,
        "boxtext_head.weight": 1e-2,
        "logit_scale": 1e-2,
    }
    parameters = dict(run.model.named_parameters())
    assert {name: rates[id(parameters[name])] for name in expected} == pytest.approx(expected)
    logged = [entry["learning_rate"] for entry in run.state.log_history if "learning_rate" in entry]
    assert max(logged) == pytest.approx(1e-3)
    with pytest.raises(ValueError, match=r"`layer_decay` must be above 0 and at most 1, e\.g\. 0\.75, got 1\.5"):
        arguments(tmp_path / "wrong", layer_decay=1.5)


def test_what_the_objective_does_not_use_is_not_trained(saved_folder, tmp_path, records):
    settings = {"region_weight": 0.0, "tic_weight": 0.0, "hard_negative_weight": 0.0, "long_weight": 0.0}
    run = trainer(saved_folder, tmp_path, records, objective_settings=settings)
    batch = next(iter(run.get_train_dataloader()))
    batch.pop("skipped")
    run.compute_loss(run.model.train(), batch).backward()
    assert all(parameter.grad is not None or not parameter.requires_grad for parameter in run.model.parameters())
    assert not run.model.boxtext_head.weight.requires_grad
    assert not run.model.longtext_head.weight.requires_grad
    assert run.model.text_model.head.weight.requires_grad


def test_scales_stay_below_their_bound(saved_folder, tmp_path, records):
    run = trainer(saved_folder, tmp_path, records, max_logit_scale=50.0)
    run.train()
    for name in ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg"):
        assert getattr(run.model, name).exp().item() <= 50.001


def test_averaged_weights_are_evaluated_and_saved(saved_folder, tmp_path, records):
    run = trainer(saved_folder, tmp_path / "run", records, max_steps=3, ema_decay=0.5)
    start = FGClip2ForTraining.from_pretrained(saved_folder)
    run.train()
    run.save_model(str(tmp_path / "final"))
    name = "vision_model.head.probe"
    averaged = FGClip2Model.from_pretrained(tmp_path / "final").state_dict()[name]
    first, last = start.state_dict()[name], run.model.state_dict()[name]
    assert not torch.equal(averaged, last)
    assert (averaged - first).norm() < (last - first).norm()
    loss = run.evaluate()["eval_long_loss"]
    plain = trainer(tmp_path / "final", tmp_path / "other", records).evaluate()["eval_long_loss"]
    assert loss == pytest.approx(plain, rel=1e-4)


def test_bf16_and_checkpointing(saved_folder, tmp_path, records):
    """Checkpointed layers are called once more in each backward pass, and the run stays the same."""
    losses, calls = [], []
    for checkpointing in (False, True):
        run = trainer(saved_folder, tmp_path, records, bf16=True, gradient_checkpointing=checkpointing)
        dtypes: list[torch.dtype] = []

        def remember(module, inputs, output, dtypes=dtypes):
            dtypes.append(output.dtype)

        for tower in (run.model.vision_model, run.model.text_model):
            layer = tower.encoder.layers[0]
            layer.self_attn.q_proj.register_forward_hook(remember)
        run.train()
        losses.append([row["loss"] for row in logs(run)])
        calls.append(len(dtypes))
        assert set(dtypes) == {torch.bfloat16}
        assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}
    assert calls == [2 * 3, 2 * 3 * 2]  # steps, towers (that of texts for long ones too), and again
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_plain_model_is_taken_and_shares_its_weights(saved_folder, tmp_path, records):
    model = FGClip2Model.from_pretrained(saved_folder)
    processor = FGClip2Processor.from_pretrained(saved_folder)
    run = FGClip2Trainer(model, arguments(tmp_path), records, processing_class=processor)
    run.train()
    assert torch.equal(model.vision_model.head.probe, run.model.vision_model.head.probe)


def test_lora_trains_little_and_is_saved_and_merged(saved_folder, tmp_path, records):
    from fgclip2.training.lora import add_lora, lora_config, merge_lora

    model = add_lora(FGClip2ForTraining.from_pretrained(saved_folder), lora_config(rank=4))
    processor = FGClip2Processor.from_pretrained(saved_folder)
    run = FGClip2Trainer(model, arguments(tmp_path / "run"), records, records, processor)
    base = {name: p.clone() for name, p in run.model.named_parameters() if "base_layer" in name}
    run.train()
    for name, parameter in run.model.named_parameters():
        if name in base:
            assert torch.equal(parameter, base[name]), name
    run.save_model(str(tmp_path / "adapter"))
    merged = merge_lora(tmp_path / "adapter", saved_folder)
    batch = normalize_pixels(next(iter(run.get_eval_dataloader())))
    pixels = {name: batch[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}
    with torch.no_grad():
        expected = run.model.eval()(**{name: value for name, value in batch.items() if name != "skipped"})
        features = torch.nn.functional.normalize(merged.eval().get_image_features(**pixels), dim=-1)
    torch.testing.assert_close(features, expected["image_embeds"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged.logit_scale, run.model.get_base_model().logit_scale)


def test_an_adapter_is_trained_further_by_its_name(saved_folder, tmp_path, records):
    from fgclip2.training.lora import FGClip2LoraModel, add_lora, lora_config, save_lora

    model = add_lora(FGClip2ForTraining.from_pretrained(saved_folder), lora_config(rank=4))
    with torch.no_grad():
        model.get_base_model().logit_scale_hardneg.fill_(3.0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    adapter = save_lora(model, tmp_path / "adapter")
    run = FGClip2Trainer(str(adapter), arguments(tmp_path / "run"), records)
    assert isinstance(run.model, FGClip2LoraModel)
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    for name, value in model.named_parameters():
        assert torch.equal(before[name], value), name
    run.train()
    changed = {name for name, value in run.model.named_parameters() if not torch.equal(value, before[name])}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert changed == trained


def test_no_pickle_of_arguments_is_written(saved_folder, tmp_path, records):
    run = trainer(saved_folder, tmp_path / "run", records)
    run.train()
    run.save_model(str(tmp_path / "final"))
    assert not (tmp_path / "final" / "training_args.bin").exists()
    assert json.loads((tmp_path / "final" / "training_args.json").read_text())["max_steps"] == 2


@pytest.mark.slow
def test_compiled(saved_folder, tmp_path, records):
    compiled = trainer(saved_folder, tmp_path / "a", records, torch_compile=True, torch_compile_backend="aot_eager")
    compiled.train()
    plain = trainer(saved_folder, tmp_path / "b", records)
    plain.train()
    for ours, theirs in zip(logs(compiled), logs(plain), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_early_stopping(saved_folder, tmp_path, records):
    from transformers import EarlyStoppingCallback

    args = arguments(
        tmp_path,
        max_steps=30,
        learning_rate=0.0,  # so that nothing gets better
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_long_image_to_text_recall@1",
        greater_is_better=True,
    )
    run = FGClip2Trainer(str(saved_folder), args, records, records, callbacks=[EarlyStoppingCallback(2)])
    run.train()
    assert run.state.global_step == 3


EVERYTHING = [
    *("text_model", "vision_model", "longtext_head", "boxtext_head", "dense_feature_head"),
    *("logit_scale", "logit_bias", "logit_scale_finegraind", "logit_scale_hardneg"),
]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "stage2"}, "`objective` must be 'released', 'paper', 'fgclip' or 'ranking', got 'stage2'"),
        ({"objective_settings": {"fgv": 1}}, "`objective_settings` must be of caption_loss, .*, got fgv"),
        ({"patch_batches": "equal"}, "`patch_batches` must be 'any' or 'alike', got 'equal'"),
        ({"language_batches": "english"}, "`language_batches` must be 'homogeneous' or 'mixed', got 'english'"),
        ({"on_error": "ignore"}, "`on_error` must be 'raise' or 'skip', got 'ignore'"),
        ({"max_regions": 0}, "`max_regions` must be a positive integer, got 0"),
        ({"ema_decay": 1.0}, "`ema_decay` must be between 0 and 1, e.g. 0.999, got 1.0"),
        ({"dataloader_drop_last": False}, "`dataloader_drop_last` must be True"),
        ({"max_num_patches": "big"}, "`max_num_patches` must be 'auto' or a positive integer, got 'big'"),
        ({"freeze": ["vision"]}, "`freeze` must name modules or parameters of the model, .*got 'vision'"),
        ({"freeze": EVERYTHING}, r"freeze leaves nothing to train \(text_model, .*: freeze only a part of the model"),
        ({"freeze_text_layers": 9}, "`freeze_text_layers` must be from 0 to 2, the layers of text_model, got 9"),
        (
            {
                "save_only_model": True,
                "ema_decay": 0.9,
                "load_best_model_at_end": True,
                "save_strategy": "epoch",
                "eval_strategy": "epoch",
            },
            "save_only_model leaves out the average",
        ),
    ],
)
def test_wrong_arguments_are_named(saved_folder, tmp_path, records, settings, message):
    with pytest.raises(ValueError, match=message):
        trainer(saved_folder, tmp_path, records, **settings)


def test_wrong_data_sets_are_named(saved_folder, tmp_path, records):
    with pytest.raises(ValueError, match=r"`train_dataset` must be a RecordDataset .*, got list"):
        FGClip2Trainer(str(saved_folder), arguments(tmp_path), [1, 2])
    with pytest.raises(ValueError, match=r"`eval_dataset` must be a RecordDataset, .*got list"):
        FGClip2Trainer(str(saved_folder), arguments(tmp_path), records, {"en": [1]})
    with pytest.raises(ValueError, match="compute_metrics would never be called"):
        FGClip2Trainer(str(saved_folder), arguments(tmp_path), records, compute_metrics=print)
    with pytest.raises(ValueError, match="processing_class is missing"):
        FGClip2Trainer(FGClip2Model.from_pretrained(saved_folder), arguments(tmp_path), records)


def test_the_last_complete_checkpoint_is_found(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step, state in ((5, "{}"), (10, "{}"), (15, '{"epoch": 1.'), (20, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_resuming_without_a_checkpoint(saved_folder, tmp_path, records):
    with pytest.raises(ValueError, match="has no complete checkpoint to go on from"):
        trainer(saved_folder, tmp_path, records).train(resume_from_checkpoint=True)


def test_losses_of_an_evaluation_are_means_over_batches_in_order():
    from fgclip2.training.losses import sigmoid_loss
    from fgclip2.training.objective import FGClip2Objective

    from . import golden

    batch = golden.batch(0, regions=0, hard=0)
    index = {name: torch.arange(4) for name in ("short_image_index", "long_image_index", "image_hash")}
    model = golden.model()
    _, metrics, _ = embed_batches(model, split_batch(batch | index, 3), FGClip2Objective())
    with torch.no_grad():
        embedded = model(**batch)
        parts = [
            sigmoid_loss(
                embedded["image_embeds"][part],
                embedded["short_text_embeds"][part],
                embedded["logit_scale"],
                embedded["logit_bias"],
            )
            for part in (slice(0, 3), slice(3, 4))
        ]
    assert metrics["short_loss"] == pytest.approx((3 * parts[0] + parts[1]).item() / 4, rel=1e-5)


class Slow(RecordDataset):
    """Records that take so many seconds each."""

    def __init__(self, records, seconds):
        self._records, self._seconds, self.languages = records, seconds, records.languages

    def _read(self, index):
        time.sleep(self._seconds)
        return self._records[index]

    def _source(self, index):
        return self._records.source(index)


def test_the_log_says_what_is_the_bottleneck(saved_folder, tmp_path, records, caplog):
    run = trainer(saved_folder, tmp_path, Slow(records, 0.2), max_steps=3)
    with caplog.at_level("INFO", logger="fgclip2"):
        run.train()
    assert any("the loader is the bottleneck" in message for message in caplog.messages)
    assert logs(run)[1]["data_wait"] > 0.3


def test_evaluation_does_not_count_as_training_time(saved_folder, tmp_path, records):
    args = arguments(tmp_path, eval_strategy="steps", eval_steps=1)
    run = FGClip2Trainer(str(saved_folder), args, records, Slow(records, 0.02))
    run.train()
    evaluation = min(row["eval_runtime"] for row in run.state.log_history if "eval_runtime" in row)
    assert evaluation > 0.8
    assert 4 / logs(run)[1]["samples_per_second"] < evaluation  # the step after one


def test_settings_of_a_run_are_json(saved_folder, tmp_path):
    args = arguments(tmp_path, objective_settings='{"margin_bounds": [0, 5]}')
    assert args.objective_settings == {"margin_bounds": (0, 5)}
    json.loads(args.to_json_string())
    assert Path(args.output_dir) == tmp_path
