"""What fgclip2_onnx does in NumPy is what fgclip2 does in torch: pixels to the bit, ids, regions, windows and maps."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import fgclip2
from fgclip2 import FGClipImageProcessor, FGClipProcessor
from fgclip2.embedding import windows
from fgclip2.modeling import layers
from fgclip2.modeling.pixels import PIXEL_SETTINGS
from fgclip2_onnx import OnnxProcessor
from fgclip2_onnx.dense import best_windows, pool_regions, resize_map

ROOT = Path(__file__).parents[2]
CARRIED = ROOT / "packages" / "fgclip2-onnx" / "src" / "fgclip2_onnx" / "_fgclip2"
TEXTS = [
    "A black CAT, sitting on 2 of the 10 café tables.",
    "一只黑猫，坐在１０张咖啡桌中的 2 张上。",
    "",
    "  🐈\tＦＧ－ＣＬＩＰ <TABLE>\n",
    "红色的碗和一只猫。" * 30,
    "a very long text " * 60,
]
BOXES = [[0, 0, 40, 30], [3.5, 2.25, 11, 29.5], [-20, -5, 15, 200], [12, 12, 12.5, 12.5], [39, 29, 80, 60]]


def draw(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def naflex_manifest(processor) -> dict:
    settings = processor.image_processor
    lengths = {role: {"length": processor.text_length(role)} for role in processor.text_roles}
    return {
        "text": {
            "tokenizer": "tokenizer.json",
            "python_lowercase": True,
            "pad_id": processor.tokenizer.pad_token_id,
            "pad_to_length": True,
            "roles": lengths,
        },
        "image": {
            "kind": "naflex",
            "patch_budgets": [128, 256, 576, 784, 1024],
            **{name: getattr(settings, name) for name in ("patch_size", "max_num_patches", *PIXEL_SETTINGS)},
        },
        "image_square": {"size": [64, 48]},
        "files": {},
    }


@pytest.fixture(scope="module")
def folder(processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    processor.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("budget", [None, "auto", 7, 256])
@pytest.mark.parametrize("size", [(33, 61), (480, 16), (300, 301)])
def test_pixels_are_equal_to_the_bit(size, budget, processor, folder):
    ours = OnnxProcessor(naflex_manifest(processor), folder, "naflex").prepare_image(draw(*size), budget)
    expected = processor.prepare_image(draw(*size), budget)
    assert ours.keys() == expected.keys()
    assert all(np.array_equal(ours[name], expected[name]) for name in expected)


def test_squares_are_equal_to_the_bit(processor, folder):
    settings = naflex_manifest(processor)
    of_images = {name: settings["image"][name] for name in PIXEL_SETTINGS}
    squares = FGClipImageProcessor(size={"height": 64, "width": 48}, **of_images)
    expected = FGClipProcessor(squares, processor.tokenizer).prepare_image(draw(70, 90))["pixel_values"]
    prepared = OnnxProcessor(settings, folder, "square").prepare_image(draw(70, 90))
    assert np.array_equal(prepared["pixel_values"], expected)
    with pytest.raises(ValueError, match="max_num_patches must be None for squares of one size, got 256"):
        OnnxProcessor(settings, folder, "square").prepare_image(draw(70, 90), 256)


def test_a_tokenizer_outside_the_folder_is_refused(processor, folder):
    settings = naflex_manifest(processor)
    settings["text"]["tokenizer"] = f"../{folder.name}/tokenizer.json"
    with pytest.raises(ValueError, match=r"names the file '\.\./.*/tokenizer\.json', which lies outside its folder"):
        OnnxProcessor(settings, folder, "naflex")


@pytest.mark.parametrize("role", ["caption", "long_caption", "region_phrase"])
def test_ids_are_equal(role, processor, folder):
    ours = OnnxProcessor(naflex_manifest(processor), folder, "naflex")
    assert np.array_equal(ours.tokenize(TEXTS, role)["input_ids"], processor.tokenize(TEXTS, role)["input_ids"])
    assert ours.count_tokens(TEXTS) == processor.count_tokens(TEXTS)


def test_regions_are_those_of_torch():
    dense = np.random.default_rng(0).normal(size=(5, 7, 8)).astype(np.float32)
    grids = torch.tensor([[5, 7]])
    boxes = layers.boxes_in_patches([BOXES], [(30, 40)], grids)
    expected = layers.pool_regions(torch.from_numpy(dense).flatten(0, 1)[None], grids, boxes)[0]
    np.testing.assert_allclose(pool_regions(dense, BOXES, (30, 40)), expected, atol=1e-6)
    assert pool_regions(dense, [], (30, 40)).shape == (0, 8)


def test_windows_are_those_of_torch():
    generator = np.random.default_rng(1)
    dense = generator.normal(size=(6, 9, 8)).astype(np.float32)
    phrases = generator.normal(size=(5, 8)).astype(np.float32)
    phrases /= np.linalg.norm(phrases, axis=1, keepdims=True)
    [(cosines, boxes)] = windows.best_windows(torch.from_numpy(dense)[None], [torch.from_numpy(phrases)])
    our_cosines, our_boxes = best_windows(dense, phrases)
    np.testing.assert_allclose(our_cosines, cosines, atol=1e-6)
    assert np.array_equal(our_boxes, boxes)


@pytest.mark.parametrize("size", [(50, 70), (3, 40), (4, 5)])
def test_maps_are_interpolated_as_by_torch(size):
    cosines = np.random.default_rng(2).uniform(-1, 1, (6, 9)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(cosines)[None, None], size, mode="bilinear", antialias=True)[0, 0]
    np.testing.assert_allclose(resize_map(cosines, size), expected, atol=1e-6)


def test_carried_files_are_those_of_fgclip2_and_need_neither_torch_nor_transformers():
    source = Path(fgclip2.__file__).parent
    found = {*CARRIED.rglob("*.py")}
    # hatchling visits a folder once, under whichever name it meets first: the wheel of fgclip2 would lack its own.
    assert not any(path.is_symlink() for path in CARRIED.rglob("*") if path.is_dir())
    carried = {path for path in found if path.resolve().is_relative_to(source.resolve())}
    assert {path.relative_to(CARRIED).as_posix() for path in found - carried} == {
        "__init__.py",
        "calibration/__init__.py",
        "embedding/__init__.py",
        "modeling/__init__.py",
    }
    assert len(carried) > 15
    for path in carried:
        assert path.resolve() == (source / path.relative_to(CARRIED)).resolve()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
        skipped = {id(inner) for node in for_types for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if id(node) not in skipped and isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {name.split(".")[0] for name in names} & {"torch", "transformers"}, path
