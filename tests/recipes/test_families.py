"""The comparison of two designs: their sizes, their texts, the single drawings, and a whole run on a tiny cache."""

import json

import numpy as np
import pytest
import torch

from recipes.families import compare
from recipes.families.designs import DESIGNS, parameters_outside_embeddings
from recipes.families.drawings import build_drawing_set
from recipes.families.report import COLUMNS, best_rate
from recipes.scenes.experiments import TRAIN_SEED, training_records


def test_both_designs_are_equally_large_outside_their_embeddings():
    models = [design.model() for design in DESIGNS.values()]
    sizes = [parameters_outside_embeddings(model) for model in models]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
    tables = [model.text_model.embeddings.token_embedding.weight.numel() for model in models]
    assert tables[0] == tables[1]
    assert all(
        size + table < sum(p.numel() for p in model.parameters())
        for size, table, model in zip(sizes, tables, models, strict=True)
    )
    scales = [(model.logit_scale_finegraind.item(), model.logit_scale_hardneg.item()) for model in models]
    assert scales[0] == scales[1]


@pytest.mark.parametrize("text", ["A black cat on the left", "左边的一只黑猫"])
def test_both_designs_read_the_same_tokens(text):
    first, second = (
        design.processor().tokenize([text], "caption")["input_ids"][0].tolist() for design in DESIGNS.values()
    )
    config = DESIGNS["fgclip"].model().config.text_config
    assert first[0] == config.bos_token_id
    assert first.index(config.eos_token_id) == len(first) - 1
    assert second[: len(first) - 1] == first[1:]


def test_single_drawings_are_records_with_their_names(cache, table):
    drawing_set = build_drawing_set(cache, table, TRAIN_SEED)  # that of the whole comparison
    records = training_records(drawing_set)
    things = {table[int(concept_id)].name(language) for concept_id in table.train_ids for language in ("en", "zh")}
    assert {record.short_caption for record in records} == things
    assert len(records) == 2 * len(drawing_set)
    for record in records:
        assert record.long_caption is None
        assert [region.short_text for region in record.regions] == [record.short_caption]
        assert not record.regions[0].hard_negatives
    # The test's drawings have one shade of green and blue, which shows in their boxes and nowhere on white.
    for index in range(0, len(drawing_set), 8):
        pixels = np.asarray(drawing_set.image(index)).astype(int)
        (x1, y1, x2, y2), white = drawing_set.boxes(index)[0], (pixels > 250).all(-1)
        assert np.abs(pixels[y1:y2, x1:x2, 1:] - (99, 201)).sum(-1).min() < 30
        if white.mean() > 0.2:
            outside = white.copy()
            outside[max(0, y1 - 8) : y2 + 8, max(0, x1 - 8) : x2 + 8] = True
            assert outside.mean() > 0.99


def test_the_learning_rate_with_the_best_mean_is_chosen():
    results = {rate: {"metrics": dict.fromkeys(COLUMNS, value)} for rate, value in ((1e-4, 2.0), (1e-3, 3.0))}
    results[1e-4]["metrics"]["hard_zh"] = 9.0
    assert best_rate(results) == 1e-3


def test_a_whole_comparison(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "COUNTED_STEPS", 1)
    size = ["--scenes", "4", "--validation-scenes", "2", "--batch-size", "2", "--max-regions", "1", "--no-bf16"]
    runs = ["--teraflops", "0.01", "--learning-rates", "1e-3", "--seeds", "0"]
    folders = ["--cache", str(cache), "--output", str(tmp_path), "--work", str(tmp_path / "work")]
    compare.main([*folders, *size, *runs, "--threads", str(torch.get_num_threads())])
    results = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*-seed-*.json")}
    assert sorted(results) == [f"{name}-0.01-teraflops-rate-0.001-seed-0.json" for name in DESIGNS]
    for result in results.values():
        counted = json.loads((tmp_path / f"flops-{result['settings']['design']}.json").read_text())
        assert abs(result["settings"]["steps"] * counted - 0.01e12) <= counted / 2
        assert set(COLUMNS) <= set(result["metrics"])
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "At 0.01 TFLOPs, seeds 0:" in table
    assert table.splitlines()[-1].startswith("| FG-CLIP 2, 0.001 | ")
