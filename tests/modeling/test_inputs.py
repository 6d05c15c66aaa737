"""What image files may be: of promised formats only, of bounded size, cheap to refuse."""

import ast
import io
import re
import struct
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

import fgclip2
from fgclip2.modeling.inputs import MAX_NUM_PATCHES, check_max_num_patches, load_image, open_image

SOURCE = Path(fgclip2.__file__).parent
HEIC = Path(__file__).with_name("渐变.heic")  # 64 x 48 pixels: red grows to the right, green downwards
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n%%EOF\n"


def encoded(image: Image.Image, name: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["picture.png", "照片.jpg", "picture.eps"])
def test_no_image_starts_a_program(name, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **options: started.append(arguments))
    path = tmp_path / name
    path.write_bytes(EPS)
    with pytest.raises(ValueError, match=rf"{name}: not a readable image: its content is none of JPEG, PNG, .*HEIC"):
        load_image(path)
    with pytest.raises(ValueError, match=f"^{len(EPS)} bytes of no known image format"):
        load_image(EPS)
    assert started == []


def test_image_files_are_opened_in_one_place():
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "open" and getattr(node.value, "id", "") == "Image":
                found.add(path.relative_to(SOURCE).as_posix())
    # The second is run by itself, where this package is out of reach; the third opens what it has written itself.
    assert found == {"modeling/inputs.py", "hub/fresh_process.py", "data/jpeg.py"}


def header_of_png(width: int, height: int) -> bytes:
    """The beginning of a grey PNG file: enough for its size, not for its pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (chunk, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as scripts set it that load large images
    path = tmp_path / "大图.png"
    path.write_bytes(header_of_png(20_000, 20_000))
    with pytest.raises(ValueError, match=r"大图\.png: .*20000 x 20000 pixels, more than max_pixels=178956970: pass a"):
        load_image(path)
    with pytest.raises(ValueError, match="truncated"):  # now it is decoded
        load_image(header_of_png(20, 10), max_pixels=200)
    with pytest.raises(ValueError, match="20 x 10 pixels, more than max_pixels=199"):
        load_image(header_of_png(20, 10), max_pixels=199)
    with pytest.raises(ValueError, match="max_pixels=199"):
        load_image(open_image(header_of_png(20, 10)), max_pixels=199)


def test_sixteen_bit_images_take_little_memory_beside_pillows_own():
    values = (np.arange(1500 * 1000) % 65536).astype(np.uint16).reshape(1500, 1000)
    image = Image.open(io.BytesIO(encoded(Image.fromarray(values), "PNG")))
    image.load()  # 2 bytes a pixel; the result takes 4
    tracemalloc.start()
    try:
        loaded = load_image(image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(np.asarray(loaded)[..., 1], np.round(values / 257.0))
    assert peak / values.size < 12 - 2 - 4 + 2  # and a block of floats, which is little of an image of millions


def exif_of_many_tags(size: int, tags: int, orientation: int) -> bytes:
    """Tags that all refer to one large value."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, orientation)
    entries += b"".join(struct.pack("<HHII", 0x9000 + tag, 3, size // 2, 16 * 2**10) for tag in range(tags))
    directory = b"II*\0" + struct.pack("<IH", 8, tags + 1) + entries + struct.pack("<I", 0)
    return b"Exif\0\0" + directory.ljust(16 * 2**10, b"\0") + b"\0" * size


def test_the_orientation_of_large_exif_is_found_at_once():
    image = Image.new("RGB", (30, 20), "red")
    image.putpixel((0, 0), (0, 0, 255))
    content = encoded(image, "PNG", exif=exif_of_many_tags(16 * 2**20, 400, 6))
    began = time.process_time()
    upright = load_image(content)
    assert time.process_time() - began < 3
    assert upright.size == (20, 30)
    assert upright.getpixel((19, 0)) == (0, 0, 255)


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_turned_as_pillow_does(photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert np.array_equal(np.asarray(load_image(content)), np.asarray(expected))


def test_patch_budgets_are_bounded():
    check_max_num_patches(MAX_NUM_PATCHES)
    with pytest.raises(ValueError, match="got 16385; allowed: up to 16384"):
        check_max_num_patches(MAX_NUM_PATCHES + 1)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "PPM", "AVIF"])
def test_promised_formats_are_read_whatever_the_file_is_called(photo, name, tmp_path):
    path = tmp_path / "图.img"
    path.write_bytes(encoded(photo, name))
    assert load_image(path).size == load_image(path.read_bytes()).size == photo.size


def test_heic():
    pytest.importorskip("pi_heif")
    y, x = np.mgrid[0:48, 0:64]
    expected = np.stack([x * 4, y * 5, np.full_like(x, 90)], -1)
    for source in (HEIC, HEIC.read_bytes()):
        np.testing.assert_allclose(np.asarray(load_image(source)), expected, atol=12)


def test_heic_without_its_extra_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    command = re.escape('run: pip install "fgclip2[heic]"')
    with pytest.raises(ValueError, match=rf"渐变\.heic: .*HEIC images need the package pi-heif; {command}"):
        load_image(HEIC)
