"""Whole runs of R2D2 on the trainer: retrieval and matching, continued, evaluated, planned, and what they refuse."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fgclip2 import Embedder, R2D2Config, R2D2Model, R2D2Processor
from fgclip2.data import RecordDataset, read_ccmb, read_pairs
from fgclip2.metrics import roc_auc
from fgclip2.training import (
    AfterR2D2ForPreTraining,
    FGClip2Trainer,
    FGClip2TrainingArguments,
    R2D2ForImageTextMatching,
    R2D2ForImageTextRetrieval,
)
from fgclip2.training.pair_collator import PairCollator
from fgclip2.training.sampler import DrawnRecord
from fgclip2.training.tasks.r2d2 import PARTS
from tests.cli.conftest import Command

from ..checkpoints import official_r2d2_folder  # noqa: F401
from .pairs import make_pairs
from .test_trainer import arguments, logs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Don't write into it."""
    folder = tmp_path_factory.mktemp("pairs")
    make_pairs(folder / "data", 12)
    return folder / "data"


@pytest.fixture(scope="module")
def pairs(data) -> RecordDataset:
    return read_pairs(data / "pairs.jsonl", data / "images")


@pytest.fixture(scope="module")
def labelled(data) -> RecordDataset:
    return read_ccmb(data / "labelled.jsonl", data / "images")


def settings_of(folder, objective: str, **changes) -> FGClip2TrainingArguments:
    defaults = {"per_device_train_batch_size": 6, "per_device_eval_batch_size": 9, "max_steps": 6}
    return arguments(folder, objective=objective, learning_rate=3e-3, **(defaults | changes))


@pytest.mark.parametrize("objective", ["retrieval", pytest.param("matching", marks=pytest.mark.slow)])
def test_a_run_learns_and_a_continued_one_is_bit_equal(official_r2d2_folder, tmp_path, pairs, labelled, objective):  # noqa: F811
    records = {"retrieval": pairs, "matching": labelled}[objective]
    settings = {"save_strategy": "steps", "save_steps": 3, "ema_decay": 0.9, "image_augmentation": "r2d2"}
    whole = FGClip2Trainer(
        str(official_r2d2_folder), settings_of(tmp_path / "whole", objective, **settings), records, records
    )
    evaluated = {"retrieval": "eval_gcpr_loss", "matching": "eval_loss"}[objective]
    before = whole.evaluate()[evaluated]
    whole.train()
    assert whole.evaluate()[evaluated] < before - 0.03
    losses = [row["loss"] for row in logs(whole)]
    assert len(losses) == 6
    for row in logs(whole):
        parts = [row[f"{name}_loss"] for name in ("gcpr", "fgr") if objective == "retrieval"]
        assert not parts or row["loss"] == pytest.approx(sum(parts), rel=1e-3)
        assert 0.001 <= row["temp"] <= 0.5
        assert "margin" not in row
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "continued" / "checkpoint-3")
    continued = FGClip2Trainer(
        str(official_r2d2_folder), settings_of(tmp_path / "continued", objective, **settings), records, records
    )
    continued.train(resume_from_checkpoint=True)
    assert [row["loss"] for row in logs(continued)] == losses
    for run in (whole, continued):
        run.save_model()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "continued")]
    assert weights[0] == weights[1]

    # The vision tower is that of the start, the rest is not, and the folder is a checkpoint of R2D2.
    start, after = (load_file(folder / "model.safetensors") for folder in (official_r2d2_folder, tmp_path / "whole"))
    changed = {name for name, value in after.items() if not torch.equal(value, start[name])}
    assert not any(name.startswith("visual_encoder") for name in changed)
    assert {"itm_head.weight", "itm_head_i.weight", "img_joint_proj.weight"} <= changed
    assert ("temp" in changed) == ("vision_proj.weight" in changed) == (objective == "retrieval")
    _, info = R2D2Model.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(info.values())
    assert Embedder.from_pretrained(tmp_path / "whole", device="cpu").encode_texts(["红球"]).shape == (1, 20)


@pytest.mark.slow
def test_accumulated_steps_are_the_mean_of_those_apart(official_r2d2_folder, tmp_path, labelled):  # noqa: F811
    """At a learning rate of zero, without dropout."""
    losses = []
    for steps, accumulated in ((4, 1), (2, 2)):
        model = without_dropout(R2D2ForImageTextMatching, official_r2d2_folder)
        args = settings_of(tmp_path, "matching", max_steps=steps, gradient_accumulation_steps=accumulated)
        args.learning_rate = 0.0
        run = FGClip2Trainer(model, args, labelled, processing_class=processor_of(official_r2d2_folder))
        run.train()
        losses.append([row["loss"] for row in logs(run)])
    apart, together = losses
    assert together == pytest.approx([(apart[0] + apart[1]) / 2, (apart[2] + apart[3]) / 2], rel=1e-3)


def processor_of(folder) -> R2D2Processor:
    return R2D2Processor.from_pretrained(folder)


def without_dropout(kind: type, folder):
    config = R2D2Config.from_pretrained(folder)
    for part in (config.text_config, config.cross_config):
        part.hidden_dropout_prob = part.attention_probs_dropout_prob = 0.0
    return kind.from_pretrained(folder, config=config)


# -- evaluation -------------------------------------------------------------------------------------------------------


def test_evaluation_of_retrieval_is_that_of_the_embedder(official_r2d2_folder, tmp_path, pairs):  # noqa: F811
    metrics = FGClip2Trainer(
        str(official_r2d2_folder), settings_of(tmp_path, "retrieval"), eval_dataset=pairs
    ).evaluate()
    embedder = Embedder.from_pretrained(official_r2d2_folder, device="cpu")
    names = sorted({record.image for record in pairs})
    texts = sorted({record.short_caption for record in pairs})  # of as many images as have it
    cosines = torch.tensor(embedder.encode_texts(texts) @ embedder.encode_images(names).T)
    right = torch.zeros(len(texts), len(names), dtype=torch.bool)
    for record in pairs:
        right[texts.index(record.short_caption), names.index(record.image)] = True
    for direction, scores, own in (("text_to_image", cosines, right), ("image_to_text", cosines.T, right.T)):
        best = torch.where(own, scores, -torch.inf).max(1, keepdim=True).values
        rank = 1 + ((scores > best + 1e-5) & ~own).sum(1)
        for k in (1, 5, 10):
            assert metrics[f"eval_{direction}_recall@{k}"] == pytest.approx((rank <= k).float().mean().item())
    recalls = [value for name, value in metrics.items() if "recall" in name]
    assert metrics["eval_r_mean"] == pytest.approx(sum(recalls) / 6)
    assert math.isfinite(metrics["eval_gcpr_loss"])


@pytest.mark.parametrize("candidates", [3, 100])
def test_recalls_after_the_cross_encoders(official_r2d2_folder, tmp_path, pairs, candidates):  # noqa: F811
    """By hand: every pair is scored, and the candidates by cosines that are not looked at come last."""
    args = settings_of(tmp_path, "retrieval", objective_settings={"candidates": candidates})
    metrics = FGClip2Trainer(str(official_r2d2_folder), args, eval_dataset=pairs).evaluate()
    model, processor = R2D2Model.from_pretrained(official_r2d2_folder).eval(), processor_of(official_r2d2_folder)
    names = sorted({record.image for record in pairs})
    texts = sorted({record.short_caption for record in pairs})
    inputs = processor(text=texts, images=names)
    with torch.no_grad():
        outputs = model(**inputs)
        cosines = outputs.image_embeds @ outputs.text_embeds.T  # (images, texts)
        image, text = (rows.flatten() for rows in torch.meshgrid(*map(torch.arange, cosines.shape), indexing="ij"))
        scores = model.rank_scores(
            outputs.image_tokens[image], outputs.text_tokens[text], inputs["attention_mask"][text]
        )
    scores = scores.view_as(cosines)
    right = torch.zeros_like(cosines, dtype=torch.bool)
    for record in pairs:
        right[names.index(record.image), texts.index(record.short_caption)] = True
    for direction, score, cosine, own in (
        ("image_to_text", scores, cosines, right),
        ("text_to_image", scores.T, cosines.T, right.T),
    ):
        found = []
        for row in range(len(score)):
            looked_at = cosine[row].argsort(descending=True)[:candidates]
            order = looked_at[score[row, looked_at].argsort(descending=True)].tolist()
            found.append(next((place for place, one in enumerate(order, 1) if own[row, one]), 999))
        for k in (1, 5, 10):
            share = sum(place <= k for place in found) / len(found)
            assert metrics[f"eval_reranked_{direction}_recall@{k}"] == pytest.approx(share)
    reranked = [value for name, value in metrics.items() if "reranked" in name and "recall" in name]
    assert metrics["eval_reranked_r_mean"] == pytest.approx(sum(reranked) / 6)


@pytest.mark.parametrize("form", ["nll", "released"])
def test_evaluation_of_matching_is_that_of_the_model(official_r2d2_folder, tmp_path, labelled, form):  # noqa: F811
    args = settings_of(tmp_path, "matching", objective_settings={"form": form})
    metrics = FGClip2Trainer(str(official_r2d2_folder), args, eval_dataset=labelled).evaluate()
    model, processor = R2D2Model.from_pretrained(official_r2d2_folder).eval(), processor_of(official_r2d2_folder)
    inputs = processor(text=[r.short_caption for r in labelled], images=[r.image for r in labelled])
    with torch.no_grad():
        tokens = model.get_text_tokens(inputs["input_ids"], inputs["attention_mask"])
        images = model.get_image_tokens(inputs["pixel_values"])
        probability = model.match_probability(images, tokens, inputs["attention_mask"])  # (24,)
    labels = torch.tensor([record.matches for record in labelled])
    assert metrics["eval_accuracy"] == pytest.approx(((probability >= 0.5) == labels).float().mean().item())
    assert metrics["eval_auc"] == pytest.approx(roc_auc(probability.numpy(), labels.numpy()))
    rows = torch.stack([1 - probability, probability], dim=1)
    if form == "released":
        expected = torch.nn.functional.cross_entropy(rows, labels.long())
    else:
        expected = torch.nn.functional.nll_loss(rows.log(), labels.long())
    assert metrics["eval_loss"] == pytest.approx(expected.item(), rel=1e-4)


# -- batches ----------------------------------------------------------------------------------------------------------


def test_equal_pictures_have_one_id_and_padding_is_masked(official_r2d2_folder, pairs):  # noqa: F811
    collator = PairCollator(processor_of(official_r2d2_folder))
    records = [
        pairs[0],
        pairs[1],
        pairs[2],
        replace(pairs[0], image=pairs[0].image.replace("/0.png", "/../images/0.png")),
    ]
    batch = collator([DrawnRecord(record, 0) for record in records])
    ids = batch["ids"].tolist()
    assert ids[0] == ids[1] == ids[3] != ids[2]
    assert batch["pixels"].shape == (4, 3, 32, 32)
    assert batch["attention_mask"].sum(1).tolist() == [10, 8, 10, 10]
    assert batch["skipped"] == []
    long = replace(pairs[0], short_caption=None, long_caption="红花")
    assert collator([DrawnRecord(long, 0)])["input_ids"].shape == (1, 4)


def test_equal_texts_have_one_hash_however_long_the_others_are(official_r2d2_folder, pairs):  # noqa: F811
    collator = PairCollator(processor_of(official_r2d2_folder), training=False)
    short, shorter, long = (replace(pairs[0], short_caption=text) for text in ("红花", "红", "红花在绿花旁"))
    longest, padded = (
        collator([DrawnRecord(x, 0) for x in batch])["text_hash"].tolist()
        for batch in ((short, shorter), (short, long))
    )
    assert longest[0] == padded[0]
    assert len({*longest, *padded}) == 3


def test_augmentation_follows_from_seed_epoch_and_record(official_r2d2_folder, pairs):  # noqa: F811
    def pixels(epoch=0, **options):
        collator = PairCollator(processor_of(official_r2d2_folder), **options)
        return collator([DrawnRecord(pairs[0], epoch)])["pixels"]

    assert torch.equal(pixels(augmentation="r2d2"), pixels(augmentation="r2d2"))
    assert not torch.equal(pixels(augmentation="r2d2"), pixels(1, augmentation="r2d2"))
    assert torch.equal(pixels(augmentation="r2d2", training=False), pixels())


def test_labels_that_a_task_can_not_use(official_r2d2_folder, pairs, labelled):  # noqa: F811
    processor = processor_of(official_r2d2_folder)
    wrong, unlabelled = DrawnRecord(labelled[1], 0), DrawnRecord(pairs[0], 0)
    with pytest.raises(
        ValueError, match=r"jsonl:2: label is 0; it must be 1, or none: this objective learns from pairs"
    ):
        PairCollator(processor)([wrong])
    with pytest.raises(ValueError, match=r"jsonl:1: label is missing; it must be 1 where image and caption match"):
        PairCollator(processor, labelled=True)([unlabelled])
    batch = PairCollator(processor, labelled=True, on_error="skip")([wrong, unlabelled])
    assert batch["labels"].tolist() == [0]
    assert len(batch["skipped"]) == 1
    nothing = PairCollator(processor, labelled=True, on_error="skip", training=False)([unlabelled])
    assert nothing["pixels"].shape == (0, 3, 32, 32)
    assert len(nothing["labels"]) == len(nothing["image_hash"]) == 0


# -- arguments and plans ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "released"}, "`objective` must be 'retrieval', 'matching' or 'after-r2d2', got 'released'"),
        ({"objective_settings": {"form": "nll"}}, "must be of candidates for the objective 'retrieval', got form"),
        ({"objective": "matching", "objective_settings": {"form": "bce"}}, "`form` must be 'fgr', 'nll' or 'released'"),
        ({"objective_settings": {"candidates": -1}}, "`candidates` must be a positive integer, got -1"),
        ({"gradient_cache_chunk_size": 2}, "`gradient_cache_chunk_size` must be None for R2D2ForImageTextRetrieval"),
        ({"text_chunk_size": 2}, "`text_chunk_size` must be None or 0 for R2D2ForImageTextRetrieval"),
        ({"max_logit_scale": 100.0}, "`max_logit_scale` must be None for a model with a temperature"),
        ({"short_caption_prefix": "a "}, "`short_caption_prefix` must be empty for a model that takes captions as"),
        ({"max_num_patches": "128"}, "`max_num_patches` means nothing to this model, whose images are squares"),
        (
            {"image_augmentation": "mixup"},
            "`image_augmentation` must be 'none', 'r2d2' or 'r2d2-released', got 'mixup'",
        ),
    ],
)
def test_what_a_run_can_not_take(official_r2d2_folder, tmp_path, pairs, settings, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        FGClip2Trainer(str(official_r2d2_folder), arguments(tmp_path, **settings), pairs)


def test_fsdp_is_refused(official_r2d2_folder, tmp_path, pairs, monkeypatch):  # noqa: F811
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP takes no parameters without dimensions, such as the temperature `temp`"):
        FGClip2Trainer(str(official_r2d2_folder), arguments(tmp_path), pairs)


def test_a_plain_model_becomes_that_of_the_objective(official_r2d2_folder, tmp_path, labelled):  # noqa: F811
    plain = R2D2Model.from_pretrained(official_r2d2_folder)
    run = FGClip2Trainer(
        plain, arguments(tmp_path, objective="matching"), labelled, processing_class=processor_of(official_r2d2_folder)
    )
    assert type(run.model) is R2D2ForImageTextMatching
    assert run.model.itm_head.weight is plain.itm_head.weight
    frozen = {name.split(".")[0] for name, p in run.model.named_parameters() if not p.requires_grad}
    assert {"visual_encoder", "temp", "vision_proj"} <= frozen
    with pytest.raises(ValueError, match="`objective` must be 'matching', got 'retrieval'"):
        FGClip2Trainer(
            run.model, arguments(tmp_path, objective="retrieval"), processing_class=processor_of(official_r2d2_folder)
        )


def test_the_command_plans_and_trains(official_r2d2_folder, data, tmp_path):  # noqa: F811
    run = Command(official_r2d2_folder)
    source = ("--train_data", data / "labelled.jsonl", "--images_folder", data / "images")
    here = ("--use_cpu", "--report_to", "none", "--disable_tqdm", "true", "--dataloader_pin_memory", "false")
    flags = (*source, *here, "--output_dir", tmp_path / "run", "--per_device_train_batch_size", 4, "--max_steps", 2)
    plan = run.json("train", *flags, "--objective", "matching", "--dry-run", "--processes", 2)
    assert plan["objective"] == {"preset": "matching", "form": "nll"}
    assert (plan["terms"], plan["advice"]) == ({}, [])
    assert plan["data"]["sources"][0]["format"] == "ccmb"
    counts = plan["model"]["parameters"]
    tensors = load_file(official_r2d2_folder / "model.safetensors")
    assert counts["total"]["all"] == sum(tensor.numel() for tensor in tensors.values())
    assert list(counts) == [*PARTS, "total"]
    assert counts["vision tower"]["trained"] == counts["projections"]["trained"] == 0
    assert plan["memory"]["vision_activations"] == 0 < plan["memory"]["cross_activations"]
    assert plan["memory"]["activations_by_way"].keys() == {"plain", "gradient_checkpointing"}
    printed = run("train", *flags, "--objective", "matching", "--dry-run").stdout
    assert "cross activations" in printed
    result = run.json("train", *flags, "--objective", "matching", "--save_strategy", "no", "--eval_data", source[1])
    assert result["steps"] == 2
    assert 0 <= result["metrics"]["eval_auc"] <= 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model_type"] == "r2d2"
    again = ("--output_dir", tmp_path / "other", "--lora")
    error = run("train", *flags, *again, code=1).stderr
    assert "`model_type` of a model with LoRA must be 'fgclip2' or 'fgclip', got 'r2d2'" in error


def test_a_plan_counts_what_retrieval_sends(official_r2d2_folder, pairs):  # noqa: F811
    model = R2D2ForImageTextRetrieval.from_pretrained(official_r2d2_folder)
    args = FGClip2TrainingArguments("run", per_device_train_batch_size=4, use_cpu=True)
    from fgclip2.training.estimates import DataSummary

    contents = model.task.step_contents(args, DataSummary(1, max_patches=16), None)
    images, texts = 4 * 17 * 32, 4 * 24 * 24  # values of tokens
    assert model.task.exchange_memory(model, None, contents, 1) == 0
    assert model.task.exchange_memory(model, None, contents, 3) == 4 * 3 * (images + 2 * texts)
    # Tokens of images once; of texts, and both embeddings, once and their gradients twice.
    expected = 4 * 2 * (images + 3 * (texts + 2 * 4 * 20))
    assert model.task.exchange_traffic(model, None, contents, 3) == {"tokens": expected}


# -- after R2D2's description -----------------------------------------------------------------------------------------


def test_a_run_after_r2d2_learns_and_a_continued_one_is_bit_equal(official_r2d2_folder, tmp_path, pairs):  # noqa: F811
    """Stopped within the epoch in which `alpha` grows; teacher, queue and head of MLM go on as they were."""
    settings = {
        "save_strategy": "steps",
        "save_steps": 3,
        "objective_settings": {"queue_size": 20, "mlm_alpha": 0.4, "mask_probability": 0.4, "momentum": 0.9},
    }
    whole = FGClip2Trainer(
        str(official_r2d2_folder), settings_of(tmp_path / "whole", "after-r2d2", **settings), pairs, pairs
    )
    before = whole.evaluate()["eval_gcpr_loss"]
    whole.train()
    assert whole.evaluate()["eval_gcpr_loss"] < before - 0.03
    rows = logs(whole)
    for row in rows:
        parts = [row[f"{name}_loss"] for name in ("gcpr", "fgr", "tgd", "fgd", "mlm")]
        assert row["loss"] == pytest.approx(sum(parts), rel=1e-3)
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "continued" / "checkpoint-3")
    continued = FGClip2Trainer(
        str(official_r2d2_folder), settings_of(tmp_path / "continued", "after-r2d2", **settings), pairs, pairs
    )
    continued.train(resume_from_checkpoint=True)
    assert [row["loss"] for row in logs(continued)] == [row["loss"] for row in rows]
    for file in ("model.safetensors", "after_r2d2.safetensors"):
        states = [(tmp_path / run / "checkpoint-6" / file).read_bytes() for run in ("whole", "continued")]
        assert states[0] == states[1]
    memory = whole.model.memory
    assert (memory.epoch, memory.queue.pointer) == (1.5, 16)
    student, teacher = whole.model.text_proj.weight, memory.teacher["text_proj"].weight
    start = load_file(official_r2d2_folder / "model.safetensors")["text_proj.weight"]
    assert (student - teacher).norm() > 0 < (teacher - start).norm() < (student - start).norm()

    whole.save_model()
    _, info = R2D2Model.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(info.values())
    smaller = {**settings, "objective_settings": {**settings["objective_settings"], "queue_size": 19}}
    other = FGClip2Trainer(
        str(official_r2d2_folder), settings_of(tmp_path / "continued", "after-r2d2", **smaller), pairs
    )
    with pytest.raises(ValueError, match="is of another teacher or queue: go on with the `queue_size`, `mlm_alpha`"):
        other.train(resume_from_checkpoint=True)


def test_a_run_after_r2d2_needs_whole_weights(tmp_path, monkeypatch):
    args = settings_of(tmp_path, "after-r2d2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match="the objective 'after-r2d2' has a teacher, which follows whole float32"):
        AfterR2D2ForPreTraining.task.check_arguments(args)
