"""The pictures that ship: what is in the package, and the function that wrote it."""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image

from fgclip2.drawings import bundle
from fgclip2.drawings.backgrounds import Photograph
from fgclip2.drawings.bundle import write_bundle
from fgclip2.drawings.sources import ARTWORK, PERMISSIVE_LICENCES

SHIPPED = Path(str(files("fgclip2"))) / "assets" / "demo"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manifest() -> dict:
    return json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))


def test_every_shipped_picture_is_in_the_manifest_and_opens(manifest):
    listed = {row["file"] for row in manifest["pictures"]}
    present = {path.relative_to(SHIPPED).as_posix() for path in SHIPPED.rglob("*.webp")}
    assert listed == present
    for row in manifest["pictures"]:
        with Image.open(SHIPPED / row["file"]) as image:
            image.load()
            assert image.mode == "RGB"
    assert Counter(row["kind"] for row in manifest["pictures"]) == {"thing": 273, "photograph": 10, "scene": 6}


def test_shipped_pictures_are_small():
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 1.5e6


def test_shipped_pictures_are_permissive_and_named_in_both_languages(manifest):
    for row in manifest["pictures"]:
        assert set(row["licence"].split(" AND ")) <= PERMISSIVE_LICENCES
        assert all(licence in row["attribution"] for licence in row["licence"].split(" AND "))
        if row["kind"] != "scene":
            assert row["name_en"].isascii()
            assert not row["name_zh"].isascii()


def test_notice_names_every_artist_and_photographer(manifest):
    notice = (REPOSITORY / "NOTICE").read_text(encoding="utf-8")
    shown = {row["artist"] for row in manifest["pictures"]}
    for artist in shown & set(ARTWORK):
        assert ARTWORK[artist].homepage in notice
        assert f"{ARTWORK[artist].package} {ARTWORK[artist].version}" in notice
    for photographer in shown - set(ARTWORK):
        assert photographer in notice


def test_several_artists_and_the_held_out_one_are_shown(manifest):
    artists = Counter(row["artist"] for row in manifest["pictures"] if row["kind"] == "thing")
    assert artists["twemoji"] == 91
    assert len(artists) == 8


def test_shipped_scenes_have_records_in_both_languages(manifest):
    scenes = [row["file"] for row in manifest["pictures"] if row["kind"] == "scene"]
    for language, path in manifest["scene_records"].items():
        records = json.loads((SHIPPED / path).read_text(encoding="utf-8"))
        assert [f"scenes/{record['f_path']}" for record in records] == scenes
        assert all(record.get("is_cn", False) == (language == "zh") for record in records)


@pytest.fixture
def small_bundle(monkeypatch, table):
    monkeypatch.setattr(bundle, "BUNDLED_NAMES", tuple(table[concept_id].name_en for concept_id in table.train_ids))
    monkeypatch.setattr(bundle, "_OTHER_ARTISTS", ("noto", "twemoji"))


def test_a_bundle_is_written_with_its_manifest(tmp_path, cache, table, small_bundle):
    folder = tmp_path / "demo"
    assert write_bundle(cache, table, folder) == {"thing": 3 * 16, "photograph": 10, "scene": bundle.SCENES}
    rows = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["pictures"]
    assert all((folder / row["file"]).exists() for row in rows)
    assert rows[0] | {"attribution": ""} == {
        "file": "pictures/dog-twemoji.webp",
        "kind": "thing",
        "concept": "dog",
        "name_en": "dog",
        "name_zh": "狗",
        "artist": "twemoji",
        "licence": "CC-BY-4.0",
        "attribution": "",
    }
    assert "Twitter, Inc" in rows[0]["attribution"]
    assert "photograph" in rows[0]["attribution"]


def test_a_held_out_concept_does_not_ship(tmp_path, cache, table, small_bundle, monkeypatch):
    monkeypatch.setattr(bundle, "BUNDLED_NAMES", ("dog", "koala", "unknown"))
    with pytest.raises(ValueError, match="bundled things must be trained on, and these are not: koala, unknown"):
        write_bundle(cache, table, tmp_path)


def test_a_share_alike_picture_does_not_ship():
    share_alike = Photograph("Bridge", "lomiri-16.04", "Someone", "CC-BY-SA-4.0")
    with pytest.raises(ValueError, match=r"x\.webp is under \['CC-BY-SA-4\.0'\]; what ships is under"):
        bundle._row("x.webp", "photograph", [bundle._photo_credit(share_alike)])
