"""Every command that runs a model, with a checkpoint of FG-CLIP v1."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgclip2 import Embedder
from tests.checkpoints import official_fgclip_folder
from tests.cli.conftest import Command

__all__ = ["official_fgclip_folder"]

LABELS = ["猫", "dog", "a red car"]


@pytest.fixture
def run(folder, official_fgclip_folder) -> Command:
    return Command(official_fgclip_folder)


@pytest.fixture(scope="module")
def embedder(official_fgclip_folder) -> Embedder:
    return Embedder.from_pretrained(official_fgclip_folder, device="cpu")


def test_embed(run, embedder):
    run("embed", "照片", "photo.png", "-o", "图.npz")
    with np.load("图.npz") as file:
        np.testing.assert_allclose(file["embeddings"], embedder.encode_images(file["names"].tolist()), atol=1e-5)
    texts = ["a cat", "一只狗, " * 20]
    for walk, role in (("auto", "auto"), ("long", "long_caption"), ("box", "region_phrase")):
        run("embed", "--text", texts[0], "--text", texts[1], "--walk-type", walk, "-o", "文.npy")
        np.testing.assert_allclose(np.load("文.npy"), embedder.encode_texts(texts, role=role), atol=1e-5)


def test_search_and_index(run, embedder):
    assert "2 images: 2 new" in run("index", "照片").stderr
    found = run.json("search", "照片", "一只猫", "a dog", "--no-update")["results"]
    vectors = embedder.encode_images([hit["path"] for hit in found[0]["hits"]])
    scores = vectors @ embedder.encode_texts("一只猫")
    np.testing.assert_allclose([hit["score"] for hit in found[0]["hits"]], scores, atol=1e-5)
    assert run.json("search", "照片", "--image", "photo.png", "--top-k", "1")["results"][0]["hits"]
    (reranked,) = run.json("search", "照片", "一只猫和一只狗", "--rerank", "phrases")["results"]
    assert [len(hit["phrases"]) for hit in reranked["hits"]] == [2, 2]


def test_classify_shares_one_among_the_labels(run, embedder):
    (result,) = run.json("classify", "photo.png", "--labels", ",".join(LABELS))["results"]
    scores = {row["label"]: row["score"] for row in result["labels"]}
    expected = embedder.classify("photo.png", LABELS)
    np.testing.assert_allclose([scores[label] for label in LABELS], expected, atol=1e-5)
    assert sum(scores.values()) == pytest.approx(1, abs=1e-5)


def test_regions_and_heatmap(run, embedder):
    result = run.json("regions", "photo.png", "--box", "10,20,100,80", "--labels", ",".join(LABELS))
    scores = {row["label"]: row["score"] for row in result["regions"][0]["labels"]}
    expected = embedder.classify_regions("photo.png", [[10, 20, 100, 80]], LABELS)[0]
    np.testing.assert_allclose([scores[label] for label in LABELS], expected, atol=1e-4)
    result = run.json("heatmap", "photo.png", "一只猫", "-o", "热.png")
    assert result["highest"] == pytest.approx(embedder.heatmap("photo.png", "一只猫").max(), abs=1e-5)
    assert Image.open("热.png").size == (160, 96)


def test_demo_and_doctor(run):
    results = run.json("demo", "-o", "演示")
    assert results["indexed"] > 200
    assert len(results["right"]) == 9
    assert "How often it is right" in Path("演示/index.html").read_text(encoding="utf-8")
    checks = run.json("doctor", "--checkpoint", run.checkpoint, model=False)["checks"]
    assert checks[1] == {"name": f"checkpoint {str(run.checkpoint)!r}", "ok": True, "detail": checks[1]["detail"]}
    arguments = ("doctor", "--checkpoint", run.checkpoint, "--coco-image", "photo.png")
    assert "the known answer is of FG-CLIP 2" in run(*arguments, code=1, model=False).stdout


def test_bench_run(run):
    run("bench", "run", "image-folder", ".", "--language", "zh", "--preset", "fg-clip-v1", "--no-cache")
    (file,) = Path("bench_results").glob("*-fg-clip-v1-*.json")
    assert "max_num_patches" in json.loads(file.read_text(encoding="utf-8"))["model"]["ignored_settings"]


@pytest.mark.parametrize(
    "command",
    [
        ["embed", "photo.png", "-o", "v.npy"],
        ["index", "照片"],
        ["search", "照片", "猫"],
        ["classify", "photo.png", "--labels", "猫"],
        ["regions", "photo.png", "--box", "1,2,30,40", "--labels", "猫"],
        ["heatmap", "photo.png", "猫", "-o", "热.png"],
    ],
)
def test_patch_budgets_are_refused(run, command):
    stderr = run(*command, "--max-patches", "256", code=1).stderr
    assert "has no patch budgets, its images have one size: leave out max_num_patches (--max-patches)" in stderr
