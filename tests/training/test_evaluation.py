"""Numbers of an evaluation: equal images and equal texts count once, on any number of processes."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip2 import FGClip2Processor
from fgclip2.data import (
    Record,
    RecordDataset,
    Region,
    read_finehard,
    read_image_folder,
    read_pairs,
    read_shards,
    write_shards,
)
from fgclip2.training import FGClip2ForTraining, FGClip2Objective
from fgclip2.training.collator import FGClip2Collator
from fgclip2.training.evaluation import embed_batches, evaluation_metrics, share_of_rank
from fgclip2.training.sampler import DrawnRecord, DrawnRecords

from ..ranks import run_on_ranks

AXES = torch.eye(8)


def embedded(images: list[int], texts: list[int], image_axes: dict[int, int], text_axes: dict[int, int]) -> dict:
    """Records as pairs of an image and a text, by number, each embedded on an axis of its own choice."""
    return {
        "image_embeds": torch.stack([AXES[image_axes[image]] for image in images]),
        "short_text_embeds": torch.stack([AXES[text_axes[text]] for text in texts]),
        "short_image_index": torch.arange(len(images)),
        "short_text_hash": torch.tensor(texts),
        "image_hash": torch.tensor(images),
        "logit_scale": torch.zeros(1),
        "logit_bias": torch.zeros(1),
    }


def recalls(content: dict) -> dict[str, float]:
    metrics = evaluation_metrics(content)
    return {name: value for name, value in metrics.items() if name.endswith("@1")}


def test_several_captions_of_one_image_are_all_right():
    """Images 0 and 1, each with an English and a Chinese caption, which lie where the images do."""
    content = embedded([0, 0, 1, 1], [10, 11, 12, 13], {0: 0, 1: 1}, {10: 0, 11: 0, 12: 1, 13: 1})
    assert recalls(content) == {"short_image_to_text_recall@1": 1.0, "short_text_to_image_recall@1": 1.0}
    # Caption 13 lies with the wrong image: one of four texts is wrong, and ties for image 0.
    content = embedded([0, 0, 1, 1], [10, 11, 12, 13], {0: 0, 1: 1}, {10: 0, 11: 0, 12: 1, 13: 0})
    assert recalls(content) == {"short_image_to_text_recall@1": 0.5, "short_text_to_image_recall@1": 0.75}


def test_several_images_of_one_caption_are_all_right():
    """Labels of a folder: image 2 lies with the wrong one."""
    content = embedded([0, 1, 2, 3], [10, 10, 11, 11], {0: 0, 1: 0, 2: 0, 3: 1}, {10: 0, 11: 1})
    assert recalls(content) == {"short_image_to_text_recall@1": 0.75, "short_text_to_image_recall@1": 0.5}


def test_a_repeated_record_changes_nothing():
    once = embedded([0, 1, 2], [10, 11, 12], {0: 0, 1: 1, 2: 2}, {10: 0, 11: 2, 12: 2})
    twice = embedded([0, 1, 2, 1, 1], [10, 11, 12, 11, 11], {0: 0, 1: 1, 2: 2}, {10: 0, 11: 2, 12: 2})
    assert recalls(twice) == recalls(once)


@pytest.fixture(scope="module")
def processor(saved_folder):
    return FGClip2Processor.from_pretrained(saved_folder)


def test_images_are_known_by_what_is_seen(processor, tmp_path):
    """Not by their path, nor by their encoding."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8))
    for name in ("一.png", "two.bmp"):
        picture.save(tmp_path / name)
    shutil.copy(tmp_path / "一.png", tmp_path / "three.png")
    turned = Image.frombytes("RGB", (40, 24), picture.tobytes())  # the same bytes in another shape
    images = [str(tmp_path / "一.png"), str(tmp_path / "two.bmp"), str(tmp_path / "three.png"), picture, turned]
    records = [Record(image, "猫", None, "zh", (), f"a.csv:{number}") for number, image in enumerate(images, 2)]
    drawn = [DrawnRecord(record, 0) for record in records]
    hashes = FGClip2Collator(processor, training=False)(drawn)["image_hash"].tolist()
    assert len(set(hashes[:4])) == 1
    assert hashes[4] != hashes[0]
    assert "image_hash" not in FGClip2Collator(processor)(drawn)


class InBothLanguages(RecordDataset):
    """Each record twice, with its boxes, but other texts; records of another place share short captions."""

    def __init__(self, records: RecordDataset):
        self._records = records
        self.languages = np.concatenate([records.languages, 1 - records.languages])

    def _read(self, index):
        record = self._records[index % len(self._records)]
        if index < len(self._records):
            return record
        regions = tuple(Region(region.box, f"{region.short_text} 也") for region in record.regions)
        return replace(record, short_caption="方块", long_caption=f"{record.long_caption} 也", regions=regions)

    def _source(self, index):
        return self._records.source(index % len(self._records))


def in_both_languages(folder: Path) -> RecordDataset:
    return InBothLanguages(read_finehard(folder / "records.json", folder / "images"))


def evaluated(saved_folder: str, folder: str) -> dict[str, float]:
    """What a rank has to say of all records, or of shards of them."""
    torch.set_num_threads(1)
    model = FGClip2ForTraining.from_pretrained(saved_folder).eval()
    is_shards = (Path(folder) / "index.json").is_file()
    records = read_shards(folder) if is_shards else in_both_languages(Path(folder))
    drawn = DrawnRecords(records)
    collator = FGClip2Collator(FGClip2Processor.from_pretrained(saved_folder), training=False)
    batches = (collator([drawn[draw] for draw in draws]) for draws in share_of_rank(records, 7))
    content, means, _ = embed_batches(model, batches, FGClip2Objective())
    return means | evaluation_metrics(content)


def test_repeated_images_give_the_same_numbers_on_several_processes(saved_folder, records_folder):
    one = evaluated(str(saved_folder), str(records_folder))
    assert one["short_image_to_text_recall@10"] > 0.2  # the text that all images share is right for all
    for of_rank in run_on_ranks(evaluated, 2, str(saved_folder), str(records_folder)):
        assert of_rank == pytest.approx(one, rel=1e-4)


def test_shards_have_the_numbers_of_their_records(saved_folder, records_folder, tmp_path):
    write_shards(in_both_languages(records_folder), tmp_path / "shards", 15)
    assert evaluated(str(saved_folder), str(tmp_path / "shards")) == evaluated(str(saved_folder), str(records_folder))


def test_texts_of_one_region_are_all_right():
    """One box of one image in two records; its second text lies elsewhere, with the region of image 1."""
    region = torch.stack([AXES[0], AXES[0], AXES[1]])
    content = {
        **embedded([0, 0, 1], [10, 11, 12], {0: 0, 1: 1}, {10: 0, 11: 0, 12: 1}),
        "region_index": torch.tensor([[0, 0], [1, 0], [2, 0]]),
        "region_boxes": torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]]),
        "region_embeds": region,
        "region_text_embeds": torch.stack([AXES[0], AXES[1], AXES[1]]),
        "region_text_hash": torch.tensor([1, 2, 3]),
        "logit_scale_finegraind": torch.zeros(1),
    }
    assert evaluation_metrics(content)["region_accuracy"] == 0.5
    content["region_text_embeds"] = torch.stack([AXES[0], AXES[0], AXES[1]])
    assert evaluation_metrics(content)["region_accuracy"] == 1.0


def test_no_records_have_no_numbers(processor, saved_folder, tmp_path):
    (tmp_path / "a.csv").write_text("image,caption\nmissing.png,猫\n", encoding="utf-8")
    records = read_pairs(tmp_path / "a.csv")
    collator = FGClip2Collator(processor, training=False, on_error="skip")
    batch = collator([DrawnRecords(records)[draw] for draw in share_of_rank(records, 4)[0]])
    model = FGClip2ForTraining.from_pretrained(saved_folder)
    content, means, skipped = embed_batches(model, [batch], FGClip2Objective())
    assert means | evaluation_metrics(content) == {}
    assert len(skipped) == 1


def test_a_folder_of_labels(processor, saved_folder, tmp_path):
    """As many queries as there are labels; formerly none of them could be right."""
    generator = np.random.default_rng(0)
    for number in range(6):
        label = tmp_path / ("cat" if number % 2 else "猫")
        label.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(label / f"{number}.png")
    records = read_image_folder(tmp_path)
    collator = FGClip2Collator(processor, training=False)
    batch = collator([DrawnRecords(records)[draw] for draw in share_of_rank(records, 6)[0]])
    model = FGClip2ForTraining.from_pretrained(saved_folder).eval()
    content, _, _ = embed_batches(model, [batch], FGClip2Objective())
    metrics = evaluation_metrics(content)
    assert metrics["short_image_to_text_recall@5"] == metrics["short_text_to_image_recall@5"] == 1.0
    similarity = content["image_embeds"] @ content["short_text_embeds"][[0, 3]].T  # labels in order: cat, 猫
    expected = (similarity.argmax(1) == torch.tensor([0, 0, 0, 1, 1, 1])).float().mean().item()
    assert metrics["short_image_to_text_recall@1"] == pytest.approx(expected)


def test_hard_negatives_are_reduced_as_they_come():
    """Ten for each region, they would be most of what an evaluation keeps."""
    from . import golden

    batches = [golden.batch(0), golden.batch(1)]
    for batch in batches:
        images = len(batch["pixel_values"])
        batch["short_image_index"] = batch["long_image_index"] = torch.arange(images)
        batch["image_hash"] = torch.arange(images)
    model, objective = golden.model().eval(), FGClip2Objective()
    content, means, _ = embed_batches(model, batches, objective)
    assert not [name for name in content if name.startswith("hard")]
    expected, accuracies, regions = [], [], []
    with torch.no_grad():
        for batch in batches:
            outputs = model(**batch)
            expected.append(objective.eval()(outputs, batch)["hard_negative"].item())
            scores = [outputs["hard_positive_embeds"][:, None], outputs["hard_negative_embeds"]]
            scores = (torch.cat(scores, dim=1) * outputs["hard_region_embeds"][:, None]).sum(-1)
            accuracies.append((scores[:, :1] > scores[:, 1:]).all(1).float().mean().item())
            regions.append(len(scores))
    sizes = [len(batch["pixel_values"]) for batch in batches]
    assert means["hard_negative_loss"] == pytest.approx(np.average(expected, weights=sizes), rel=1e-6)
    assert means["hard_negative_accuracy"] == pytest.approx(np.average(accuracies, weights=regions), abs=1e-6)
    assert not objective.margin.item()
