"""An index says how its vectors were made, and refuses those that are not the same."""

import json

import numpy as np
import pytest
from PIL import Image

from fgclip2 import Embedder
from fgclip2.errors import IncompatibleIndexError
from fgclip2.search import ImageIndex
from fgclip2.search.build import vector_kind
from fgclip2.search.index import DEFAULT_INDEX_FOLDER


@pytest.fixture(scope="module")
def by_torch(model, processor):
    return Embedder(model, processor)


def by_onnx(exported, **settings):
    return Embedder.from_pretrained(exported, backend="onnx", **settings)


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("猫.png", "dog.png"):
        Image.fromarray(generator.integers(0, 256, (40, 64, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def test_fp32_graphs_and_torch_share_an_index(photos, exported, by_torch):
    ImageIndex.build(photos, by_torch)
    Image.new("RGB", (50, 50), "red").save(photos / "红.png")
    index = ImageIndex.build(photos, by_onnx(exported))
    assert (index.report.added, index.report.unchanged) == (1, 2)
    manifest = json.loads((photos / DEFAULT_INDEX_FOLDER / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["settings"]["backend"] == "onnx"
    assert manifest["settings"]["precision"] == "fp32"
    hits = index.search(photos / "红.png", by_torch, top_k=1)
    assert hits[0].path != photos / "红.png"
    np.testing.assert_allclose(
        index.vectors, by_torch.encode_images([photos / file.path for file in index.files]), atol=2e-6
    )


@pytest.mark.parametrize("settings", [{"precision": "int8"}, {"images": "square"}])
def test_other_vectors_are_refused(settings, photos, exported, by_torch):
    index = ImageIndex.build(photos, by_torch)
    other = by_onnx(exported, **settings)
    with pytest.raises(IncompatibleIndexError, match=r"was made with .*'images': 'naflex'.*, not "):
        ImageIndex.build(photos, other)
    with pytest.raises(IncompatibleIndexError, match="gives other vectors of images: search by texts"):
        index.search(photos / "猫.png", other)
    assert len(index.search("一只猫", other)) == 2
    rebuilt = ImageIndex.build(photos, other, rebuild=True)
    assert rebuilt.settings == {"max_num_patches": rebuilt.settings["max_num_patches"], **other.describe_vectors()}


def test_graphs_of_an_older_training_are_refused(photos, exported, model, processor):
    index = ImageIndex.build(photos, by_onnx(exported))
    trained = Embedder(type(model)(model.config), processor)  # other weights
    with pytest.raises(IncompatibleIndexError, match="which is not the model"):
        index.search("一只猫", trained)
    with pytest.raises(IncompatibleIndexError, match="which is not the model"):
        ImageIndex.build(photos, trained)


def test_indexes_that_say_only_their_patch_budget_stay_usable():
    now = {"backend": "torch", "precision": "bfloat16", "images": "naflex"}
    assert vector_kind({"max_num_patches": 64}) == vector_kind({"max_num_patches": 64, **now})
    assert vector_kind({"max_num_patches": None}) == vector_kind({"max_num_patches": None, **now, "images": "square"})
    sizes = [{"max_num_patches": None, **now, "images": "square", "image_size": [side, side]} for side in (64, 96)]
    assert vector_kind(sizes[0]) != vector_kind(sizes[1])


def test_vectors_of_fewer_bits_belong_to_the_run_time_that_made_them():
    def kind(backend, precision):
        return vector_kind({"max_num_patches": 64, "backend": backend, "precision": precision, "images": "naflex"})

    assert kind("onnx", "fp32") == kind("openvino", "fp32") == kind("torch", "float32")
    assert kind("onnx", "int8") != kind("openvino", "int8")
