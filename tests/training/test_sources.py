"""Data sets of a run by its settings: sets to evaluate on that have names."""

from pathlib import Path

import pytest

from fgclip2.training.settings import DataSettings
from fgclip2.training.sources import open_eval_data


@pytest.fixture
def pairs(tmp_path, monkeypatch) -> None:
    """Three files in the working folder, one of them with `=` in its name."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("a.csv", 1), ("b.csv", 2), ("c=d.csv", 4)):
        Path(name).write_text("image,caption\n" + "x.png,a cat\n" * count, encoding="utf-8")


@pytest.mark.usefixtures("pairs")
def test_sets_to_evaluate_on_have_names():
    sets = open_eval_data(DataSettings(eval_data=["flickr=a.csv", "猫=b.csv", "flickr=c=d.csv"]))
    assert {name: len(records) for name, records in sets.items()} == {"flickr": 5, "猫": 2}
    assert sets["flickr"].source(1) == "c=d.csv:2"


@pytest.mark.usefixtures("pairs")
def test_without_names_there_is_one_set():
    assert len(open_eval_data(DataSettings(eval_data=["a.csv", "c=d.csv"]))) == 5
    with pytest.raises(ValueError, match=r"must be NAME=PATH for all sources or for none, got c=d\.csv without a name"):
        open_eval_data(DataSettings(eval_data=["flickr=a.csv", "c=d.csv"]))
