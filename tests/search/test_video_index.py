"""The index of the videos of a folder: brought up to date, resumed, searched by stretches of time."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fgclip2 import FGClip2Embedder
from fgclip2.assets import demo_images
from fgclip2.embedding import EncodedImage
from fgclip2.errors import IncompatibleIndexError
from fgclip2.search import ImageIndex, IndexReport, VideoHit, VideoIndex, video_build
from fgclip2.search.frames import FrameSpan, clock
from fgclip2.search.scan import ImageFile

from .videos import BLUE, GREEN, RED, WHITE, plain, write_video


class ColorEmbedder:
    """Embeds an image, or a region, as its mean colour."""

    name, revision, embedding_size = "colours", None, 3
    fingerprint = weights_fingerprint = "c" * 64
    max_pixels = 10**6
    processor = SimpleNamespace(patch_budgets=None)

    def describe_vectors(self):
        return {"backend": "torch", "precision": "float32", "images": "square"}

    def stream_images(self, images, *options, on_error="raise"):
        for index, image in enumerate(images):
            color = np.asarray(Image.open(image) if isinstance(image, Path) else image).reshape(-1, 3).mean(0)
            yield index, (color / np.linalg.norm(color)).astype(np.float32)

    def require_regions(self):
        pass

    def stream_encoded(self, images, rules, *options):
        for (index, vector), image, rule in zip(self.stream_images(images), images, rules, strict=True):
            boxes = np.float32(rule(*image.size))
            crops = [image.crop([round(edge) for edge in box]) for box in boxes.tolist()]
            regions = np.stack([its for _, its in self.stream_images(crops)])
            yield index, EncodedImage(vector, image.size[::-1], boxes, regions)


@pytest.fixture
def clips(tmp_path) -> Path:
    """Two videos, one in a subfolder, a damaged one and a picture."""
    folder = tmp_path / "视频"
    write_video(folder / "a.mp4", [plain(RED), plain(BLUE), plain(RED)])
    write_video(folder / "旅行" / "b#t=1.mkv", [plain(GREEN), plain(WHITE)])
    (folder / "坏.mp4").write_bytes(b"no video")
    plain(RED).save(folder / "c.png")
    return folder


def entries(index: VideoIndex) -> list[str]:
    return [file.path for file in index.files]


FRAMES = ["a.mp4#t=0.000,2.000", "a.mp4#t=2.000,4.000", "a.mp4#t=4.000,6.000"]
FRAMES += ["旅行/b#t=1.mkv#t=0.000,2.000", "旅行/b#t=1.mkv#t=2.000,4.000"]


def test_frames_are_indexed_by_video_and_time_and_kept(clips, monkeypatch):
    index = VideoIndex.build(clips, ColorEmbedder())
    assert entries(index) == FRAMES
    assert index.report == IndexReport(added=2, updated=0, removed=0, unchanged=0, unusable=1)
    assert [file.path for file in index.unusable] == ["坏.mp4"]
    assert (index.sampling, index.video_count) == ("scenes", 2)
    monkeypatch.setattr(video_build, "Video", None)  # nothing is read again, not even what is damaged
    again = VideoIndex.build(clips, ColorEmbedder())
    assert again.report == IndexReport(added=0, updated=0, removed=0, unchanged=2, unusable=1)
    loaded = VideoIndex.load(clips)
    assert entries(loaded) == entries(again) == FRAMES
    np.testing.assert_array_equal(loaded.vectors, index.vectors)


def test_only_what_changes_is_read_again(clips, monkeypatch):
    VideoIndex.build(clips, ColorEmbedder())
    write_video(clips / "a.mp4", [plain(GREEN)], seconds=3)
    os.utime(clips / "a.mp4", ns=(1, 1))
    (clips / "旅行" / "b#t=1.mkv").unlink()
    write_video(clips / "坏.mp4", [plain(WHITE)], seconds=1)
    index = VideoIndex.build(clips, ColorEmbedder())
    assert index.report == IndexReport(added=1, updated=1, removed=1, unchanged=0, unusable=0)
    assert entries(index) == ["a.mp4#t=0.000,3.000", "坏.mp4#t=0.000,1.000"]


def test_an_interrupted_run_begins_with_the_video_in_which_it_was(clips, monkeypatch):
    embedder, read = ColorEmbedder(), []
    stream = embedder.stream_images

    def broken(images, *options, on_error="raise"):
        read.append(None)
        if len(read) == 2:
            raise KeyboardInterrupt
        return stream(images, *options)

    monkeypatch.setattr(embedder, "stream_images", broken)
    with pytest.raises(KeyboardInterrupt, match="1 of 3 new videos are saved in the index; the next run goes on"):
        VideoIndex.build(clips, embedder)
    assert entries(VideoIndex.load(clips)) == FRAMES[:3]
    index = VideoIndex.build(clips, embedder)
    assert (entries(index), index.report.added, len(read)) == (FRAMES, 1, 3)


def test_another_sampling_reads_all_again_and_stays(clips):
    VideoIndex.build(clips, ColorEmbedder())
    index = VideoIndex.build(clips, ColorEmbedder(), sampling=3)
    assert entries(index)[:2] == ["a.mp4#t=0.000,3.000", "a.mp4#t=3.000,6.000"]
    assert (index.report.updated, index.report.unchanged) == (2, 0)
    assert VideoIndex.build(clips, ColorEmbedder()).report.unchanged == 2
    assert VideoIndex.build(clips, ColorEmbedder(), rebuild=True).sampling == 3


def test_a_video_with_too_many_frames_may_have_few_enough_by_another_sampling(clips, monkeypatch):
    monkeypatch.setattr("fgclip2.search.video.MAX_FRAMES", 2)
    index = VideoIndex.build(clips, ColorEmbedder())
    assert "a.mp4" in [file.path for file in index.unusable]
    index = VideoIndex.build(clips, ColorEmbedder(), sampling=3)
    assert entries(index)[:2] == ["a.mp4#t=0.000,3.000", "a.mp4#t=3.000,6.000"]


def test_frames_of_another_model_are_never_mixed(clips, monkeypatch):
    VideoIndex.build(clips, ColorEmbedder())
    other = ColorEmbedder()
    other.fingerprint = other.weights_fingerprint = "d" * 64
    with pytest.raises(IncompatibleIndexError, match="made by the model 'colours'"):
        VideoIndex.build(clips, other)
    assert VideoIndex.build(clips, other, rebuild=True).report.added == 2


def test_removing_leaves_videos_and_images_as_they_are(clips):
    images = ImageIndex.build(clips, ColorEmbedder())
    VideoIndex.build(clips, ColorEmbedder())
    before = sorted(path.name for path in clips.rglob("*") if ".fgclip2_index" not in path.parts)
    VideoIndex.remove(clips)
    VideoIndex.remove(clips)
    assert VideoIndex.load(clips) is None
    assert not VideoIndex.exists(clips)
    assert [file.path for file in ImageIndex.load(clips).files] == [file.path for file in images.files] == ["c.png"]
    assert before == sorted(path.name for path in clips.rglob("*") if ".fgclip2_index" not in path.parts)


def test_names_of_frames_and_times():
    assert FrameSpan.parse("a#t=1.000,2.000.mp4#t=0.500,12.250") == ("a#t=1.000,2.000.mp4", 0.5, 12.25)
    assert str(FrameSpan("猫.mp4", 0.5, 12.25)) == "猫.mp4#t=0.500,12.250"
    with pytest.raises(ValueError, match="is no frame of a video"):
        FrameSpan.parse("a.mp4")
    assert str(FrameSpan("猫.mp4", 0.5)) == "猫.mp4#t=0.500"
    assert FrameSpan.parse("猫.mp4#t=0.500") == FrameSpan("猫.mp4", 0.5)
    assert [clock(seconds) for seconds in (0, 59.96, 3723.45)] == ["0:00.0", "1:00.0", "1:02:03.4"]


# Search -------------------------------------------------------------------------------------------------------------


def index_with(scores: dict[str, list[float]]) -> VideoIndex:
    """An index in which the vector (1, 0) has these cosines with the frames of each video, of a second each."""
    spans = [(path, time) for path, its in scores.items() for time in range(len(its))]
    cosines = np.array([cosine for its in scores.values() for cosine in its], np.float32)
    files = [ImageFile(str(FrameSpan(path, time, time + 1)), 1, 1) for path, time in spans]
    vectors = np.stack([cosines, np.sqrt(1 - cosines**2)], 1)
    return VideoIndex(Path("/视频"), files, vectors, {"embedding_size": 2}, {})


def test_neighbours_nearly_as_good_are_one_stretch():
    # The median is 0.1: frames beside the best one, of 0.9, belong to it from 0.5 on; beside that of 0.4 from 0.25 on.
    index = index_with({"a": [0.1, 0.6, 0.9, 0.5, 0.1, 0.1], "b": [0.4, 0.1, 0.3, 0.1, 0.1]})
    hits = index.search(np.float32([1, 0]), top_k=3)
    assert [(hit.path.name, hit.time, hit.start, hit.end) for hit in hits] == [
        ("a", 2, 1, 4),
        ("b", 0, 0, 1),
        ("b", 2, 2, 3),
    ]
    assert hits[0] == VideoHit(Path("/视频/a"), pytest.approx(0.9), 2, 1, 4)
    many = index.search(np.float32([[1, 0], [0, 1]]), top_k=100)
    assert many[0][:3] == hits
    # Every frame is in one stretch, and none crosses from one video to another.
    assert sum(hit.end - hit.start for hit in many[0]) == 11
    assert max(hit.end for hit in many[0] if hit.path.name == "b") <= 5


def test_times_are_sorted_as_numbers_and_an_empty_index_finds_nothing():
    index = index_with({"a": [0.1] * 12})
    assert [span.start for span in index.spans] == list(range(12))
    empty = VideoIndex(Path("/视频"), [], np.zeros((0, 2), np.float32), {"embedding_size": 2}, {})
    assert empty.search(np.float32([1, 0])) == []


def test_scenes_are_found_by_texts_in_both_languages(tmp_path):
    things = ("tiger", "rocket", "strawberry")
    pictures = [Image.open(demo_images() / "pictures" / f"{name}-twemoji.webp").convert("RGB") for name in things]
    write_video(tmp_path / "动物.mp4", pictures)
    embedder = FGClip2Embedder.from_pretrained(device="cpu")
    index = VideoIndex.build(tmp_path, embedder)
    for number, queries in enumerate([("a tiger", "老虎"), ("rocket", "火箭"), ("a strawberry", "草莓")]):
        for hits in index.search(list(queries), embedder, top_k=1):
            assert [(hit.start, hit.end) for hit in hits] == [(2 * number, 2 * number + 2)]
