"""The language stage: texts in free wording beside what the locked image tower made of their scenes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fgclip2 import Embedder, FGClip2Processor
from fgclip2.languages import detect_language
from recipes.embedded_checkpoint.optimizer import build_optimizer
from recipes.scenes.language_stage import LanguageBatches, LanguageTrainee, locked_embeddings, training_grammars
from recipes.scenes.settings import LanguageSettings
from recipes.scenes.trainee import load_start

from .conftest import ASSETS

LABELS = ["dog", "狗", "a photo of a cat", "一张猫的图片"]


@pytest.fixture(scope="module")
def settings():
    return LanguageSettings(scenes_per_batch=4, hard_regions_per_batch=5, labels_per_batch=3, full_text_share=0.0)


@pytest.fixture(scope="module")
def label_ids(tokenizer):
    return tokenizer(LABELS, return_tensors="pt")["input_ids"]


@pytest.fixture(scope="module")
def locked(tmp_path_factory, pool, tokenizer, label_ids, settings):
    model = load_start(ASSETS / "checkpoint", settings.region_scale)
    return locked_embeddings(tmp_path_factory.mktemp("language"), model, tokenizer, pool, label_ids)


def make_batches(settings, pool, locked, label_ids, tokenizer, things):
    grammars = training_grammars(things, tokenizer, settings)
    return LanguageBatches(settings, pool, locked, label_ids, tokenizer, grammars)


def texts_of(tokenizer, ids):
    return [tokenizer.decode(row, skip_special_tokens=True) for row in ids]


def test_locked_embeddings_are_those_of_the_embedder(locked, pool, records):
    embedder = Embedder.from_pretrained(ASSETS / "checkpoint", device="cpu", dtype="float32")
    row = 1
    grid = pool.grids[row]
    patches = pool.patches[0][row, : grid.prod()].reshape(*grid, 16, 16, 3)
    image = patches.swapaxes(1, 2).reshape(grid[0] * 16, grid[1] * 16, 3)
    budget = int(grid.prod())
    expected = embedder.encode_images([image], max_num_patches=budget)[0]
    np.testing.assert_allclose(locked.images[row].numpy(), expected, atol=1e-5)
    height, width = image.shape[:2]
    boxes = np.array([info["bbox"] for info in records["en"][row]["bbox_info"]]) * [width, height, width, height]
    expected = embedder.encode_regions([image], [boxes.tolist()], max_num_patches=budget)[0]
    first, last = locked.first_region[row : row + 2].tolist()
    np.testing.assert_allclose(locked.regions[first:last].numpy(), expected, atol=1e-4)
    both = [embedder.encode_texts(records[lang][row]["caption"], role="long_caption") for lang in ("en", "zh")]
    mean = np.sum(both, axis=0)
    np.testing.assert_allclose(locked.captions[row].numpy(), mean / np.linalg.norm(mean), atol=1e-5)
    for own, role in zip(locked.labels, ("caption", "region_phrase"), strict=True):
        np.testing.assert_allclose(own.numpy(), embedder.encode_texts(LABELS, role=role), atol=1e-5)


def test_embeddings_are_read_again_where_nothing_has_changed(
    tmp_path, pool, tokenizer, label_ids, settings, monkeypatch
):
    model = load_start(ASSETS / "checkpoint", settings.region_scale)
    first = locked_embeddings(tmp_path, model, tokenizer, pool, label_ids)
    other = load_start(ASSETS / "checkpoint", settings.region_scale)
    with torch.no_grad():
        other.text_model.head.weight.mul_(-1)
    changed = locked_embeddings(tmp_path, other, tokenizer, pool, label_ids)
    assert not torch.equal(changed.labels, first.labels)
    assert len(locked_embeddings(tmp_path, model, tokenizer, pool, label_ids[:1]).labels[0]) == 1
    monkeypatch.setattr("recipes.scenes.language_stage._embed_scenes", None)  # a call of it would fail
    again = locked_embeddings(tmp_path, model, tokenizer, pool, label_ids)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in vars(first))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_texts_stand_beside_what_they_describe(settings, pool, locked, label_ids, tokenizer, things, records, share):
    batches = make_batches(replace(settings, grammar_share=share), pool, locked, label_ids, tokenizer, things)
    for step, language in ((0, "en"), (1, "zh")):
        batch, again = batches.batch(step), batches.batch(step)
        assert all(torch.equal(value, again[name]) for name, value in batch.items())
        rows = [int((locked.images == one).all(1).nonzero()) for one in batch["image_embeds"]]
        own = [records[language][row] for row in rows]
        assert torch.equal(batch["caption_targets"], locked.captions[rows])
        for name, field in (("short", "short_caption"), ("long", "caption")):
            decoded = texts_of(tokenizer, batch[f"{name}_input_ids"])
            assert [detect_language(text) for text in decoded] == [language] * len(rows)
            is_composed = [text == one[field].lower() for text, one in zip(decoded, own, strict=True)]
            assert is_composed == [not share] * len(rows)
        infos = [info for record in own for info in record["bbox_info"]]
        regions = [locked.regions[slice(*locked.first_region[[row, row + 1]].tolist())] for row in rows]
        assert torch.equal(batch["region_embeds"], torch.cat(regions))
        for text, info in zip(texts_of(tokenizer, batch["region_input_ids"]), infos, strict=True):
            assert (text in (info["short_expr"].lower(), info["long_expr"].lower())) == (not share)
        for embeds, ids in zip(batch["hard_region_embeds"], batch["hard_input_ids"], strict=True):
            info = infos[int((batch["region_embeds"] == embeds).all(1).nonzero())]
            expected = [info["short_expr"], *info["short_expr_negs"].values()]
            assert texts_of(tokenizer, ids) == [text.lower() for text in expected]
        for ids, targets in zip(batch["label_input_ids"], batch["label_targets"].unbind(1), strict=True):
            place = [text.lower() for text in LABELS].index(tokenizer.decode(ids, skip_special_tokens=True))
            assert torch.equal(targets, locked.labels[:, place])


def test_a_few_steps_teach_the_text_tower_alone(settings, pool, locked, label_ids, tokenizer, things):
    batch = make_batches(settings, pool, locked, label_ids, tokenizer, things).batch(0)
    torch.manual_seed(0)
    trainee = LanguageTrainee(load_start(ASSETS / "checkpoint", settings.region_scale), settings)
    before = {name: value.clone() for name, value in trainee.model.state_dict().items()}
    optimizer, losses = build_optimizer(trainee, 2e-3, 1e-3, 0.05), []
    for _ in range(4):
        optimizer.zero_grad()
        named = trainee(batch)
        named["loss"].backward()
        losses.append(named["loss"].item())
        optimizer.step()
    assert {"short", "long", "region", "tic", "hard_negative", "caption_distillation", "label_distillation"} <= set(
        named
    )
    assert losses[-1] < losses[0]
    without = [name for name, p in trainee.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    for name, value in trainee.model.state_dict().items():
        is_image = name.startswith(("vision_model", "dense_feature_head"))
        assert torch.equal(value, before[name]) == is_image or name.endswith("position_ids"), name


def test_distances_are_from_what_the_start_makes_of_captions_and_labels(
    settings, pool, locked, label_ids, tokenizer, things
):
    batch = make_batches(settings, pool, locked, label_ids, tokenizer, things).batch(1)
    trainee = LanguageTrainee(load_start(ASSETS / "checkpoint", settings.region_scale), settings)
    with torch.no_grad():
        losses = trainee(batch)
        batch["label_targets"] = -batch["label_targets"]
        assert losses["label_distillation"].item() == pytest.approx(0, abs=1e-5)
        assert trainee(batch)["label_distillation"].item() == pytest.approx(2, abs=1e-5)
        embedder = Embedder(trainee.model, FGClip2Processor.from_pretrained(ASSETS / "checkpoint"))
        distances = []
        for name, role in (("short", "caption"), ("long", "long_caption")):
            embeds = embedder.encode_texts(texts_of(tokenizer, batch[f"{name}_input_ids"]), role=role)
            distances.append(1 - (embeds * batch["caption_targets"].numpy()).sum(1))
        assert losses["caption_distillation"].item() == pytest.approx(np.mean(distances), abs=1e-5)
