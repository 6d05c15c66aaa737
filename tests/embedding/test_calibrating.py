"""A calibration beside a checkpoint: found, refused where it is of another, and applied by text, head and budget."""

import json
import logging
import shutil

import numpy as np
import pytest

from fgclip2 import Embedder
from fgclip2.calibration import CALIBRATION_FILE, Calibration
from tests.calibrations import level_scores
from tests.checkpoints import official_folder, saved_folder

__all__ = ["official_folder", "saved_folder"]


@pytest.fixture(scope="module")
def checkpoint(saved_folder, tmp_path_factory):
    """A checkpoint with a calibration beside it."""
    folder = tmp_path_factory.mktemp("校准") / "模型"
    shutil.copytree(saved_folder, folder)
    embedder = Embedder.from_pretrained(folder, device="cpu")
    assert embedder.calibration is None
    budget = embedder.budget_of()
    model = {"name": "模型", "fingerprint": embedder.fingerprint}
    rows = (
        level_scores("caption", "zh", budget, np.log(3)),
        level_scores("caption", "en", budget, np.log(1 / 3)),
        level_scores("region_phrase", "zh", budget, np.log(9)),
        level_scores("long_caption", "zh", budget, np.log(4)),
    )
    Calibration(model, rows).save(folder / CALIBRATION_FILE)
    return folder


def test_it_is_found_and_asked_by_language_head_and_budget(checkpoint):
    embedder = Embedder.from_pretrained(checkpoint, device="cpu")
    texts = ["一只黑猫", "a black cat", "一只黑猫趴在窗台上，" * 30]
    found = embedder.match_probabilities(np.zeros((2, 3)), texts)
    assert found == pytest.approx(np.array([[0.75, 0.25, 0.8]] * 2))
    regions = embedder.match_probabilities(np.zeros((1, 2)), texts[:2], role="region_phrase")
    assert regions[0, 0] == pytest.approx(0.9)
    assert np.isnan(regions[0, 1])
    assert np.isnan(embedder.match_probabilities(np.zeros((1, 3)), texts, max_num_patches=17)).all()


def test_the_prevalence_is_one_of_the_candidates_or_what_is_set(checkpoint):
    embedder = Embedder.from_pretrained(checkpoint, device="cpu")
    assert embedder.match_probabilities(np.zeros(1), ["猫"], candidates=3) == pytest.approx([0.5])  # 3 times 1/3
    embedder.prevalence = 0.1
    assert embedder.match_probabilities(np.zeros(1), ["猫"], candidates=3) == pytest.approx([0.25])


def test_that_of_other_weights_is_left_where_it_lies_and_refused_where_it_is_given(checkpoint, tmp_path, caplog):
    folder = tmp_path / "别的"
    shutil.copytree(checkpoint, folder)
    content = json.loads((folder / CALIBRATION_FILE).read_text(encoding="utf-8"))
    content["model"]["fingerprint"] = "0" * 64
    (folder / CALIBRATION_FILE).write_text(json.dumps(content), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        embedder = Embedder.from_pretrained(folder, device="cpu")
    assert "is not used: the calibration is of the model '模型'" in caplog.text
    assert embedder.calibration is None
    with pytest.raises(ValueError, match=r"fingerprint 00000000\), not of .* whose cosines mean something else"):
        embedder.use_calibration(folder / CALIBRATION_FILE)
    with pytest.raises(ValueError, match=r"there is no calibration of .*make one with `fgclip2 calibrate`"):
        embedder.match_probabilities(np.zeros(1), ["猫"])


def test_another_file_of_this_name_keeps_no_checkpoint_from_loading(checkpoint, tmp_path, caplog):
    folder = tmp_path / "量化"
    shutil.copytree(checkpoint, folder)
    (folder / CALIBRATION_FILE).write_text('{"scheme": "int8"}', encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        embedder = Embedder.from_pretrained(folder, device="cpu")
    assert embedder.calibration is None
    assert "is not used: " in caplog.text
    with pytest.raises(ValueError, match="format must be 1"):
        embedder.use_calibration(folder / CALIBRATION_FILE)


def test_shapes_and_candidates_are_checked(checkpoint):
    embedder = Embedder.from_pretrained(checkpoint, device="cpu")
    with pytest.raises(ValueError, match=r"similarity must have the shape \(..., 2\), got \(3,\)"):
        embedder.match_probabilities(np.zeros(3), ["猫", "狗"])
    with pytest.raises(ValueError, match="candidates must be a positive integer, got 0"):
        embedder.match_probabilities(np.zeros(1), ["猫"], candidates=0)
