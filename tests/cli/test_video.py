"""Videos in `fgclip2 index` and `fgclip2 search`."""

from pathlib import Path

import pytest

from fgclip2.search import VideoIndex
from tests.search.videos import BLUE, RED, plain, write_video


@pytest.fixture
def clips(folder) -> Path:
    write_video(Path("照片/镜头.mp4"), [plain(RED), plain(BLUE)])
    Path("照片/坏.mp4").write_bytes(b"no video")
    return folder


def test_videos_are_indexed_and_found_as_stretches(run, clips, embedder):
    assert "video" not in run.json("index", "照片")["index"]
    state = run.json("index", "照片", "--video", "scenes")["index"]["video"]
    assert {name: state[name] for name in ("videos", "frames", "sampling", "added")} == {
        "videos": 1,
        "frames": 2,
        "sampling": "scenes",
        "added": 1,
    }
    assert "坏.mp4: " in run("index", "照片", "--show-problems").stdout
    (result,) = run.json("search", "照片", "蓝色", "--html", "结果.html")["results"]
    expected = VideoIndex.load("照片").search("蓝色", embedder)
    assert [hit["path"] for hit in result["hits"]] != []
    assert [hit["path"] for hit in result["videos"]] == ["照片/镜头.mp4"] * len(expected)
    for hit, found in zip(result["videos"], expected, strict=True):
        assert hit["score"] == pytest.approx(found.score, abs=1e-5)
        assert (hit["time"], hit["start"], hit["end"]) == found[2:]
    assert Path("结果.html").read_text(encoding="utf-8").count("<img ") == len(result["hits"]) + len(expected)
    lines = run("search", "照片", "蓝色", "--no-update").stdout.splitlines()
    assert any("照片/镜头.mp4  0:0" in line and " - 0:0" in line for line in lines)
    assert "video" not in run.json("index", "照片", "--video", "none")["index"]
    assert Path("照片/镜头.mp4").exists()


@pytest.mark.parametrize("value", ["0", "often", "nan"])
def test_other_samplings_are_told_of(run, clips, value):
    assert "must be scenes, none or seconds" in run("index", "照片", "--video", value, code=2).stderr
