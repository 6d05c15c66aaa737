"""What a worker of a bulk run makes of rows, against the embedder called directly."""

import re

import numpy as np
import pyarrow
import pytest

from fgclip2.bulk.settings import BulkSettings
from fgclip2.bulk.sources import PROBLEM
from fgclip2.bulk.worker import ERRORS, TABLE, VECTORS, Worker

from .conftest import picture


def results(worker: Worker, **columns) -> list[dict]:
    return worker(pyarrow.table(columns)).to_pylist()


def test_images_and_bad_ones(make_worker, embedder):
    good, again, broken, empty, known = results(
        make_worker(),
        id=[1, 2, 3, 4, 5],
        image=[picture(0), picture(1), b"no picture", None, None],
        problem=[None, None, None, None, "a link"],
    )
    expected = embedder.encode_images([picture(0), picture(1)])
    np.testing.assert_allclose([good["embedding"], again["embedding"]], expected, atol=1e-5)
    assert (good["id"], good["error"], good[TABLE]) == (1, None, VECTORS)
    assert (broken["embedding"], broken[TABLE]) == (None, ERRORS)
    assert broken["error"] == "10 bytes of no known image format"
    assert (empty["error"], known["error"]) == ("it has no image", "a link")
    assert PROBLEM not in good


def test_paths_below_the_folder_of_images(make_worker, embedder, tmp_path):
    (tmp_path / "in" / "猫").mkdir(parents=True)
    (tmp_path / "in" / "猫" / "a.png").write_bytes(picture(0))
    (tmp_path / "b.png").write_bytes(picture(1))
    worker = make_worker(images_folder=str(tmp_path / "in"))
    found, missing, *outside = results(
        worker, id=["a", "b", "c", "d"], image=["猫/a.png", "missing.png", "../b.png", str(tmp_path / "b.png")]
    )
    np.testing.assert_allclose(found["embedding"], embedder.encode_images(picture(0)), atol=1e-5)
    assert "missing.png" in missing["error"]
    assert all("is no path below the folder of images" in row["error"] for row in outside)


def test_links_out_of_the_folder_of_images_and_long_files_are_not_read(make_worker, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "b.png").write_bytes(picture(1))
    (tmp_path / "in" / "a.png").write_bytes(picture(0))
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "in" / "same.png").symlink_to("a.png")
    (tmp_path / "in" / "long.png").write_bytes(picture(0) + bytes(10_000))
    monkeypatch.setattr("fgclip2.bulk.worker.MAX_MEMBER_BYTES", 10_000)
    worker = make_worker(images_folder=str(tmp_path / "in"))
    link, same, long = results(worker, id=[1, 2, 3], image=["link.png", "same.png", "long.png"])
    assert link["error"] == "link.png is a link that leads out of the folder of images"
    assert same["error"] is None
    assert re.fullmatch(r"it has \d\d,\d{3} bytes, more than 10,000", long["error"])


def test_texts(make_worker, embedder):
    worker = make_worker(kind="text", role="region_phrase")
    first, blank, second = results(worker, id=[1, 2, 3], text=["红苹果", " ", "a red apple"])
    expected = embedder.encode_texts(["红苹果", "a red apple"], role="region_phrase")
    np.testing.assert_allclose([first["embedding"], second["embedding"]], expected, atol=1e-5)
    assert blank["error"] == "it has no text"


def test_regions(make_worker, embedder):
    two, none, outside = results(
        make_worker(kind="region"),
        id=["a", "b", "c"],
        image=[picture(0), picture(1), picture(2)],
        boxes=[[[0.0, 0.0, 20.0, 20.0], [10.0, 5.0, 40.0, 30.0]], [], [[100.0, 0.0, 120.0, 20.0]]],
    )
    expected = embedder.encode_regions(picture(0), [[0, 0, 20, 20], [10, 5, 40, 30]])
    np.testing.assert_allclose(two["embedding"], expected, atol=1e-5)
    assert none["embedding"] == []
    assert "boxes[0]=[100.0, 0.0, 120.0, 20.0] lies outside its image" in outside["error"]
    assert outside["embedding"] is None


def test_all_rows_may_be_bad(make_worker):
    rows = make_worker()(pyarrow.table({"id": [1], "image": [b"no picture"]}))
    assert rows[TABLE].to_pylist() == [ERRORS]


def test_another_model_than_that_of_the_output_is_refused():
    with pytest.raises(ValueError, match=r"of this worker has the fingerprint .* and the output is of 000000000000"):
        Worker(BulkSettings(), "0" * 64)


def test_settings_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match="kind must be 'image', 'text' or 'region', got 'video'"):
        BulkSettings(kind="video")
    with pytest.raises(ValueError, match="model='owner/name' is no folder: workers download nothing"):
        BulkSettings(model="owner/name")
    with pytest.raises(ValueError, match="dtype must be 'float32', 'bfloat16' or 'float16', got 'int8'"):
        BulkSettings(dtype="int8")
