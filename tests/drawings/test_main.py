import re

import pytest

from fgclip2.drawings import __main__ as command
from fgclip2.drawings import build
from fgclip2.drawings.splits import ARTIST_SPLITS


@pytest.fixture
def built(monkeypatch, cache, table):
    """The steps that fetch, replaced by what they would return for the small cache."""
    calls = []
    monkeypatch.setattr(build, "build_concepts", lambda cache: table)
    monkeypatch.setattr(build, "build_cutouts", lambda cache, table: calls.append("cut-outs"))
    monkeypatch.setattr(build, "build_backgrounds", lambda cache: {"train": 7, "test": 13})
    monkeypatch.setattr(build, "build_described", lambda cache, table: calls.append("described") or {"words": 2})
    monkeypatch.setattr(command, "write_bundle", lambda cache, table, folder: calls.append(folder) or {"thing": 3})
    return calls


def test_counts_are_printed_by_set_and_split(built, cache, capsys):
    command.main(["--cache", str(cache)])
    printed = capsys.readouterr().out
    assert "things 18, held out 2" in printed
    for artist, split in ARTIST_SPLITS.items():
        assert re.search(rf"cut-outs +{split} +19 of {artist} \(.*18 of things, 2 of them of held-out", printed)
    assert re.search(r"backgrounds +test +13 photographs", printed)
    assert re.search(r"described +words +2 pictures, for tests only", printed)
    assert built == ["cut-outs", "described"]


def test_described_pictures_are_optional_and_the_bundle_is_on_request(built, cache, tmp_path, capsys):
    command.main(["--cache", str(cache), "--skip-described", "--bundle", str(tmp_path / "demo")])
    assert built == ["cut-outs", tmp_path / "demo"]
    assert "described" not in capsys.readouterr().out


def test_help_names_the_default_cache(capsys):
    with pytest.raises(SystemExit, match="0"):
        command.main(["--help"])
    assert "fgclip2" in capsys.readouterr().out
