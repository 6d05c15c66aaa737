"""Frames of videos: which are taken, what is refused, and what damage costs."""

import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from fgclip2.search import video
from fgclip2.search.video import Video, check_sampling, read_frame, sample_frames

from .videos import BLUE, RED, WHITE, plain, write_video

PIXELS = 10**6


def sample(path: Path, sampling) -> list[tuple[float, tuple[int, ...]]]:
    with Video(path, PIXELS) as opened:
        return [(frame.time, frame.image.getpixel((10, 10))) for frame in sample_frames(opened, sampling)]


def is_close(color, expected) -> bool:
    return np.abs(np.subtract(color, expected)).max() < 12  # as far as a codec changes it


@pytest.mark.parametrize(("name", "codec"), [("镜头.mp4", "mpeg4"), ("b.mkv", "mpeg4"), ("c.webm", "libvpx-vp9")])
def test_a_frame_is_taken_at_each_cut(tmp_path, name, codec):
    path = write_video(tmp_path / name, [plain(RED), plain(BLUE), plain(WHITE)], codec=codec)
    frames = sample(path, "scenes")
    assert [time for time, _ in frames] == [0, 2, 4]
    assert all(is_close(color, expected) for (_, color), expected in zip(frames, [RED, BLUE, WHITE], strict=True))


def test_colours_of_one_brightness_are_different_scenes(tmp_path):
    path = write_video(tmp_path / "a.mp4", [plain((150, 40, 40)), plain((30, 90, 90))])
    assert [time for time, _ in sample(path, "scenes")] == [0, 2]


def test_a_long_scene_has_a_frame_every_ten_seconds(tmp_path):
    path = write_video(tmp_path / "a.mp4", [plain(RED)], seconds=25, rate=2)
    assert [time for time, _ in sample(path, "scenes")] == [0, 10, 20]


@pytest.mark.parametrize(("seconds", "times"), [(1, [0, 1, 2, 3, 4, 5]), (2.5, [0, 2.5, 5]), (0.1, None), (60, [0])])
def test_an_interval_takes_a_frame_every_so_many_seconds(tmp_path, seconds, times):
    path = write_video(tmp_path / "a.mp4", [plain(RED), plain(BLUE), plain(WHITE)])
    found = [time for time, _ in sample(path, seconds)]
    assert found == (times or [number / 4 for number in range(24)])


def test_a_frame_is_read_by_its_time(tmp_path):
    path = write_video(tmp_path / "a.mp4", [plain(RED), plain(BLUE), plain(WHITE)])
    for time, expected in [(0, RED), (1.75, RED), (2, BLUE), (4, WHITE), (99, WHITE)]:
        assert is_close(read_frame(path, time, PIXELS).getpixel((10, 10)), expected), time


def test_frames_of_phones_held_upright_are_upright(tmp_path):
    picture = plain(RED, (96, 64))
    picture.paste(BLUE, (0, 0, 96, 32))  # blue above, red below
    path = write_video(tmp_path / "a.mp4", [picture])
    one, zero, minus = (number.to_bytes(4, "big", signed=True) for number in (1 << 16, 0, -(1 << 16)))
    end = (1 << 30).to_bytes(4, "big")
    content = path.read_bytes()
    place = content.index(b"tkhd")
    level = b"".join([one, zero, zero, zero, one, zero, zero, zero, end])
    clockwise = b"".join([zero, one, zero, minus, zero, zero, zero, zero, end])
    assert level in content[place:]
    path.write_bytes(content[:place] + content[place:].replace(level, clockwise, 1))
    upright = read_frame(path, 0, PIXELS)
    assert upright.size == (64, 96)
    assert is_close(upright.getpixel((5, 48)), RED)  # what was below is at the left now
    assert is_close(upright.getpixel((58, 48)), BLUE)


# Refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile other.mp4\n",  # which FFmpeg would follow
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nother.mp4\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXTINF:6,\nhttp://127.0.0.1:9/a.mp4\n",
        "v=0\nm=video 5004 RTP/AVP 96\n",
        "not a video",
        "",
    ],
)
def test_lists_of_other_files_and_addresses_are_not_followed(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "other.mp4", [plain(RED)])
    (tmp_path / "表.mp4").write_text(content)
    with pytest.raises(ValueError, match=r"表\.mp4: "):
        sample(tmp_path / "表.mp4", "scenes")


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"a\.mp4: not a regular file"):
        Video(tmp_path / "a.mp4", PIXELS)
    with pytest.raises(FileNotFoundError):
        Video(tmp_path / "b.mp4", PIXELS)


def test_size_length_and_number_of_frames_have_bounds(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", [plain(RED), plain(BLUE)])
    with pytest.raises(ValueError, match=r"a\.mp4: its frames have 96 x 64 pixels, more than max_pixels=6000"):
        Video(path, 6000)
    monkeypatch.setattr(video, "MAX_FRAMES", 3)
    with pytest.raises(ValueError, match=r"a\.mp4: more than 3 frames of it would be taken"):
        sample(path, 0.5)
    monkeypatch.setattr(video, "MAX_SECONDS", 3)
    with pytest.raises(ValueError, match=r"a\.mp4: it takes more than 6 hours"):
        sample(path, "scenes")


@pytest.mark.parametrize("sampling", ["often", 0, -1, float("nan"), None, True, 10**6])
def test_other_samplings_are_refused(sampling):
    with pytest.raises(ValueError, match=r"must be .scenes. or a number of seconds from 0\.01"):
        check_sampling(sampling)


def test_without_pyav_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r'pip install "fgclip2\[video\]"'):
        Video(tmp_path / "a.mp4", PIXELS)


# Damage -------------------------------------------------------------------------------------------------------------


def test_a_video_that_is_cut_off_is_named(tmp_path):
    path = write_video(tmp_path / "短.mp4", [plain(RED)])
    path.write_bytes(path.read_bytes()[:-900])  # the index of an .mp4 is its end
    with pytest.raises(ValueError, match=r"短\.mp4: "):
        sample(path, 1)


def test_damaged_packets_cost_their_frames_only(tmp_path):
    path = write_video(tmp_path / "a.avi", [plain(RED), plain(BLUE), plain(WHITE)])
    with av.open(str(path)) as container:
        packets = [(packet.pos, bytes(packet)) for packet in container.demux(video=0)]
    content = path.read_bytes()
    position, packet = packets[8]  # of the first blue frame
    place = content.index(packet, position)
    path.write_bytes(content[:place] + b"\xff" * len(packet) + content[place + len(packet) :])
    with pytest.warns(UserWarning, match=r"a\.avi: 1 of its packets are damaged"):
        times = [time for time, _ in sample(path, 0.25)]
    assert times == [number / 4 for number in range(24) if number != 8]
