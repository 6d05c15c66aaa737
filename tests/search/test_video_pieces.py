"""A video that is interrupted in the middle goes on there, and gives what it would have given at once."""

import os
import signal
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from fgclip2.search import VideoIndex, video_build
from tests.interpreters import run_python

from .test_video_index import ColorEmbedder
from .videos import BLUE, GREEN, RED, WHITE, plain, write_video

ROOT = Path(__file__).parents[2]
COLORS = [RED, BLUE, GREEN, WHITE, RED, GREEN, BLUE]


class BrokenEmbedder(ColorEmbedder):
    """Is interrupted after some pieces."""

    def __init__(self, pieces, interrupt):
        self.left, self.interrupt = pieces, interrupt

    def stream_images(self, images, *options, **more):
        if not self.left:
            self.interrupt()
        self.left -= 1
        return super().stream_images(images, *options, **more)


def interrupt():
    raise KeyboardInterrupt


def small_pieces() -> None:
    video_build.FRAMES_PER_PIECE, video_build.SECONDS_BETWEEN_SAVES = 2, 0


@pytest.fixture(autouse=True)
def pieces_of_two_frames(monkeypatch):
    for name in ("FRAMES_PER_PIECE", "SECONDS_BETWEEN_SAVES"):
        monkeypatch.setattr(video_build, name, getattr(video_build, name))
    small_pieces()


def build(folder: Path, where: str, embedder=None, sampling="scenes", **options) -> VideoIndex:
    return VideoIndex.build(folder, embedder or ColorEmbedder(), sampling, folder / where, batch_size=1, **options)


def assert_same(index: VideoIndex, expected: VideoIndex) -> None:
    assert index.files == expected.files
    np.testing.assert_array_equal(index.vectors, expected.vectors)
    assert {file: its.metadata for file, its in index.extras.items()} == {
        file: its.metadata for file, its in expected.extras.items()
    }


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv", "c.avi", "d.webm"])
@pytest.mark.parametrize("sampling", ["scenes", 0.75])
def test_a_video_goes_on_where_a_run_was_interrupted(tmp_path, name, sampling):
    write_video(tmp_path / name, list(map(plain, COLORS)), 1, codec="libvpx-vp9" if name == "d.webm" else "mpeg4")
    (tmp_path / "records.csv").write_text(f"path,year\n{name},2020\n")
    options = {"sampling": sampling, "metadata": tmp_path / "records.csv"}
    whole = build(tmp_path, "whole", **options)
    for frames in (2, 4):
        with pytest.raises(KeyboardInterrupt, match=f"0 of 1 new videos and {frames} frames of others are saved"):
            build(tmp_path, "parts", BrokenEmbedder(1, interrupt), **options)
        part = VideoIndex.load(tmp_path, tmp_path / "parts")
        assert part.files[:-1] == whole.files[: frames - 1]
        assert (part.spans[-1].start, part.spans[-1].has_end) == (whole.spans[frames - 1].start, False)
        (hit, *_) = part.search(whole.vectors[frames - 1], top_k=1)  # it is searched as far as it goes
        assert hit.time <= hit.end < 7
    rest = BrokenEmbedder(100, interrupt)
    assert build(tmp_path, "parts", rest, **options).report.added == 1
    assert 100 - rest.left == -(-(len(whole) - 4) // 2)  # nothing is embedded twice
    assert_same(VideoIndex.load(tmp_path, tmp_path / "parts"), whole)
    assert build(tmp_path, "parts", BrokenEmbedder(0, interrupt), **options).report.unchanged == 1


def test_a_killed_run_loses_the_last_piece_at_most(tmp_path):
    write_video(tmp_path / "a.mp4", list(map(plain, COLORS)), 1)
    assert run_python("-m", __name__, tmp_path, cwd=ROOT).returncode == -signal.SIGKILL
    assert len(VideoIndex.load(tmp_path, tmp_path / "parts")) == 4
    assert build(tmp_path, "parts").report.added == 1
    assert_same(VideoIndex.load(tmp_path, tmp_path / "parts"), build(tmp_path, "whole"))


def test_where_seeking_fails_a_video_is_decoded_from_its_start(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", list(map(plain, COLORS)), 1)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, "parts", BrokenEmbedder(2, interrupt))
    monkeypatch.setattr(video_build.Video, "seek", lambda self, time: self._container.seek(10**9, any_frame=True))
    assert_same(build(tmp_path, "parts"), build(tmp_path, "whole"))


def test_a_video_that_has_lost_its_end_meanwhile_is_not_usable_and_leaves_no_frames(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", list(map(plain, COLORS)), 1)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, "parts", BrokenEmbedder(2, interrupt))
    stamp = path.stat()
    with av.open(str(write_video(tmp_path / "short" / "a.mp4", [plain(RED)], 1))) as other:
        assert other.duration
    content = (tmp_path / "short" / "a.mp4").read_bytes()
    path.write_bytes(content.ljust(stamp.st_size, b"\0"))
    (tmp_path / "short" / "a.mp4").unlink()
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    index = build(tmp_path, "parts")
    assert len(index) == 0
    assert [(file.path, file.reason) for file in index.unusable] == [
        ("a.mp4", "it has no frame at 3.000 seconds any more")
    ]


if __name__ == "__main__":
    small_pieces()
    build(Path(sys.argv[1]), "parts", BrokenEmbedder(2, lambda: os.kill(os.getpid(), signal.SIGKILL)))


def test_a_full_disk_is_not_the_fault_of_a_video(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", list(map(plain, COLORS)), 1)
    read = []
    monkeypatch.setattr(ColorEmbedder, "stream_images", _counted(ColorEmbedder.stream_images, read))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video_build, "write_index", full)
    with pytest.raises(OSError, match="No space left"):
        build(tmp_path, "where")
    assert len(read) == 1  # it ends with the first piece that can't be saved


def _counted(method, calls):
    def counted(self, *arguments, **options):
        calls.append(None)
        return method(self, *arguments, **options)

    return counted
