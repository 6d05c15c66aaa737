"""The ranking stage of FG-CLIP 2 in training: its losses, what is frozen, mined neighbours, and runs."""

import weakref
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fgclip2 import FGClip2Embedder, FGClip2ForImageTextMatching, FGClip2Model
from fgclip2.data import Record, RecordDataset, open_record_image
from fgclip2.training import (
    FGClip2ForTraining,
    FGClip2MatchingForTraining,
    FGClip2Trainer,
    FGClip2TrainingArguments,
    NeighbouringRecords,
    mine_neighbours,
)
from fgclip2.training.estimates import DataSummary, StepContents
from fgclip2.training.mixture import Source
from fgclip2.training.pixel_values import normalize_pixels
from fgclip2.training.sampler import BatchOrderSampler, order_with_neighbours
from fgclip2.training.tasks.ranking import RankingSettings


class Chosen(RecordDataset):
    """Records of others by their numbers."""

    def __init__(self, records: RecordDataset, numbers: list[int]):
        self.records, self.numbers, self.languages = records, numbers, records.languages[numbers]

    def _read(self, index: int) -> Record:
        return self.records[self.numbers[index]]

    def _source(self, index: int) -> str:
        return self.records.source(self.numbers[index])


@pytest.fixture(scope="module")
def embedder(saved_folder) -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(saved_folder, device="cpu")


def run_of(model, folder, records, **settings) -> FGClip2Trainer:
    defaults = {
        "per_device_train_batch_size": 4,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "objective": "ranking",
    }
    return FGClip2Trainer(model, FGClip2TrainingArguments(str(folder), **(defaults | settings)), records, records)


@pytest.fixture(scope="module")
def batch(saved_folder, records, tmp_path_factory):
    """Four records, as the trainer gives them to the model."""
    run = run_of(str(saved_folder), tmp_path_factory.mktemp("run"), records)
    batch = normalize_pixels(next(iter(run.get_train_dataloader())))
    return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}


@pytest.fixture
def model(saved_folder) -> FGClip2MatchingForTraining:
    torch.manual_seed(0)
    model = FGClip2MatchingForTraining.from_pretrained(saved_folder)
    torch.nn.init.normal_(model.cross_encoder.head.weight)
    return model.eval()


def test_the_losses_are_those_of_all_pairs_one_by_one(model, batch):
    """With as many negatives as there are, none is drawn: all others are candidates."""
    with torch.no_grad():
        outputs = model(**batch, negatives=3)
        images = model.get_image_tokens(
            *(batch[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes"))
        )
        of_images, of_texts, right = [], [], []
        for kind in ("short", "long"):
            texts = model.get_text_tokens(batch[f"{kind}_input_ids"])
            logits = torch.stack([torch.cat([model.match(i[None], t[None]) for i in images]) for t in texts])  # (4, 4)
            own = torch.arange(4)
            assert torch.equal(batch[f"{kind}_image_index"], own)
            of_images.append(F.cross_entropy(logits, own))
            of_texts.append(F.cross_entropy(logits.T, own))
            right.append((logits.argmax(1) == own).float())
        image = batch["hard_index"][:, 0]
        texts = batch["hard_input_ids"]
        hard = []
        for row in range(len(texts)):
            there = [0, *(1 + batch["hard_negative_mask"][row].nonzero()[:, 0]).tolist()]
            tokens = model.get_text_tokens(texts[row, there])
            added = torch.cat([model.cross_encoder(images[image[row]][None], its[None]) for its in tokens])
            hard.append(F.cross_entropy(added[None], torch.tensor([0])))
    torch.testing.assert_close(outputs["image"], torch.stack(of_images).mean())
    torch.testing.assert_close(outputs["text"], torch.stack(of_texts).mean())
    torch.testing.assert_close(outputs["hard_text"], torch.stack(hard).mean())
    torch.testing.assert_close(outputs["right"], torch.stack(right).mean(0))
    total = (outputs["image"] + outputs["text"]) / 2 + outputs["hard_text"]
    torch.testing.assert_close(outputs["loss"], total)
    less = model(**batch, negatives=3, hard_text_weight=0.5)["loss"]
    torch.testing.assert_close(less, total - 0.5 * outputs["hard_text"])


def test_the_stage_alone_is_trained(model, batch):
    model.train()(**batch)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == name.startswith("cross_encoder."), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
    with pytest.raises(ValueError, match="a batch must have two images at least, to be told from each other, got 1"):
        model(**{**batch, "pixel_values": batch["pixel_values"][:1]})


def test_others_are_drawn_by_similarity_and_never_of_the_same_image(model, batch):
    images = model.get_image_tokens(
        *(batch[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes"))
    )
    texts = model.get_text_tokens(batch["short_input_ids"])
    index = torch.tensor([0, 1, 1, 2])
    hashes = torch.arange(4)
    for is_training in (True, False):
        candidates, captions = model.train(is_training)._draw(images, texts, index, hashes, 2)
        assert torch.equal(candidates[:, 0], index)
        assert torch.equal(captions[:, 0], torch.arange(4))
        for row in range(4):
            assert len(set(candidates[row].tolist())) == 3
            assert index[row] not in index[captions[row, 1:]]
    similar = F.normalize(texts[:, 0], dim=-1) @ F.normalize(images[:, 0], dim=-1).T
    similar[torch.arange(4), index] = -1
    assert torch.equal(candidates[:, 1], similar.argmax(1))
    # The picture of the first image is also that of the second.
    candidates, captions = model._draw(images, texts, index, torch.tensor([7, 7, 8, 9]), 1)
    assert set(candidates[:3, 1].tolist()) <= {2, 3}
    assert captions[:3, 1].tolist() == [3, 3, 3]


def test_a_run_learns_and_its_folder_ranks(saved_folder, records, tmp_path, embedder):
    neighbours = mine_neighbours(embedder, records, 3)
    mined = NeighbouringRecords(records, neighbours, group_size=2)
    run = run_of(str(saved_folder), tmp_path, mined, max_steps=12)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    rows = [row for row in run.state.log_history if "loss" in row]
    for row in rows:
        assert row["loss"] == pytest.approx(
            (row["image_loss"] + row["text_loss"]) / 2 + row["hard_text_loss"], rel=1e-3
        )
    assert sum(row["loss"] for row in rows[-3:]) < sum(row["loss"] for row in rows[:3])
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("cross_encoder.") for name in changed)
    assert 0 <= run.evaluate()["eval_accuracy"] <= 1
    run.save_model(str(tmp_path / "stage"))

    ranking = FGClip2Embedder.from_pretrained(tmp_path / "stage", device="cpu")
    assert isinstance(ranking.model, FGClip2ForImageTextMatching)
    images = [open_record_image(records[index]) for index in range(4)]
    query = records[2].short_caption
    hits = ranking.rerank(query, images, by="model")
    inputs = ranking.processor.process_images(images)
    text_tokens = ranking.model.get_text_tokens(ranking.processor.tokenize([query], "caption")["input_ids"])
    with torch.no_grad():
        scores = ranking.model.rank_scores(ranking.model.get_image_tokens(**inputs), text_tokens.expand(4, -1, -1))
    assert [hit.index for hit in hits] == scores.argsort(descending=True).tolist()
    assert [hit.reranked for hit in hits] == pytest.approx(scores.sort(descending=True).values.tolist(), abs=1e-4)
    np.testing.assert_allclose(ranking.encode_images(images), embedder.encode_images(images), atol=1e-6)
    with pytest.raises(ValueError, match="no pair scores"):
        embedder.rerank(query, images, by="model")
    # What is saved of the dual encoder alone has no stage, and none is looked for.
    FGClip2Model.from_pretrained(tmp_path / "stage").save_pretrained(tmp_path / "alone")
    embedder.processor.save_pretrained(tmp_path / "alone")
    alone = FGClip2Embedder.from_pretrained(tmp_path / "alone", device="cpu")
    assert type(alone.model) is FGClip2Model
    # Nor where it was trained further, which keeps the sizes of the stage too.
    FGClip2ForTraining.from_pretrained(tmp_path / "stage").save_pretrained(tmp_path / "trained")
    embedder.processor.save_pretrained(tmp_path / "trained")
    assert type(FGClip2Embedder.from_pretrained(tmp_path / "trained", device="cpu").model) is FGClip2Model
    # An adapter was trained on towers that are no more those of the stage.
    pytest.importorskip("peft")
    from fgclip2.training.lora import add_lora

    add_lora(FGClip2Model.from_pretrained(tmp_path / "stage")).save_pretrained(tmp_path / "adapter")
    assert type(FGClip2Embedder.from_pretrained(tmp_path / "adapter", device="cpu").model) is FGClip2Model


def test_a_model_with_a_stage_is_trained_for_ranking_and_takes_no_adapter(saved_folder, records, tmp_path, embedder):
    model = FGClip2ForImageTextMatching.from_dual_encoder(FGClip2Model.from_pretrained(saved_folder))
    args = FGClip2TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    run = FGClip2Trainer(model, args, records, processing_class=embedder.processor)
    assert type(run.model) is FGClip2MatchingForTraining
    pytest.importorskip("peft")
    from fgclip2.training.lora import add_lora

    for stage in (model, run.model):
        with pytest.raises(ValueError, match=r"whose ranking stage is trained in full, on frozen towers"):
            add_lora(stage)


def test_an_evaluation_leaves_out_a_last_batch_of_one_picture(saved_folder, records, tmp_path):
    three = Chosen(records, [0, 1, 3])
    metrics = run_of(str(saved_folder), tmp_path, three, per_device_eval_batch_size=2).evaluate()
    first = run_of(str(saved_folder), tmp_path, Chosen(records, [0, 1]), per_device_eval_batch_size=2).evaluate()
    assert metrics["eval_skipped"] == 1
    assert (metrics["eval_loss"], metrics["eval_accuracy"]) == (first["eval_loss"], first["eval_accuracy"])


def test_neighbours_are_the_nearest_others_of_the_language(records, embedder):
    neighbours = mine_neighbours(embedder, records, 2)
    captions = embedder.encode_texts([record.long_caption for record in records])
    images = embedder.encode_images([open_record_image(record) for record in records])
    for row in (0, 2):
        same = [other for other in np.flatnonzero(records.languages == records.languages[row]) if other != row]
        nearest = sorted(same, key=lambda other: -float(captions[row] @ images[other]))
        assert neighbours[row].tolist() == nearest[:2]
    few = mine_neighbours(embedder, records, 100)
    assert (few == -1).any(1).all()
    # A picture with two captions is two records, neither of them a neighbour of the other.
    twice = mine_neighbours(embedder, Chosen(records, [0, 1, 0, 1, 3]), 4)
    assert [set(row) for row in twice.tolist()] == [{1, 3, 4, -1}, {0, 2, 4, -1}] * 2 + [{0, 1, 2, 3}]
    with pytest.raises(ValueError, match="`neighbours` must have a row for each of the 40 records, got 2"):
        NeighbouringRecords(records, neighbours[:2])


def test_mining_opens_images_as_they_are_embedded(records, embedder, monkeypatch):
    alive: list[weakref.ref] = []
    most = 0

    def opened(record: Record) -> Image.Image:
        nonlocal most
        image = open_record_image(record)
        alive.append(weakref.ref(image))
        most = max(most, sum(known() is not None for known in alive))
        return image

    monkeypatch.setattr("fgclip2.training.mining.open_record_image", opened)
    monkeypatch.setattr(embedder, "encode_images", partial(embedder.encode_images, batch_size=1))
    mine_neighbours(embedder, records, 2)
    assert len(alive) == len(records) > most


def test_the_plan_counts_the_pairs_that_the_stage_compares(model, tmp_path):
    args = FGClip2TrainingArguments(str(tmp_path), per_device_train_batch_size=4, num_hard_negatives=2)
    data = DataSummary(10, short_captions=1.0, long_captions=0.5, hard_regions=1.5)

    def contents(**settings: float) -> StepContents:
        return model.task.step_contents(args, data, RankingSettings(**settings))

    one, three, all_others = (contents(negatives=negatives, hard_text_weight=0) for negatives in (1, 3, 50))
    assert (one.short_texts, one.long_texts) == (4 * 4, 2 * 4)
    assert (three.short_texts, three.long_texts) == (4 * 8, 2 * 8)
    assert all_others == three
    assert contents(negatives=3).short_texts == three.short_texts + 6 * 3
    memory = [model.activation_memory(model.config, its)["stage"].kept for its in (one, three, contents(negatives=3))]
    assert memory == sorted(set(memory))


def test_neighbours_share_a_batch_and_each_record_comes_once():
    neighbours = np.array([[2, 1], [0, 3], [0, -1], [1, 0], [5, -1], [4, -1]])
    assert order_with_neighbours([3, 0, 1, 2], neighbours, 2) == [3, 1, 0, 2]
    assert order_with_neighbours([0, 1, 2, 3], neighbours, 3) == [0, 2, 1, 3]
    languages = np.array([0, 0, 0, 0, 1, 1], dtype=np.uint8)
    sampler = BatchOrderSampler([Source(languages)], 2, neighbours=neighbours, group_size=2)
    order = [draw.index for draw in sampler]
    assert sorted(order) == list(range(6))
    assert {4, 5} in [set(order[start : start + 2]) for start in (0, 2, 4)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_logit_scale": 10.0}, "`max_logit_scale` must be None for the objective 'ranking'"),
        ({"image_augmentation": "r2d2"}, "`image_augmentation` must be 'none' for the objective 'ranking'"),
        ({"objective_settings": {"negatives": 0}}, "`negatives` must be a positive integer, got 0"),
        ({"objective_settings": {"form": "nll"}}, "must be of hard_text_weight, negatives"),
    ],
)
def test_what_a_run_can_not_take(saved_folder, records, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        run_of(str(saved_folder), tmp_path, records, **settings)
