"""JPEG files by simplejpeg: the same pixels as by Pillow, and Pillow's errors where a file is damaged."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from fgclip2.data import Record, jpeg
from fgclip2.data.jpeg import decode_jpeg
from fgclip2.data.records import open_record_image
from fgclip2.errors import UnreadableImageError
from fgclip2.modeling.inputs import load_image


def encoded(size=(67, 45), mode: str = "RGB", image_format: str = "JPEG", **options) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, image_format, **options)
    return file.getvalue()


@pytest.fixture(autouse=True)
def _decoder_anew():
    """What was found out in another test, where there may be no simplejpeg, does not count."""
    jpeg._decoder.cache_clear()
    yield
    jpeg._decoder.cache_clear()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [25, 75, 100])
def test_pixels_are_those_of_pillow(subsampling, progressive, quality, tmp_path):
    content = encoded(subsampling=subsampling, progressive=progressive, quality=quality)
    path = tmp_path / "图.jpg"
    path.write_bytes(content)
    for image in (content, str(path)):
        decoded = decode_jpeg(image)
        assert decoded.mode == "RGB"
        assert np.array_equal(np.asarray(decoded), np.asarray(load_image(image)))


def test_colours_that_are_not_converted():
    content = encoded(keep_rgb=True)
    assert np.array_equal(np.asarray(decode_jpeg(content)), np.asarray(load_image(content)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    content = encoded(exif=exif)
    assert np.array_equal(np.asarray(decode_jpeg(content)), np.asarray(load_image(content)))


def test_what_is_left_to_pillow(tmp_path):
    others = [
        encoded(mode="L"),
        encoded(mode="CMYK"),
        encoded(image_format="PNG"),
        b"no image",
        str(tmp_path / "no.jpg"),
    ]
    assert [decode_jpeg(image) for image in [*others, Image.new("RGB", (3, 3))]] == [None] * 6


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_cut_files_are_errors_of_pillow(share):
    content = encoded()
    cut = content[: int(share * len(content))]
    assert decode_jpeg(cut) is None
    with pytest.raises(UnreadableImageError, match=r"a\.csv:1: .*not a readable image"):
        open_record_image(Record(cut, "a cat", None, "en", (), "a.csv:1"))


def test_a_build_that_decodes_otherwise_is_not_used(monkeypatch):
    simplejpeg = pytest.importorskip("simplejpeg")
    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *arguments: decode(*arguments) ^ 1)
    assert decode_jpeg(encoded()) is None


def test_without_simplejpeg_pillow_decodes(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    content = encoded()
    assert decode_jpeg(content) is None
    image = open_record_image(Record(content, "a cat", None, "en", (), "a.csv:1"))
    assert np.array_equal(np.asarray(image), np.asarray(load_image(content)))
