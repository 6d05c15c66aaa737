"""FG-CLIP v1 under every kind of benchmark: no patch budgets, its own lengths of texts, a preset of its own."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip2 import Embedder
from fgclip2.benchmarks.catalogue import BENCHMARKS, find_benchmark
from fgclip2.benchmarks.class_names import class_names
from fgclip2.benchmarks.encoding import Encoder
from fgclip2.benchmarks.harnesses.clip_benchmark import ClipBenchmarkModel
from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.models import load_model
from fgclip2.benchmarks.runner import run
from fgclip2.benchmarks.tasks import (
    HardNegativeData,
    HardNegativeSettings,
    MatchingData,
    MatchingSettings,
    RegionData,
    RegionSettings,
    hard_negatives,
    matching,
    region_classification,
)

from ..checkpoints import official_fgclip_folder
from ..data.samples import write_json
from ..embedding.test_embedder import draw

__all__ = ["official_fgclip_folder"]

NAMES = {"en": ["cat", "dog", "red car"], "zh": ["猫", "狗", "红色的汽车"]}
BOXES = [[(0.0, 0.0, 30.0, 40.0), (20.0, 10.0, 60.0, 40.0)], [(5.0, 5.0, 50.0, 45.0)], []]
QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def model(official_fgclip_folder) -> Embedder:
    return load_model(official_fgclip_folder, "cpu")


@pytest.fixture
def images(tmp_path) -> list[ImageFile]:
    for index in range(3):
        draw(60 + index, 50 - index, index).save(tmp_path / f"图{index}.png")
    return [ImageFile(tmp_path / f"图{index}.png") for index in range(3)]


@pytest.fixture
def encoder(model, tmp_path) -> Encoder:
    return Encoder(model, tmp_path / "cache", show_progress_bar=False)


def test_it_runs_in_the_class_that_squashes_images(model):
    assert type(model) is Embedder
    assert type(model.model).__name__ == "FGClipModel"


def test_captions_take_the_head_of_the_setting_and_its_length(model, images, tmp_path):
    captions = ["a cat, " * 30, "一只狗", "a dog"]
    lines = [f"{image.path.name}\t{caption}" for image, caption in zip(images, captions, strict=True)]
    (tmp_path / "image_caption_long_cn.txt").write_text("\n".join(lines), encoding="utf-8")
    vectors = model.encode_images([image.path for image in images])
    for walk, role, tokens in (("long", "long_caption", 248), ("short", "caption", 77)):
        changes = {"walk_type": walk, "max_num_patches": "256"}
        result = run(find_benchmark("lit-cn"), tmp_path, model, changes=changes, with_items=True, **QUIET)
        cosines = vectors @ model.encode_texts(captions, role=role).T
        ranks = (cosines >= np.diag(cosines)[:, None]).sum(1)
        assert result["per_item"]["image_to_text/rank"] == ranks.tolist()
        assert result["data"]["texts"] == {"count": 3, "tokens": tokens, "cut": int(walk == "short")}
        assert result["model"]["ignored_settings"] == ["max_num_patches", "lower_case"]


def test_patch_budgets_make_no_difference_and_no_second_entry_in_the_cache(encoder, images, tmp_path):
    first = encoder.images(images, "auto").vectors
    np.testing.assert_array_equal(encoder.images(images, 64).vectors, first)
    assert len([*(tmp_path / "cache").rglob("*.safetensors")]) == 1


@pytest.mark.parametrize("method", ["roi", "crop"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_boxes(encoder, model, images, method, language):
    data = RegionData(images, BOXES, [[0, 1], [2], []], NAMES)
    scores = region_classification.evaluate(data, encoder, RegionSettings(method=method, templates="none"), language)
    if method == "roi":
        regions = np.concatenate(model.encode_regions([image.path for image in images], BOXES))
        labels = model.encode_labels(NAMES[language], role="region_phrase")
        cosines = regions @ labels.T
        own = cosines[range(3), [0, 1, 2]][:, None]
        np.testing.assert_array_equal(scores.per_item["rank"], (cosines >= own).sum(1))
    assert scores.metrics["top5"].value == 1


def test_hard_negatives_and_matching(encoder, model, images):
    texts = [[["a cat", "A CAT", "a dog"], ["一只狗", "一只猫"]], [["a red car", "a blue car"]], []]
    data = HardNegativeData(images, BOXES, texts)
    won = {
        ties: hard_negatives.evaluate(data, encoder, HardNegativeSettings(ties=ties), "en").per_item["won"]
        for ties in ("wrong", "right")
    }
    regions = model.encode_regions([image.path for image in images], BOXES)
    cosines = model.encode_texts(["一只狗", "一只猫"], role="region_phrase") @ regions[0][1]
    assert won["wrong"][0] == 0  # its spellings are one to the model
    assert won["wrong"][1] == won["right"][1] == (cosines[0] > cosines[1])
    pairs = MatchingData(images, ["猫", "a dog"], [(0, 0), (1, 1), (2, 0)], [True, False, True])
    assert set(matching.evaluate(pairs, encoder, MatchingSettings(), "zh").metrics) == {"auc", "accuracy"}


def test_folders_of_classes_and_of_masks(model, tmp_path):
    for index, name in enumerate(("猫", "dog")):
        for folder in (f"classes/{name}", "pixels/images", "pixels/masks"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        draw(60, 50, index).save(tmp_path / f"classes/{name}/1.png")
        draw(60, 50, index).save(tmp_path / f"pixels/images/{index}.png")
        mask = np.arange(60 * 50).reshape(50, 60) % 3
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / f"pixels/masks/{index}.png")
    write_json(tmp_path / "pixels/classes.json", NAMES)
    result = run(find_benchmark("image-folder"), tmp_path / "classes", model, **QUIET)
    assert result["counts"]["items"] == 2
    result = run(find_benchmark("segmentation"), tmp_path / "pixels", model, language="zh", with_items=True, **QUIET)
    maps = model.heatmap(tmp_path / "pixels/images/0.png", NAMES["zh"])
    assert result["settings"]["templates"] == "imagenet"
    bare = run(
        find_benchmark("segmentation"),
        tmp_path / "pixels",
        model,
        language="zh",
        changes={"templates": "none"},
        with_items=True,
        **QUIET,
    )
    assert bare["per_item"]["pixel_accuracy"][0] == pytest.approx((maps.argmax(0) == mask).mean(), abs=0.01)


def test_a_detectors_boxes(model, images, tmp_path):
    pytest.importorskip("pycocotools")
    names = class_names("coco", "en")
    boxes = [[0, 0, 30, 40], [5, 5, 45, 40]]
    truth = {
        "images": [
            {"id": n, "file_name": image.path.name, "width": 60 + n, "height": 50 - n} for n, image in enumerate(images)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, start=1)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": box, "area": 900, "iscrowd": 0}
            for n, box in enumerate(boxes, start=1)
        ],
    }
    found = [{"image_id": n, "category_id": 1, "bbox": box, "score": 0.5} for n, box in enumerate(boxes, start=1)]
    write_json(tmp_path / "instances_val2017.json", truth)
    write_json(tmp_path / "results.json", found)
    result = run(find_benchmark("detection-coco"), tmp_path, model, changes={"templates": "none"}, **QUIET)
    assert result["metrics"]["ap_detector"]["value"] == 1
    kept = run(
        find_benchmark("detection-coco"),
        tmp_path,
        model,
        changes={"templates": "none", "reclassify": "false"},
        **QUIET,
    )
    assert kept["metrics"]["ap"]["value"] == 1


def test_its_preset_has_the_rules_of_its_scripts():
    """They rank, count and choose heads as those of FG-CLIP 2 do, on squares, but for ImageNet's last batch."""
    differing = {name for name, row in BENCHMARKS.items() if row.settings("fg-clip-v1") != row.settings("paper")}
    assert differing == {"imagenet-1k"}
    assert 50000 // 64 * 64 == 49984
    assert find_benchmark("imagenet-1k").settings("fg-clip-v1").whole_batches_of == 64
    expected = {
        "mscoco": {"walk_type": "short", "equal_captions": "separate"},
        "dci": {"walk_type": "long"},
        "sharegpt4v-1k": {"walk_type": "long"},
        "coco-boxes": {"method": "roi", "templates": "imagenet", "crowds": True},
        "fg-ovd-hard": {"method": "roi", "ties": "right"},
    }
    for name, rules in expected.items():
        settings = find_benchmark(name).settings("fg-clip-v1")
        assert {rule: getattr(settings, rule) for rule in rules} == rules, name


def test_clip_benchmark_stacks_its_squares(model, images):
    theirs = ClipBenchmarkModel(model)
    packed = [theirs.transform(image.path) for image in images]
    assert {tuple(square.shape) for square in packed} == {(3, 40, 40)}
    vectors = theirs.encode_image(torch.stack(packed))
    np.testing.assert_allclose(vectors, model.encode_images([image.path for image in images]), atol=1e-6)
    with pytest.raises(ValueError, match="pixel_values has images of 16x16, not 40x40"):
        theirs.encode_image(torch.zeros(2, 3, 16, 16))
    texts = theirs.tokenizer(["一只猫", "a cat " * 60])
    np.testing.assert_allclose(theirs.encode_text(texts), model.encode_texts(list(texts)), atol=1e-6)


def test_results_say_what_they_are_of(model, images, tmp_path, official_fgclip_folder):
    (tmp_path / "a").mkdir()
    images[0].path.rename(tmp_path / "a/图.png")
    result = run(find_benchmark("image-folder"), tmp_path, model, preset="fg-clip-v1", **QUIET)
    assert (result["preset"], result["changed"]) == ("fg-clip-v1", {})
    assert result["model"]["name"] == str(official_fgclip_folder)
    assert result["model"]["fingerprint"] == model.fingerprint
    json.dumps(result, allow_nan=False)
