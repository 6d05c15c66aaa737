"""Videos searched as images are: by metadata, by regions of frames, and with their frames in a new order."""

import numpy as np
import pytest
from PIL import Image

from fgclip2 import FGClip2Embedder
from fgclip2.assets import demo_images
from fgclip2.errors import FilterError
from fgclip2.search import ImageIndex, RerankedVideoHit, VideoIndex
from fgclip2.search.video import read_frame

from .test_video_index import ColorEmbedder
from .videos import BLUE, GREEN, RED, WHITE, plain, write_video


@pytest.fixture
def clips(tmp_path):
    write_video(tmp_path / "a.mp4", [plain(RED), plain(BLUE)])
    write_video(tmp_path / "旅行" / "b.mp4", [plain(RED), plain(GREEN)])
    plain(RED).save(tmp_path / "c.png")
    (tmp_path / "记录.csv").write_text("path,year,地点\na.mp4,2019,北京\n旅行/b.mp4,2021,\nc.png,2022,上海\n")
    return tmp_path


def direction(color) -> np.ndarray:
    return np.float32(color) / np.linalg.norm(color)


def names(hits) -> list[str]:
    return [hit.path.name for hit in hits]


def test_filters_are_on_the_metadata_of_the_videos(clips):
    index = VideoIndex.build(clips, ColorEmbedder(), metadata=clips / "记录.csv")
    assert index.columns == {"id": str, "path": str, "year": int, "地点": str}
    red = direction(RED)
    assert {name for name in names(index.search(red))} == {"a.mp4", "b.mp4"}
    for where, expected in [
        ("year > 2020", {"b.mp4"}),
        ("\"地点\" = '北京'", {"a.mp4"}),
        ("path like '旅行/%'", {"b.mp4"}),
    ]:
        hits = index.search(red, where=where)
        assert set(names(hits)) == expected, where
    assert hits[0].metadata == {"year": 2021, "地点": None}
    assert index.search(red, where="year > 2030") == []
    assert names(index.search(red, where="year > 2000", allowed=index.matches("year < 2020"))) == ["a.mp4", "a.mp4"]
    with pytest.raises(FilterError, match="names the column 'camera'; there are id, path, year, 地点"):
        index.search(red, where="camera = 'X'")
    assert index.matches("camera is null", {"camera": str}).all()
    # It stays, and changes where others are given; nothing is read again.
    assert VideoIndex.build(clips, ColorEmbedder()).search(red, where="year > 2020")[0].metadata["year"] == 2021
    (clips / "记录.csv").write_text("path,year\na.mp4,2025\n")
    again = VideoIndex.build(clips, ColorEmbedder(), metadata=clips / "记录.csv")
    assert again.report.unchanged == 2
    assert names(VideoIndex.load(clips).search(red, where="year > 2020")) == ["a.mp4", "a.mp4"]


def test_the_median_is_of_the_frames_that_may_be_found(clips):
    index = VideoIndex.build(clips, ColorEmbedder(), sampling=1)
    (hit,) = index.search(direction(BLUE), top_k=1, allowed=np.array([span.path == "a.mp4" for span in index.spans]))
    assert (hit.start, hit.end) == (2, 4)
    with pytest.raises(ValueError, match="allowed must be an array of 8 booleans, one for each of the index's frames"):
        index.search(direction(BLUE), allowed=np.ones(3, bool))


def test_images_and_videos_take_their_records_from_one_file(clips):
    images = ImageIndex.build(clips, ColorEmbedder(), metadata=clips / "记录.csv")
    assert images.get("c.png").metadata == {"year": 2022, "地点": "上海"}
    (clips / "记录.csv").write_text("path,year\na.mp4,2019\n没有.mp4,2020\n")
    with pytest.warns(UserWarning, match="1 of 2 records of metadata are of videos that are not there"):
        VideoIndex.build(clips, ColorEmbedder(), metadata=clips / "记录.csv")
    ImageIndex.build(clips, ColorEmbedder(), metadata=clips / "记录.csv")  # which says nothing of videos
    (clips / "记录.csv").write_text("path,year\n没有.mp4,2020\n")
    with pytest.raises(ValueError, match="1 of 1 records of metadata are of videos that are not there"):
        VideoIndex.build(clips, ColorEmbedder(), metadata=clips / "记录.csv")


def test_regions_of_frames_are_found_with_their_boxes(tmp_path):
    corner = plain(RED)
    corner.paste(BLUE, (64, 43, 96, 64))  # a third of its sides, below on the right
    write_video(tmp_path / "a.mp4", [plain(RED), corner, plain(WHITE)])
    blue = direction(BLUE)
    whole = VideoIndex.build(tmp_path, ColorEmbedder(), sampling=2)  # too little changes for a scene
    with pytest.raises(ValueError, match="have no regions: make them by `fgclip2 index --video scenes --regions grid`"):
        whole.search(blue, regions="best")
    index = VideoIndex.build(tmp_path, ColorEmbedder(), regions="grid")
    assert (index.report.updated, index.regions) == (1, "grid")  # read again
    for its in (index, VideoIndex.load(tmp_path), VideoIndex.build(tmp_path, ColorEmbedder())):
        (hit,) = its.search(blue, top_k=1, regions="best")
        assert (hit.time, hit.start, hit.end) == (2, 2, 4)
        assert hit.box == pytest.approx((64, 128 / 3, 96, 64))
        assert hit.score > 0.97 > its.search(blue, top_k=1)[0].score
    with pytest.raises(ValueError, match=r"regions='all' is of images: .*; use 'best'"):
        index.search(blue, regions="all")
    with pytest.raises(ValueError, match="regions='given' is of images: boxes of one frame of a video say nothing"):
        VideoIndex.build(tmp_path, ColorEmbedder(), regions="given")
    none = VideoIndex.build(tmp_path, ColorEmbedder(), regions="none")
    assert (none.report.unchanged, none.extras) == (1, {})


def test_best_frames_are_put_in_a_new_order_by_their_phrases(tmp_path):
    pictures = [Image.open(demo_images() / "pictures" / f"{name}-twemoji.webp") for name in ("tiger", "rocket", "owl")]
    write_video(tmp_path / "a.mp4", [picture.convert("RGB") for picture in pictures])
    write_video(tmp_path / "b.mp4", [pictures[1].convert("RGB")])
    embedder = FGClip2Embedder.from_pretrained(device="cpu")
    index = VideoIndex.build(tmp_path, embedder)
    query = "a rocket and a tiger"
    plainly = index.search(query, embedder)
    hits = index.search(query, embedder, rerank="phrases", top_k=3)
    assert len(hits) == 3
    frames = [read_frame(hit.path, hit.time, embedder.max_pixels) for hit in plainly]
    expected = embedder.rerank(query, frames)[:3]
    for hit, its in zip(hits, expected, strict=True):
        assert isinstance(hit, RerankedVideoHit)
        assert hit[:5] == plainly[its.index][:5]
        assert hit.reranked == pytest.approx(its.reranked, abs=1e-5)
        assert [phrase.text for phrase in hit.phrases] == ["a rocket", "a tiger"]
        assert hit.phrases[0].box == pytest.approx(its.phrases[0].box)
    (tmp_path / "b.mp4").unlink()
    with pytest.warns(
        UserWarning, match=r"1 images of the index can't be read any more and are left out, e\.g\. .*b\.mp4"
    ):
        hits = index.search(query, embedder, rerank="phrases")
    assert set(names(hits)) == {"a.mp4"}
    with pytest.raises(ValueError, match="needs queries that are texts"):
        index.search(index.vectors[0], embedder, rerank="phrases")
    with pytest.raises(ValueError, match="leave out `regions`"):
        index.search(query, embedder, rerank="phrases", regions="best")
