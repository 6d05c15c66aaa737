"""Batches: what is in them, what is random, what happens to bad images."""

from dataclasses import replace

import pytest
import torch

from fgclip2 import FGClip2Processor, embedded_checkpoint
from fgclip2.data import Record, Region
from fgclip2.data.records import InvalidRecordError
from fgclip2.errors import UnreadableImageError
from fgclip2.training.collator import FGClip2Collator
from fgclip2.training.sampler import DrawnRecord


@pytest.fixture(scope="module")
def processor():
    return FGClip2Processor.from_pretrained(embedded_checkpoint())


def drawn(records, epoch=0):
    return [DrawnRecord(record, epoch) for record in records]


def ids(processor, texts, walk_type):
    return processor.tokenizer(texts, walk_type=walk_type, return_tensors="pt")["input_ids"]


def test_a_batch(processor, records):
    batch = FGClip2Collator(processor, training=False)(drawn(records[i] for i in (0, 2, 3)))
    assert batch["pixels"].shape[0] == 3
    assert batch["pixel_attention_mask"].sum(1).max() == batch["pixels"].shape[1]
    assert batch["short_input_ids"].shape == (3, 64)
    assert batch["long_input_ids"].shape == (3, 196)
    assert batch["boxes"].shape == (3, 2, 4)
    # The record with index 3 has no regions; index 2 is Chinese.
    assert batch["region_index"].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert torch.equal(batch["region_input_ids"][2:], ids(processor, [r.short_text for r in records[2].regions], "box"))
    assert torch.equal(batch["short_input_ids"][1:2], ids(processor, [records[2].short_caption], "short"))
    assert batch["hard_index"].tolist() == batch["region_index"].tolist()
    assert batch["hard_input_ids"].shape == (4, 11, 64)
    assert batch["hard_negative_mask"].sum(1).tolist() == [3] * 4  # three other colours
    torch.testing.assert_close(batch["boxes"][1, 1], torch.tensor(records[2].regions[1].box))
    expected = ids(processor, list(records[0].regions[0].hard_negatives), "box")
    assert torch.equal(batch["hard_input_ids"][0, 1:4], expected)
    assert batch["skipped"] == []


def test_random_choices_follow_from_seed_epoch_and_record(processor, records):
    collator = FGClip2Collator(processor, max_regions=1)
    items = [records[i] for i in range(12)]
    first, again = (collator(drawn(items)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first if name != "skipped")
    alone = torch.cat([collator(drawn([record]))["region_input_ids"] for record in items])
    assert torch.equal(alone, first["region_input_ids"])  # whatever else is in the batch
    others = [collator(drawn(items, epoch=1)), replace(collator, seed=1)(drawn(items))]
    assert all(not torch.equal(first["region_input_ids"], other["region_input_ids"]) for other in others)


def test_names_of_files_need_not_be_utf8(processor, records):
    names = ("\udce9", "é")  # the first as Python reads the byte 0xE9
    named = [replace(records[0], source=f"图片/caf{name}.png") for name in names]
    batches = [FGClip2Collator(processor, max_regions=1)(drawn([record])) for record in named]
    assert all(len(batch["region_index"]) == 1 for batch in batches)


def test_long_texts_of_regions_come_about_half_the_time(processor):
    region = Region((0, 0, 1, 1), "短文本", "a long text")
    image = __import__("PIL.Image", fromlist=["new"]).new("RGB", (32, 32))
    items = [Record(image, "caption", None, "en", (region,), f"file:{number}") for number in range(60)]
    batch = FGClip2Collator(processor)(drawn(items))
    long_share = (batch["region_input_ids"] == ids(processor, ["a long text"], "box")).all(1).float().mean()
    assert 0.25 < long_share < 0.75


def test_prefix_of_english_short_captions_only(processor, records):
    batch = FGClip2Collator(processor, short_caption_prefix="a photo of ")(drawn([records[0], records[2]]))
    texts = ["a photo of " + records[0].short_caption, records[2].short_caption]
    assert torch.equal(batch["short_input_ids"], ids(processor, texts, "short"))


def test_missing_captions_are_left_out(processor, records):
    items = [replace(records[0], long_caption=None), replace(records[1], short_caption=None), records[2]]
    batch = FGClip2Collator(processor)(drawn(items))
    assert batch["short_image_index"].tolist() == [0, 2]
    assert batch["long_image_index"].tolist() == [1, 2]
    assert len(batch["short_input_ids"]) == len(batch["long_input_ids"]) == 2


def test_only_what_the_objective_needs(processor, records):
    collator = FGClip2Collator(processor, with_regions=False, with_hard_negatives=False, with_long_captions=False)
    assert set(collator(drawn([records[0]]))) == {
        "pixels",
        "value_table",
        "pixel_attention_mask",
        "spatial_shapes",
        "short_input_ids",
        "short_image_index",
        "skipped",
    }


def test_pairs_labelled_as_no_match_are_no_training_data(processor, records):
    matching, wrong = (replace(records[number], matches=label) for number, label in ((0, True), (1, False)))
    with pytest.raises(InvalidRecordError, match=r"json:2: label is 0; it must be 1, or none: this objective learns"):
        FGClip2Collator(processor)(drawn([matching, wrong]))
    batch = FGClip2Collator(processor, on_error="skip")(drawn([matching, wrong]))
    assert len(batch["pixels"]) == len(batch["skipped"]) == 1


@pytest.mark.parametrize("content", [None, b"no image", b"\x89PNG\r\n\x1a\n1234"])
def test_unreadable_images(processor, records, tmp_path, content):
    path = tmp_path / "坏.png"
    if content is not None:
        path.write_bytes(content)
    bad = replace(records[1], image=str(path))
    with pytest.raises(UnreadableImageError, match=r"records.json:2: .*坏.png.*on_error='skip'"):
        FGClip2Collator(processor)(drawn([records[0], bad]))
    batch = FGClip2Collator(processor, on_error="skip")(drawn([records[0], bad, records[2]]))
    assert len(batch["pixels"]) == 2  # not replaced by anything
    assert len(batch["skipped"]) == 1
    assert "坏.png" in batch["skipped"][0]
    assert torch.equal(batch["short_input_ids"][1:], ids(processor, [records[2].short_caption], "short"))


def test_a_batch_of_which_nothing_is_left(processor, records, tmp_path):
    bad = replace(records[0], image=str(tmp_path / "missing.png"))
    batch = FGClip2Collator(processor, on_error="skip")(drawn([bad]))
    assert len(batch["pixels"]) == 0
    assert batch["short_input_ids"].shape == (0, 64)
    assert batch["long_input_ids"].shape == (0, 196)
    assert batch["region_index"].shape == batch["hard_index"].shape == (0, 2)
    assert batch["hard_input_ids"].shape == (0, 11, 64)
