"""A detector's boxes scored anew: fused by hand, cut to their images, measured beside the detector alone."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip2 import FGClip2Embedder
from fgclip2.benchmarks import encoding
from fgclip2.benchmarks.catalogue import find_benchmark
from fgclip2.benchmarks.class_names import class_names
from fgclip2.benchmarks.encoding import Encoder
from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.models import PairEmbedder
from fgclip2.benchmarks.readers.detections import read_detections
from fgclip2.benchmarks.runner import run, write_result
from fgclip2.benchmarks.tasks import DetectionData, DetectionSettings, as_dict, change, detection

from ...data.samples import write_json
from ...embedding.test_embedder import draw
from .colors import COLORS, mean_colors, named_colors

pytest.importorskip("pycocotools")

LEFT, RIGHT = (0.0, 0.0, 16.0, 16.0), (16.0, 0.0, 32.0, 16.0)
NAMES = {"en": ["red", "green", "blue"], "zh": ["红", "绿", "蓝"]}
IDS = [7, 3, 5]
PLAIN = DetectionSettings(templates="none")


class RegionColors(PairEmbedder):
    """Regions have their mean colour; remembers the boxes."""

    def __init__(self):
        super().__init__(mean_colors, named_colors, "colours")
        self.boxes: list = []

    def encode_regions(self, contents, boxes, **options):
        self.boxes += boxes
        images = [Image.open(io.BytesIO(content)) for content in contents]
        crops = [[image.crop(box) for box in its] for image, its in zip(images, boxes, strict=True)]
        return [self.encode_images(each) for each in crops], []


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(RegionColors(), show_progress_bar=False)


@pytest.fixture
def picture(tmp_path):
    def make(name: str, left: str = "red", right: str = "green") -> ImageFile:
        image = Image.new("RGB", (32, 16), COLORS[left])
        image.paste(COLORS[right], (16, 0, 32, 16))
        image.save(tmp_path / name)
        return ImageFile(tmp_path / name)

    return make


def truth(folder, annotations, images=3, changes=None):
    """Annotations (image, box, category id); images are numbered from 1."""
    listed = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    content = {
        "images": [{"id": number, **listed} for number in range(1, images + 1)],
        "categories": [
            {"id": each, "name": name, "frequency": "f"} for each, name in zip(IDS, NAMES["en"], strict=True)
        ],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "bbox": xywh(box), "iscrowd": 0}
            for n, (image, box, category) in enumerate(annotations)
        ],
    }
    return write_json(folder / "truth.json", content | (changes or {}))


def xywh(box) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def data_of(images, boxes, categories, scores, ground_truth) -> DetectionData:
    return DetectionData(
        images=images,
        image_ids=list(range(1, len(images) + 1)),
        boxes=boxes,
        categories=categories,
        scores=scores,
        names=NAMES,
        category_ids=IDS,
        ground_truth=ground_truth,
    )


def values(scores) -> dict[str, float]:
    return {name: estimate.value for name, estimate in scores.metrics.items()}


@pytest.mark.parametrize(
    ("changes", "classes", "scores"),
    [
        # exp(1) / (exp(1) + 1) = 0.731059 and 0.268941 are the probabilities of cosines that differ by 1 / 100.
        ({}, [0, 0], [(0.731059 * 0.64) ** 0.5, (0.731059 * 0.25) ** 0.5]),
        ({"reclassify": "false"}, [1, 0], [(0.268941 * 0.64) ** 0.5, (0.731059 * 0.25) ** 0.5]),
        ({"fusion_weight": "0.25"}, [0, 0], [0.731059**0.25 * 0.64**0.75, 0.731059**0.25 * 0.25**0.75]),
        ({"fusion_weight": "0"}, [1, 0], [0.64, 0.25]),
        ({"fusion_weight": "1"}, [0, 0], [0.731059, 0.731059]),
        ({"region_scale": "0", "fusion_weight": "1"}, [1, 0], [0.5, 0.5]),
    ],
)
def test_fused_by_hand(changes, classes, scores):
    cosines = torch.tensor([[0.5, 0.49]], dtype=torch.float64).expand(2, 2)
    detector = torch.tensor([1, 0]), torch.tensor([0.64, 0.25], dtype=torch.float64)
    got = detection.fuse(cosines, *detector, change(PLAIN, changes))
    assert got[0].tolist() == classes
    assert got[1].tolist() == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("method", ["roi", "crop"])
def test_a_wrong_class_is_put_right(encoder, picture, tmp_path, language, method):
    ground_truth = truth(tmp_path, [(1, LEFT, 7), (1, RIGHT, 3)])
    # The detector calls the green half red.
    data = data_of([picture("a.png")], [[LEFT, RIGHT]], [[0, 0]], [[0.9, 0.8]], ground_truth)
    settings = change(PLAIN, {"method": method})
    scores = detection.evaluate(data, encoder, settings, language)
    assert values(scores)["ap_detector"] == pytest.approx(0.5)
    assert values(scores)["ap"] == pytest.approx(1)
    assert set(scores.metrics) == {f"{name}{end}" for name in ("ap", "ap50", "ap75") for end in ("", "_detector")}
    assert scores.metrics["ap"].interval is None
    assert scores.metrics["ap"].count == 2
    assert scores.per_item["class"].tolist() == [0, 1]
    assert scores.per_item["score"] == pytest.approx([0.9**0.5, 0.8**0.5])
    kept = detection.evaluate(data, encoder, change(settings, {"reclassify": "false"}), language)
    assert values(kept)["ap"] == pytest.approx(0.5)
    assert kept.per_item["class"].tolist() == [0, 0]
    assert kept.per_item["score"] == pytest.approx([0.9**0.5, 0], abs=1e-9)


def test_without_weight_the_detector_is_as_it_was(encoder, picture, tmp_path):
    ground_truth = truth(tmp_path, [(1, LEFT, 7), (1, RIGHT, 3)])
    data = data_of([picture("a.png")], [[LEFT, RIGHT]], [[1, 1]], [[0.9, 0.4]], ground_truth)
    got = values(detection.evaluate(data, encoder, change(PLAIN, {"fusion_weight": "0"}), "zh"))
    assert got["ap"] == got["ap_detector"] == pytest.approx(0.25)  # green: half of the boxes above it is right


def test_boxes_are_cut_to_the_real_image_and_those_outside_stay(encoder, picture, tmp_path):
    reaching, outside, sliver = (-4.0, -1.0, 16.0, 99.0), (40.0, 0.0, 50.0, 16.0), (31.9999, 0.0, 50.0, 16.0)
    ground_truth = truth(tmp_path, [(1, reaching, 7)])
    boxes = [reaching, outside, sliver]
    data = data_of([picture("图.png")], [boxes], [[2, 1, 2]], [[0.81, 0.3, 0.2]], ground_truth)
    scores = detection.evaluate(data, encoder, PLAIN, "en")
    assert encoder.model.boxes == [[(0, 0, 16, 16)]]
    assert scores.per_item["class"].tolist() == [0, 1, 2]
    assert scores.per_item["score"] == pytest.approx([0.9, 0.3, 0.2])
    assert values(scores)["ap"] == pytest.approx(1)  # against the box as the detector had it


def test_unreadable_images_are_left_out_with_their_annotations(encoder, picture, tmp_path):
    (tmp_path / "坏.png").write_bytes(b"broken")
    images = [ImageFile(tmp_path / "坏.png"), picture("b.png"), ImageFile(tmp_path / "none.png")]
    ground_truth = truth(tmp_path, [(1, LEFT, 7), (2, LEFT, 7), (3, LEFT, 7)])
    data = data_of(
        images, [[LEFT], [LEFT, RIGHT], [LEFT]], [[0], [0, 1], [0]], [[0.9], [0.8, 0.1], [0.9]], ground_truth
    )
    scores = detection.evaluate(data, encoder, change(PLAIN, {"score_threshold": "0.5"}), "zh")
    assert values(scores)["ap"] == values(scores)["ap_detector"] == pytest.approx(1)
    assert scores.metrics["ap"].count == 1
    assert scores.per_item["class"].tolist() == [-1, 0, -1, -1]
    assert np.isnan(scores.per_item["score"]).tolist() == [True, False, True, True]
    assert [each.source for each in scores.left_out] == [str(images[0]), str(images[2])]
    assert scores.left_out[0].reason == "6 bytes of no known image format"


def test_a_missing_image_costs_no_more_than_a_broken_one(picture, tmp_path):
    picture("1.png"), picture("2.png")
    listed = [{"id": number, "file_name": f"{number}.png", "width": 32, "height": 16} for number in (1, 2)]
    ground_truth = truth(tmp_path, [(1, LEFT, 7), (2, LEFT, 7)], changes={"images": listed})
    boxes = [{"image_id": image, "category_id": 7, "bbox": xywh(LEFT), "score": 0.9} for image in (1, 2)]
    results = write_json(tmp_path / "results.json", boxes)
    for spoil in (lambda path: path.write_bytes(b"broken"), lambda path: path.unlink()):
        spoil(tmp_path / "2.png")
        data = read_detections(results, ground_truth, tmp_path)
        encoder = Encoder(RegionColors(), show_progress_bar=False)
        scores = detection.evaluate(data, encoder, PLAIN, "en")
        assert values(scores)["ap_detector"] == pytest.approx(1)
        assert len(data.problems) + len(scores.left_out) == 1


def test_of_one_box_with_two_classes_that_become_one_the_best_counts(encoder, picture, tmp_path):
    images = [picture("a.png"), picture("b.png")]
    ground_truth = truth(tmp_path, [(1, LEFT, 7), (2, LEFT, 7)])
    data = data_of(images, [[LEFT, LEFT], [LEFT]], [[0, 1], [0]], [[0.9, 0.85], [0.5]], ground_truth)
    assert values(detection.evaluate(data, encoder, PLAIN, "en"))["ap"] == pytest.approx(1)


def test_some_images_at_a_time_give_the_same(encoder, picture, tmp_path, monkeypatch):
    images = [picture(f"{index}.png", *pair) for index, pair in enumerate(zip(COLORS, reversed(COLORS), strict=True))]
    boxes = [[LEFT, RIGHT, (8.0, 0.0, 24.0, 16.0)][: index % 3 + 1] for index in range(len(images))]
    scores = [[0.1 + 0.1 * index] * len(its) for index, its in enumerate(boxes)]
    ground_truth = truth(tmp_path, [(2, RIGHT, 5)], images=len(images))
    data = data_of(images, boxes, [[2] * len(its) for its in boxes], scores, ground_truth)
    whole = detection.evaluate(data, encoder, PLAIN, "zh")
    monkeypatch.setattr(encoding, "BLOCK_SIZE", 3)
    monkeypatch.setattr(detection, "_BOXES_AT_ONCE", 2)
    pieces = detection.evaluate(data, encoder, PLAIN, "zh")
    for name in whole.per_item:
        np.testing.assert_array_equal(whole.per_item[name], pieces.per_item[name])
    assert len(set(whole.per_item["class"].tolist())) == 3


def test_lvis_rules_and_no_number_for_what_has_no_annotation(picture, tmp_path, encoder):
    picture("a.png")
    listed = {"neg_category_ids": [5], "not_exhaustive_category_ids": []}
    images = [{"id": 1, "file_name": "a.png", "width": 32, "height": 16, **listed}]
    path = truth(tmp_path, [(1, LEFT, 7), (1, RIGHT, 3)], changes={"images": images})
    path.rename(tmp_path / "lvis_v1_val.json")
    results = [
        {"image_id": 1, "category_id": category, "bbox": xywh(box), "score": 0.5}
        for box, category in ((LEFT, 7), (RIGHT, 5))
    ]
    write_json(tmp_path / "results.json", results)
    for rules in ("lvis", "lvis-fixed"):
        result = run(
            find_benchmark("detection-lvis"), tmp_path, encoder.model, changes={"rules": rules}, show_progress_bar=False
        )
        assert {name: each["value"] for name, each in result["metrics"].items() if name.startswith("ap_f")} == {
            "ap_frequent": pytest.approx(1),
            "ap_frequent_detector": pytest.approx(0.5),
        }
        assert "ap_rare" not in result["metrics"]
        write_result(result, tmp_path / "结果.json")


def test_the_embedded_checkpoint_goes_on_from_its_cache(tmp_path, monkeypatch):
    embedder = FGClip2Embedder.from_pretrained(device="cpu")
    for index in range(2):
        draw(48, 64, index).save(tmp_path / f"{index}.png")
    boxes = [[[-3, 2, 20, 30], [10, 10, 30, 40]], [[0, 0, 48, 64]]]
    content = {
        "images": [{"id": index, "file_name": f"{index}.png"} for index in range(2)],
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(class_names("coco", "en"))],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 2, "bbox": [0, 0, 20, 30]}],
    }
    write_json(tmp_path / "instances_val2017.json", content)
    results = [
        {"image_id": image, "category_id": 2 + image, "bbox": box, "score": 0.49}
        for image, its in enumerate(boxes)
        for box in its
    ]
    write_json(tmp_path / "results.json", results)
    changes = {"templates": "none", "reclassify": "false", "max_num_patches": "64"}
    options = {"changes": changes, "cache": tmp_path / "cache", "with_items": True, "show_progress_bar": False}
    for language in ("en", "zh"):
        result = run(find_benchmark("detection-coco"), tmp_path, embedder, language=language, **options)
        corners = [[[0, 2, 17, 32], [10, 10, 40, 50]], [[0, 0, 48, 64]]]
        expected = embedder.classify_regions(
            [tmp_path / "0.png", tmp_path / "1.png"], corners, class_names("coco", language), max_num_patches=64
        )
        own = np.concatenate([expected[0][:, 1], expected[1][:, 2]])
        assert result["per_item"]["score"] == pytest.approx((own * 0.49) ** 0.5, rel=1e-3)
    monkeypatch.setattr(FGClip2Embedder, "encode_regions", None)
    again = run(find_benchmark("detection-coco"), tmp_path, embedder, language="zh", **options)
    assert again["per_item"] == result["per_item"]
    json.dumps(again, allow_nan=False)


def test_without_pycocotools_nothing_is_encoded(picture, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    data = data_of([picture("a.png")], [[LEFT]], [[0]], [[0.5]], truth(tmp_path, [(1, LEFT, 7)]))
    model = PairEmbedder(None, None, "never called")
    with pytest.raises(ImportError, match=r'pip install "fgclip2\[bench\]"'):
        detection.evaluate(data, Encoder(model, show_progress_bar=False), PLAIN, "zh")


def test_mistakes_are_named(encoder, picture, tmp_path):
    image, path = picture("图.png"), truth(tmp_path, [(1, LEFT, 7)])

    def evaluate(score=0.5, ground_truth=path, images=(image,), settings=PLAIN, encoder=encoder):
        data = data_of(list(images), [[LEFT]] * len(images), [[0]] * len(images), [[score]] * len(images), ground_truth)
        detection.evaluate(data, encoder, settings, "zh")

    with pytest.raises(ValueError, match=r"图\.png: the score of a box is 3\.0; it must be from 0 to 1"):
        evaluate(score=3)
    with pytest.raises(ValueError, match=r"no box is left: 0 of 1 .* score is 0\.5, score_threshold=0\.6"):
        evaluate(settings=change(PLAIN, {"score_threshold": "0.6"}))
    with pytest.raises(ValueError, match="no box is left: 1 of 1 images can't be read"):
        evaluate(images=[ImageFile(tmp_path / "none.png")])
    with pytest.raises(ValueError, match=r"truth\.json has no annotation"):
        evaluate(ground_truth=truth(tmp_path, []))
    with pytest.raises(ValueError, match=r"truth\.json: annotations\[0\]: category_id 9 is not in the set"):
        evaluate(ground_truth=truth(tmp_path, [(1, LEFT, 9)]))
    broken = truth(tmp_path, [], changes={"annotations": [{"image_id": 1, "category_id": 7, "bbox": None}]})
    with pytest.raises(
        ValueError, match=r"truth\.json: annotations\[0\] must be an object with a bbox of numbers, got "
    ):
        evaluate(ground_truth=broken)
    path = truth(tmp_path, [(1, LEFT, 7)], changes={"images": [{"id": 1}]})
    with pytest.raises(ValueError, match=r"truth\.json: images\[0\]: neg_category_ids is missing"):
        evaluate(ground_truth=path, settings=change(PLAIN, {"rules": "lvis"}))
    without_regions = Encoder(PairEmbedder(mean_colors, named_colors, "mine"), show_progress_bar=False)
    with pytest.raises(ValueError, match="mine has no region features; take method='crop'"):
        evaluate(encoder=without_regions)


def test_what_the_boxes_are_measured_by_is_checked_when_it_is_read(picture, tmp_path):
    """As many annotations before the bad one as there are, those of missing images too."""
    names = class_names("coco", "en")
    images = [{"id": number, "file_name": f"{number}.png", "width": 32, "height": 16} for number in (1, 2)]
    good = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
    for number, (annotations, score, message) in enumerate(
        [
            (
                [good, good | {"bbox": [0, 0, -1, 9]}],
                0.5,
                r"val2017\.json: annotations\[1\]: bbox \[0, 0, -1, 9\] is not",
            ),
            (
                [good, {"image_id": 2}],
                0.5,
                r"val2017\.json: annotations\[1\] must be an object with a bbox of numbers, got ",
            ),
            ([good], 1.5, r"results\.json:2: score is 1\.5; it must be 0 to 1"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        picture(f"{number}/2.png")  # the first one is missing
        content = {
            "images": images,
            "categories": [{"id": each, "name": name} for each, name in enumerate(names, start=1)],
            "annotations": annotations,
        }
        write_json(folder / "instances_val2017.json", content)
        box = {"image_id": 2, "category_id": 1, "bbox": [0, 0, 9, 9], "score": score}
        write_json(folder / "results.json", [{**box, "image_id": 1, "score": 0.5}, box])
        benchmark = find_benchmark("detection-coco")
        with pytest.raises(ValueError, match=message):
            benchmark.read(folder, None, benchmark.paper)


def test_settings():
    assert as_dict(PLAIN)["walk_type"] == "box"
    assert as_dict(change(PLAIN, {"method": "crop", "region_scale": "50"}))["walk_type"] == "short"
    for changes, message in (
        ({"fusion_weight": "1.5"}, "fusion_weight must be a number from 0 to 1, got 1.5"),
        ({"fusion_weight": "half"}, "fusion_weight must be a number from 0 to 1, got 'half'"),
        ({"region_scale": "nan"}, "region_scale must be a number from 0 to 1000, got nan"),
        ({"score_threshold": "-1"}, "score_threshold must be a number from 0 to 1, got -1.0"),
        ({"rules": "voc"}, "rules must be 'coco', 'lvis' or 'lvis-fixed', got 'voc'"),
        ({"reclassify": "yes"}, "reclassify must be 'true' or 'false', got 'yes'"),
    ):
        with pytest.raises(ValueError, match=message):
            change(PLAIN, changes)
