"""The comparison of a ranking stage: its batches, its counts, its table, and a whole run on a tiny cache."""

import json

import numpy as np
import pytest
import torch

from recipes.ranking import compare, evaluation
from recipes.ranking.evaluation import first_places
from recipes.ranking.report import chosen_weight, interval
from recipes.ranking.stage import StageBatches, StageSettings
from recipes.ranking.tokens import CAPTIONS, WORDINGS, SceneTokens, Texts

SCENES = 8


def tokens_of(scenes: range | list[int], length: int) -> Texts:
    """Return a text of each scene, all of whose tokens are the scene's number, and one."""
    rows = torch.tensor([[float(scene), 1.0] for scene in scenes]).repeat_interleave(length, 0)
    return Texts(rows.half(), torch.full((len(scenes),), length))


@pytest.fixture
def scenes() -> SceneTokens:
    """Scenes whose tokens are their numbers; three wordings in two languages, and a region in each language."""
    images = torch.tensor([[float(scene), 1.0] for scene in range(SCENES)])[:, None].repeat(1, 3, 1).half()
    of_caption = [scene for _ in range(6) for scene in range(SCENES)]
    rows = torch.arange(6 * SCENES).view(2, 3, SCENES)
    return SceneTokens(
        images=images,
        grids=torch.tensor([[1, 2]] * SCENES),
        captions={kind: (tokens_of(of_caption, 1 + number), rows) for number, kind in enumerate(CAPTIONS)},
        phrases=tokens_of([scene for scene in range(SCENES) for _ in range(4)], 2),
        choices=torch.arange(4 * SCENES).view(SCENES, 4).repeat(2, 1),
        region_scenes=torch.arange(SCENES).repeat(2),
        region_languages=torch.tensor([0] * SCENES + [1] * SCENES),
    )


def test_each_image_of_a_batch_has_its_own_text_among_others(scenes):
    settings = StageSettings(steps=4, groups=2, group_size=3, false_phrases=2)
    for batch in StageBatches(scenes, settings, seed=0, shuffled=False):
        assert list(batch) == [*CAPTIONS, "phrase"]
        for kind, pairs in batch.items():
            assert pairs.text.shape == (6, 3)
            tokens = pairs.texts.padded(pairs.text.flatten()).unflatten(0, pairs.text.shape)  # (6, 3, T, 2)
            own = tokens[torch.arange(6), pairs.right, 0, 0]
            assert own.tolist() == pairs.image.tolist() == scenes.images[pairs.image][:, 0, 0].tolist()
            if kind in CAPTIONS:
                of_group = tokens[:, :, 0, 0].unflatten(0, (2, 3))
                assert torch.equal(of_group, of_group[:, :1].expand(-1, 3, -1))
                assert all(len(set(group)) == 3 for group in of_group[:, 0].tolist())
            else:
                assert all(len(set(texts)) == 3 for texts in pairs.text.tolist())


def test_shuffled_images_leave_the_texts_and_cosines_as_they_are(scenes):
    settings = StageSettings(steps=3, groups=2, group_size=3, false_phrases=2)
    own, shuffled = (list(StageBatches(scenes, settings, 0, is_shuffled)) for is_shuffled in (False, True))
    partners = {}
    for first, second in zip(own, shuffled, strict=True):
        for kind, pairs in first.items():
            assert torch.equal(pairs.text, second[kind].text)
            assert torch.equal(pairs.cosines, second[kind].cosines)
            partners |= dict(zip(pairs.image.tolist(), second[kind].image.tolist(), strict=True))
    assert len(set(partners.values())) == len(partners)
    assert sum(image != partner for image, partner in partners.items()) > len(partners) / 2


def test_a_query_is_answered_by_the_highest_score_alone():
    is_right = torch.tensor([[True, False], [False, True], [True, False], [False, False]])
    scores = torch.tensor([[2.0, 1.0], [2.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    assert first_places(scores, is_right) == "1000"


def test_intervals_are_over_runs_and_queries():
    agreeing = np.tile([1.0, 0.0], (3, 50))
    low, high = interval(agreeing)
    assert 0.35 < low < 0.45 < 0.55 < high < 0.65
    apart = np.stack([np.ones(100), np.zeros(100), np.tile([1.0, 0.0], 50)])
    assert interval(apart)[0] < 0.2 < 0.8 < interval(apart)[1]


def test_the_weight_with_most_answers_over_all_runs_is_chosen():
    runs = [{"hits": {"stage": {"a": "11"}, "phrases + 1 x stage": {"a": one}, "phrases + 2 x stage": {"a": two}}}
            for one, two in (("11", "10"), ("00", "11"))]  # fmt: skip
    assert chosen_weight(runs) == "phrases + 2 x stage"


@pytest.mark.slow
def test_a_whole_comparison(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "DESCRIBED", 2)
    size = ["--scenes", "6", "--validation-scenes", "3", "--captions", "2", "--region-scenes", "1", "--batch-size", "2"]
    folders = ["--cache", str(cache), "--output", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    options = [*folders, *size, "--steps", "2", "--seeds", "0", "--threads", str(torch.get_num_threads())]
    compare.main(options)
    results = {path.name: json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")}
    assert results["shuffled-seed-0.json"]["settings"] == results["stage-seed-0.json"]["settings"]
    hits = results["validation-stage-seed-0.json"]["hits"]
    names = [f"{kind} {wording} {language}" for kind in CAPTIONS for wording in WORDINGS for language in ("en", "zh")]
    assert list(hits["stage"]) == [*names, "hard negatives en", "hard negatives zh"]
    assert all(len(hits[way][name]) == 2 for way in hits for name in names)
    (tmp_path / "results" / "shuffled-seed-0.json").unlink()
    before = (tmp_path / "results" / "validation.md").read_text(encoding="utf-8")
    assert "| ranking stage |" in before
    compare.main(options)  # trains the run whose file is gone, and no other
    assert (tmp_path / "results" / "validation.md").read_text(encoding="utf-8") == before
