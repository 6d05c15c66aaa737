import json
from collections import Counter
from pathlib import Path

import pytest

import fgclip2.benchmarks
from fgclip2.benchmarks.published import published_numbers

DATA = Path(fgclip2.benchmarks.__file__).parent / "data" / "published.json"


def rows():
    return json.loads(DATA.read_text(encoding="utf-8"))["numbers"]


# Typed by hand from the papers' tables: benchmark, metric, model, backbone, source (its beginning), subset, percent.
KNOWN = [
    ("fg-ovd-hard", "hard_negative_accuracy", "FG-CLIP 2", "B/16", "fg-clip-2-tables", None, 52.3),
    ("fg-ovd-trivial", "hard_negative_accuracy", "Meta CLIP 2", "H/14", "fg-clip-2-tables", None, 79.6),
    ("coco-boxes", "top1", "CLOC", "L/14", "fg-clip-2-tables", None, 72.9),
    ("lvis-boxes", "top1", "FG-CLIP 2", "So/16", "fg-clip-2-tables", None, 43.9),
    ("boxclass-cn", "top1", "SigLIP 2", "L/16", "fg-clip-2-tables", None, 56.6),
    ("detection-lvis-minival", "ap", "Grounding-DINO", "Swin-L", "fg-clip-2-table-3", None, 33.9),
    ("detection-lvis", "ap_rare", "OWL-ST", "L/14", "fg-clip-2-table-3", None, 36.2),
    ("detection-lvis", "ap_frequent", "LLMDet + FG-CLIP 2", "Swin-T + So/16", "fg-clip-2-table-3", None, 49.0),
    ("sharegpt4v-1k", "image_to_text/recall@1", "FG-CLIP 2", "B/16", "fg-clip-2-table-4", None, 95.8),
    ("sharegpt4v-1k", "text_to_image/recall@1", "FG-CLIP 2", "B/16", "fg-clip-2-table-4", None, 95.4),
    ("mscoco", "text_to_image/recall@1", "UMG-CLIP", "L/14", "fg-clip-2-table-4", None, 54.6),
    ("imagenet-v2", "top1", "UMG-CLIP", "B/16", "fg-clip-2-table-4", None, 66.5),
    ("imagenet-1k", "top1", "SigLIP 2", "B/16", "fg-clip-2-table-4", None, 81.2),
    ("imagenet-1k", "top1", "SigLIP 2", "B/16", "fg-clip-2-arxiv-v1", None, 79.4),
    ("lit-cn", "image_to_text/recall@1", "FG-CLIP 2", "B/16", "fg-clip-2-table-5", None, 82.4),
    ("lit-cn", "text_to_image/recall@1", "SigLIP 2", "B/16", "fg-clip-2-table-5", None, 2.6),
    ("docci-cn", "text_to_image/recall@1", "Meta CLIP 2", "H/14", "fg-clip-2-table-5", None, 77.2),
    ("dci-cn", "text_to_image/recall@1", "SigLIP 2", "B/16 at 256 px", "danqing", None, 8.7),
    ("dci", "text_to_image/recall@1", "FG-CLIP", "L/14", "fg-clip-2-table-4", None, 66.1),
    ("coco-boxes", "top1", "FG-CLIP, global and region losses", "B/16", "fg-clip-ablation", None, 53.7),
    ("fg-ovd-easy", "hard_negative_accuracy", "FG-CLIP, stage 1", "B/16", "fg-clip-ablation", None, 36.2),
    ("segmentation", "miou", "FineCLIP", "L/14", "fg-clip-2-table-6", "A-150", 36.1),
    ("segmentation", "miou", "FG-CLIP 2", "So/16", "fg-clip-2-table-6", "VOC-21", 83.2),
    ("muge", "text_to_image/mean_recall", "R2D2", "L/14", "chinese-clip", None, 69.5),
    ("flickr30k-cn", "image_to_text/recall@10", "Chinese-CLIP", "H/14", "chinese-clip", None, 98.8),
    ("flickr30k-cn", "text_to_image/recall@5", "Taiyi", None, "chinese-clip", None, 85.0),
    ("coco-cn-written", "image_to_text/recall@1", "Wukong", "L/14", "chinese-clip", None, 55.2),
    ("coco-cn", "image_to_text/recall@1", "FG-CLIP 2", "So/16", "fg-clip-2-table-5", None, 83.2),
    ("muge", "text_to_image/mean_recall", "R2D2, fine-tuned", "B/16", "papers-with-code", None, 68.7),
    ("flickr30k-cn", "image_to_text/recall@10", "R2D2, fine-tuned", "L/14", "chinese-clip-fine-tuned", None, 100),
    ("coco-cn-written", "text_to_image/recall@5", "R2D2, fine-tuned", "B/16", "papers-with-code", None, 94.2),
    ("flickr30k-cn", "image_to_text/recall@1", "R2D2, 23M pairs", "L/14", "taichu", None, 70.2),
]


@pytest.mark.parametrize(("name", "metric", "model", "backbone", "source", "subset", "percent"), KNOWN)
def test_numbers_typed_by_hand_are_there_once(name, metric, model, backbone, source, subset, percent):
    found = [
        number.value
        for number in published_numbers(name)
        if (number.metric, number.model, number.backbone, number.subset) == (metric, model, backbone, subset)
        and number.source.key.startswith(source)
    ]
    assert found == [pytest.approx(percent / 100, abs=1e-9)]


def test_each_table_is_complete():
    """Rows times columns of each table, without its empty cells."""
    assert Counter(row["source"] for row in rows()) == {
        "fg-clip-2-tables-1-2": 17 * 4 + 18 * 2 + 7,  # one model has no FG-OVD
        "fg-clip-2-table-3": 17 * 8 + 2 * 4 + 4,
        "fg-clip-2-table-4": 16 * 10 + 5 + 6 + 5 + 4,
        "fg-clip-2-arxiv-v1": 10,
        "fg-clip-2-table-5": 11 * 10,
        "danqing": 8,
        "fg-clip-ablation": 3 * 6,
        "fg-clip-2-table-6": 9 * 6 + 4 * 3 + 2 * 4,
        "chinese-clip": 5 * 4 + (5 * 6 + 3) + (5 * 6 + 3),  # muge, flickr30k-cn, coco-cn-written
        "chinese-clip-fine-tuned": 4 + 6 + 6,
        "papers-with-code": 1 + 3 + 3,
        "taichu": 6,
    }


def test_no_number_stands_twice():
    keys = [tuple(value for key, value in row.items() if key != "value") for row in rows()]
    assert len(set(keys)) == len(keys)


def test_numbers_are_shares_printed_with_one_decimal():
    for row in rows():
        assert 0 < row["value"] <= 1, row
        assert round(row["value"], 3) == row["value"], row


def test_every_source_is_used_and_says_where_it_is():
    sources = json.loads(DATA.read_text(encoding="utf-8"))["sources"]
    assert set(sources) == {row["source"] for row in rows()}
    assert all(source["paper"] and source["url"].startswith("https://") for source in sources.values())


def test_a_benchmark_without_published_numbers_has_none():
    assert published_numbers("icr") == []
