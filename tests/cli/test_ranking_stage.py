"""An exported folder of a ranking stage with the commands: search and benchmarks order candidates by it."""

import json
from pathlib import Path

import pytest

from fgclip2 import Embedder
from tests.checkpoints import exported_stage_folder, official_stage_folder

from .conftest import Command
from .test_bench import captions

__all__ = ["captions", "exported_stage_folder", "official_stage_folder"]


@pytest.mark.slow
def test_commands_rank_by_the_stage_of_an_exported_folder(folder, captions, exported_stage_folder):
    run = Command(exported_stage_folder)
    run("index", "照片")
    (result,) = run.json("search", "照片", "一只猫", "--rerank", "model")["results"]
    embedder = Embedder.from_pretrained(exported_stage_folder, device="cpu")
    images = [hit["path"] for hit in result["hits"]]
    expected = {images[hit.index]: hit.reranked for hit in embedder.rerank("一只猫", images, by="model")}
    assert {hit["path"]: hit["reranked"] for hit in result["hits"]} == pytest.approx(expected, abs=1e-4)
    assert all(hit["reranked"] != hit["score"] for hit in result["hits"])
    kept = ("--images", folder, "--output", "结果", "--no-cache")
    run("bench", "run", "lit-cn", captions, *kept, "--rerank", "model", "--candidates", 2)
    (measured,) = (json.loads(file.read_text(encoding="utf-8")) for file in Path("结果").glob("*.json"))
    assert {name for name in measured["metrics"] if "reranked" in name}
