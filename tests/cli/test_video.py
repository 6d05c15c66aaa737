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
        assert (hit["time"], hit["start"], hit["end"]) == found[2:5]
    assert Path("结果.html").read_text(encoding="utf-8").count("<img ") == len(result["hits"]) + len(expected)
    lines = run("search", "照片", "蓝色", "--no-update").stdout.splitlines()
    assert any("照片/镜头.mp4  0:0" in line and " - 0:0" in line for line in lines)
    assert "video" not in run.json("index", "照片", "--video", "none")["index"]
    assert Path("照片/镜头.mp4").exists()


@pytest.mark.parametrize("value", ["0", "often", "nan"])
def test_other_samplings_are_told_of(run, clips, value):
    assert "must be scenes, none or seconds" in run("index", "照片", "--video", value, code=2).stderr


def test_filters_regions_and_reranking_reach_videos(run, clips):
    Path("记录.csv").write_text("path,year\n镜头.mp4,2020\n黑猫.png,2024\n", encoding="utf-8")
    made = run.json("index", "照片", "--video", "scenes", "--regions", "grid", "--metadata", "记录.csv")["index"]
    assert (made["regions"], made["video"]["regions"]) == ({"kind": "grid", "count": 50}, "grid")
    search = ("search", "照片", "蓝色", "--no-update")

    def found(*options) -> tuple[list[str], list[str]]:
        (result,) = run.json(*search, *options)["results"]
        return tuple([Path(hit["path"]).name for hit in result[kind]] for kind in ("hits", "videos"))

    assert found("--where", "year = 2024") == (["黑猫.png"], [])
    images, videos = found("--where", "year = 2020")
    assert (images, set(videos)) == ([], {"镜头.mp4"})
    assert found("--where", "width is null")[0] == []  # a column of images, which is null for videos
    assert set(found("--where", "width is null")[1]) == {"镜头.mp4"}
    for kind in ("best", "all"):
        (result,) = run.json(*search, "--regions", kind)["results"]
        assert all(0 <= hit["box"][0] < hit["box"][2] <= 96 for hit in result["videos"])
    assert any(
        "镜头.mp4  0:0" in line and "]" in line for line in run(*search, "--regions", "best").stdout.splitlines()
    )
    (result,) = run.json(*search, "狗和猫", "--rerank", "phrases", "--explain", "图", "--html", "页.html")["results"][
        :1
    ]
    for hit in result["videos"]:
        assert hit["reranked"]
        assert [phrase["text"] for phrase in hit["phrases"]] == ["蓝色"]
        assert Path(hit["picture"]).exists()
    assert {Path(hit["path"]).name for hit in result["videos"]} == {"镜头.mp4"}


def test_videos_without_regions_are_left_out_of_a_search_by_regions(run, clips):
    Path("记录.jsonl").write_text('{"path": "黑猫.png", "boxes": [[0, 0, 50, 50]]}\n', encoding="utf-8")
    made = run("index", "照片", "--video", "scenes", "--regions", "given", "--metadata", "记录.jsonl")
    assert "videos get no regions: boxes of one frame say nothing of the next" in made.stderr
    found = run("search", "照片", "蓝色", "--no-update", "--regions", "all")
    assert "videos are left out, for they have no regions" in found.stderr
    assert "镜头.mp4" not in found.stdout
