"""OnnxEmbedder, and Embedder on the same graphs, against Embedder on torch."""

import copy
import inspect
import json
import os
import pickle
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgclip2 import Embedder, FGClip2Embedder
from fgclip2.embedding import BaseEmbedder
from fgclip2.embedding.backends import onnx as back_end
from fgclip2.embedding.fingerprint import files_fingerprint
from fgclip2.search import ImageIndex
from fgclip2_onnx import MANIFEST, OnnxEmbedder, UnreadableImageError
from tests.interpreters import run_python

PACKAGE = Path(__file__).parents[2] / "packages" / "fgclip2-onnx" / "src"
TEXTS = ["A black CAT on 2 tables.", "一只黑猫，坐在 2 张桌上。", "红色的碗 " * 90]
LABELS = ["一只猫", "a dog", "红色的碗"]
BOXES = [[[10, 10, 90, 100], [-5, 0, 160, 120]], [[20, 20, 41.5, 60]], []]
ONLY_TORCH = {"from_pretrained", "save_pretrained", "to", "device", "dtype", "family"}


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    small = (generator.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((6, 8), (15, 5), (4, 4)))
    return [Image.fromarray(pixels).resize((20 * pixels.shape[1], 20 * pixels.shape[0]), 3) for pixels in small]


@pytest.fixture(scope="module")
def by_torch(model, processor):
    return Embedder(model, processor, name="tiny")


@pytest.fixture(scope="module")
def by_onnx(exported):
    return OnnxEmbedder.from_pretrained(exported)


@pytest.fixture(scope="module", params=["fgclip2_onnx", "fgclip2"])
def embedder(request, exported):
    if request.param == "fgclip2_onnx":
        return OnnxEmbedder.from_pretrained(exported, precision="fp32")
    return Embedder.from_pretrained(exported, backend="onnx")


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_every_method_gives_what_torch_gives(embedder, by_torch, images):
    for budget in (None, "auto", 20):
        close(embedder.encode_images(images, budget), by_torch.encode_images(images, budget))
    close(embedder.encode_texts(TEXTS), by_torch.encode_texts(TEXTS))
    close(embedder.encode_texts(LABELS, role="region_phrase"), by_torch.encode_texts(LABELS, role="region_phrase"))
    for ours, expected in zip(
        embedder.encode_regions(images, BOXES), by_torch.encode_regions(images, BOXES), strict=True
    ):
        close(ours, expected)
    close(embedder.classify(images, LABELS, "一张{}的照片"), by_torch.classify(images, LABELS, "一张{}的照片"))
    close(
        embedder.classify_regions(images[0], BOXES[0], LABELS), by_torch.classify_regions(images[0], BOXES[0], LABELS)
    )
    for resize in (True, False):
        for ours, expected in zip(
            embedder.heatmap(images, LABELS, resize), by_torch.heatmap(images, LABELS, resize), strict=True
        ):
            close(ours, expected)
    hits, expected_hits = (one.rerank("a red box, 右侧有一只猫", images) for one in (embedder, by_torch))
    assert [hit.index for hit in hits] == [hit.index for hit in expected_hits]
    for hit, expected in zip(hits, expected_hits, strict=True):
        assert [match.text for match in hit.phrases] == [match.text for match in expected.phrases]
        close([match.cosine for match in hit.phrases], [match.cosine for match in expected.phrases])
        assert [match.box for match in hit.phrases] == [match.box for match in expected.phrases]


BY_OPENVINO = """
import sys
import numpy as np
from fgclip2 import Embedder

embedder = Embedder.from_pretrained(sys.argv[1], backend="openvino")
assert embedder.describe_vectors() == {"backend": "openvino", "precision": "fp32", "images": "naflex"}
with np.load(sys.argv[2]) as arrays:
    images = [arrays[name] for name in arrays.files]
texts, box = ["A black CAT on 2 tables.", "一只黑猫，坐在 2 张桌上。"], [10, 10, 70, 60]
found = {"images": embedder.encode_images(images, 20), "texts": embedder.encode_texts(texts)}
found |= {"labels": embedder.encode_texts(texts, role="region_phrase")}
found |= {"regions": embedder.encode_regions(images[0], [box]), "heat": embedder.heatmap(images[0], texts)}
found |= {"hits": [hit.reranked for hit in embedder.rerank("a red box, 右侧有一只猫", images)]}
np.savez(sys.argv[3], **found)
"""


def test_openvino_gives_what_torch_gives(exported, by_torch, images, tmp_path):
    """In a process of its own: one that has used OpenVINO and torch later crashed where others forked or trained."""
    np.savez(tmp_path / "images.npz", *map(np.asarray, images))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])}
    done = run_python("-c", BY_OPENVINO, exported, tmp_path / "images.npz", tmp_path / "found.npz", env=env)
    assert done.returncode == 0, done.stderr
    texts, box = TEXTS[:2], [10, 10, 70, 60]
    with np.load(tmp_path / "found.npz") as found:
        close(found["images"], by_torch.encode_images(images, 20))
        close(found["texts"], by_torch.encode_texts(texts))
        close(found["labels"], by_torch.encode_texts(texts, role="region_phrase"))
        close(found["regions"], by_torch.encode_regions(images[0], [box]))
        close(found["heat"], by_torch.heatmap(images[0], texts))
        expected = [hit.reranked for hit in by_torch.rerank("a red box, 右侧有一只猫", images)]
        np.testing.assert_allclose(found["hits"], expected, atol=1e-4)


def test_the_interface_is_that_of_the_embedder():
    public = {name for name in dir(Embedder) if not name.startswith("_")} - ONLY_TORCH
    assert public <= {*dir(OnnxEmbedder)}
    methods = [name for name in public if inspect.isfunction(getattr(BaseEmbedder, name, None))]
    assert len(methods) > 10
    for name in methods:
        ours, theirs = (inspect.signature(getattr(owner, name)).parameters for owner in (OnnxEmbedder, Embedder))
        # Defaults may be functions, of which each package has its own.
        assert [(one.name, one.kind) for one in ours.values()] == [(one.name, one.kind) for one in theirs.values()]


def test_it_knows_its_checkpoint(embedder, by_torch):
    assert embedder.fingerprint == by_torch.fingerprint
    assert embedder.weights_fingerprint == by_torch.weights_fingerprint
    assert embedder.describe_vectors() == {"backend": "onnx", "precision": "fp32", "images": "naflex"}
    assert by_torch.describe_vectors() == {"backend": "torch", "precision": "float32", "images": "naflex"}


def test_a_calibration_is_used_by_the_graphs_that_give_its_vectors(exported, by_torch, by_onnx, caplog):
    texts = ["一只黑猫", "a black cat"]
    for embedder in (by_onnx, Embedder.from_pretrained(exported, backend="onnx")):
        found = embedder.match_probabilities(np.zeros((1, 2)), texts)
        assert found[0, 0] == pytest.approx(0.75)
        assert np.isnan(found[0, 1])  # there is no curve of English
    assert not caplog.text
    for settings in ({"precision": "int8"}, {"images": "square"}, {"precision": "int8-fast"}):
        for load in (OnnxEmbedder.from_pretrained, partial(Embedder.from_pretrained, backend="onnx")):
            embedder = load(exported, **settings)
            assert embedder.calibration is None
            assert "calibration.json is not used: it is of vectors in fp32 and of images in their own" in caplog.text
            caplog.clear()
            embedder.use_calibration(exported / "calibration.json")  # by a user who knows better
            assert embedder.calibration is not None


def test_squares_are_other_vectors(exported, by_onnx, images):
    squares = OnnxEmbedder.from_pretrained(exported, images="square")
    vectors = squares.encode_images(images)
    close(vectors, Embedder.from_pretrained(exported, backend="onnx", images="square").encode_images(images))
    assert np.abs(vectors - by_onnx.encode_images(images)).max() > 1e-3
    assert squares.describe_vectors()["images"] == "square"
    for lacking in (lambda: squares.heatmap(images, "一只猫"), lambda: squares.encode_regions(images, BOXES)):
        with pytest.raises(ValueError, match="no graph for dense features of images='square': leave out images='sq"):
            lacking()


def test_texts_of_a_fast_precision_go_with_images_of_another(exported, by_onnx, images):
    fast = OnnxEmbedder.from_pretrained(exported, precision="int8-fast")
    assert fast.describe_vectors()["precision"] == "int8"
    assert "texts int8-fast, images int8" in repr(fast)
    assert (np.sum(fast.encode_texts(TEXTS) * by_onnx.encode_texts(TEXTS), axis=1) > 0.9).all()
    close(fast.encode_images(images), OnnxEmbedder.from_pretrained(exported, "int8").encode_images(images))


def test_a_text_of_a_fast_precision_does_not_depend_on_those_beside_it(exported):
    fast = OnnxEmbedder.from_pretrained(exported, precision="int8-fast")
    together = fast.encode_texts(LABELS, role="caption")
    assert np.array_equal(together, np.stack([fast.encode_texts(label, role="caption") for label in LABELS]))


def test_values_that_are_not_finite_are_an_error(embedder, images, monkeypatch):
    features = np.full((1, embedder.embedding_size), np.nan, np.float32)
    graphs = getattr(embedder.model, "graphs", embedder.model)
    dense = np.full((1, 1024, embedder.embedding_size), np.nan, np.float32)
    monkeypatch.setattr(graphs, "image_features", lambda inputs: features)
    monkeypatch.setattr(graphs, "text_features", lambda role, ids: features)
    monkeypatch.setattr(graphs, "dense_features", lambda inputs: dense)
    monkeypatch.setattr(graphs, "image_and_dense_features", lambda inputs: (features, dense))
    for call in (
        lambda: embedder.encode_images(images[0]),
        lambda: embedder.encode_regions(images[0], BOXES[0]),
        lambda: next(embedder.stream_dense_maps(images[:1])),
    ):
        with pytest.raises(RuntimeError, match=r"images\[0\]: the model gave values that are not finite"):
            call()
    with pytest.raises(RuntimeError, match=r"texts\[0\]: the model gave values that are not finite"):
        embedder.encode_texts("一只猫")


def test_copies_open_their_graphs_anew(embedder, images):
    expected = embedder.encode_images(images[0])
    for twin in (copy.deepcopy(embedder), pickle.loads(pickle.dumps(embedder))):
        assert repr(twin) == repr(embedder)
        assert np.array_equal(twin.encode_images(images[0]), expected)


def test_a_folder_is_found_from_another_working_folder(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(exported.parent)
    embedder = OnnxEmbedder.from_pretrained(exported.name)
    monkeypatch.chdir(tmp_path)
    assert embedder.encode_texts("一只猫").shape == (embedder.embedding_size,)


def test_reprs_name_the_precision(exported):
    assert repr(Embedder.from_pretrained(exported, backend="onnx", precision="int8")).endswith("D=96, cpu, int8)")
    fast = Embedder.from_pretrained(exported, backend="onnx", precision="int8-fast", device="cpu:0")
    assert repr(fast).endswith("D=96, cpu, texts int8-fast, images int8)")


def test_bad_images_and_boxes_are_named(by_onnx, images, tmp_path):
    (tmp_path / "坏.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"images\[1\]: .*坏.png"):
        by_onnx.encode_images([images[0], tmp_path / "坏.png"])
    vectors, skipped = by_onnx.encode_images([images[0], tmp_path / "坏.png"], on_error="skip")
    assert len(vectors) == 1
    assert skipped[0].index == 1
    with pytest.raises(ValueError, match=r"boxes\[0\]\[0\].*has no area"):
        by_onnx.encode_regions(images[0], [[5, 5, 5, 9]])


def test_wrong_folders_and_settings_are_named(exported, tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"has no fgclip2_onnx\.json, so it is no ONNX folder"):
        OnnxEmbedder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="precision must be 'fp32', 'int8' or 'int8-fast', got 'fp8'"):
        OnnxEmbedder.from_pretrained(exported, precision="fp8")
    with pytest.raises(ValueError, match="images must be 'naflex' or 'square', got 'round'"):
        OnnxEmbedder.from_pretrained(exported, images="round")
    with pytest.raises(ValueError, match="backend must be 'torch', 'onnx' or 'openvino', got 'tensorrt'"):
        Embedder.from_pretrained(exported, backend="tensorrt")
    with pytest.raises(ValueError, match="settings of graphs: leave them out, or add backend='onnx'"):
        Embedder.from_pretrained(exported, precision="int8")
    with pytest.raises(ValueError, match=r"needs an exported folder: Embedder.from_pretrained\(OUT, backend='onnx'\)"):
        Embedder.from_pretrained(backend="onnx")
    with pytest.raises(ValueError, match=r"FGClip2Embedder runs a model of torch: use Embedder.from_pretrained"):
        FGClip2Embedder.from_pretrained(exported, backend="onnx")
    with pytest.raises(ValueError, match="is an exported ONNX folder: add backend='onnx'"):
        Embedder.from_pretrained(exported)
    with pytest.raises(ValueError, match="opens a folder, which takes no token or revision: leave it out"):
        Embedder.from_pretrained(exported, backend="onnx", revision="main", token="hf_a")
    for providers in ("CPUExecutionProvider", []):
        with pytest.raises(ValueError, match=r"providers must be a list such as \['CPUExecutionProvider'\], got"):
            OnnxEmbedder.from_pretrained(exported, providers=providers)
    with pytest.raises(ValueError, match=r"providers must be .*'CPUExecutionProvider'.*, got 'NPU'"):
        OnnxEmbedder.from_pretrained(exported, providers=["NPU"])
    with pytest.raises(ValueError, match=r"providers=\['CPUExecutionProvider'\] are of onnxruntime: leave them out"):
        OnnxEmbedder.from_pretrained(exported, providers=["CPUExecutionProvider"], runtime="openvino")
    with pytest.raises(ValueError, match="threads must be a positive integer, got 0"):
        OnnxEmbedder.from_pretrained(exported, threads=0)
    with pytest.raises(ValueError, match="runtime must be 'onnxruntime' or 'openvino', got 'tensorrt'"):
        OnnxEmbedder.from_pretrained(exported, runtime="tensorrt")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        with pytest.raises(ImportError, match=r'needs OpenVINO: pip install "fgclip2-onnx\[openvino\]"'):
            OnnxEmbedder.from_pretrained(exported, runtime="openvino")
        with pytest.raises(ImportError, match=r'openvino is not installed; run: pip install "fgclip2\[openvino\]"'):
            Embedder.from_pretrained(exported, backend="openvino")
    with pytest.raises(ValueError, match="graphs can't be saved as a checkpoint: copy the folder"):
        Embedder.from_pretrained(exported, backend="onnx").save_pretrained(tmp_path / "新")
    with pytest.raises(AttributeError, match=r"to index folders .* Embedder\.from_pretrained"):
        ImageIndex.build(tmp_path, OnnxEmbedder.from_pretrained(exported))
    with pytest.raises(ValueError, match="run on the device cpu in float32"):
        Embedder.from_pretrained(exported, dtype="bfloat16", backend="onnx")


def empty(path):
    """Make a JSON file an empty object of the same size."""
    path.write_bytes(b"{}".ljust(path.stat().st_size))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / "fp32" / "image.data").write_bytes(b"short"), ValueError, "has 5 bytes instead of"),
        (lambda folder: (folder / "fp32" / "image.onnx").unlink(), OSError, "image.onnx is missing"),
        (lambda folder: empty(folder / "tokenizer.json"), ValueError, "is no tokenizer"),
        (lambda folder: (folder / MANIFEST).write_text('{"format": 9}'), ValueError, "must have the format 1, got 9"),
    ],
)
def test_damaged_folders_are_named(damage, error, message, exported, images, tmp_path):
    shutil.copytree(exported, tmp_path / "坏")
    damage(tmp_path / "坏")
    with pytest.raises(error, match=message):
        OnnxEmbedder.from_pretrained(tmp_path / "坏").encode_images(images[0])


def with_manifest(exported, folder, change):
    """Copy an exported folder with links to its files, and change its manifest."""
    shutil.copytree(exported, folder, copy_function=lambda source, copied: Path(copied).symlink_to(source))
    manifest = json.loads((exported / MANIFEST).read_text(encoding="utf-8"))
    change(manifest)
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.pop("text"), "text is missing"),
        (lambda manifest: manifest["text"]["roles"]["caption"].pop("length"), "text.roles.caption.length is missing"),
        (lambda manifest: manifest.update(precisions={}), "precisions has the value {}"),
        (lambda manifest: manifest["score"].update(scale="1"), "score.scale has the value '1'"),
    ],
)
def test_damaged_manifests_are_named_with_their_key(change, message, exported, tmp_path):
    folder = with_manifest(exported, tmp_path / "坏", change)
    with pytest.raises(ValueError, match=f"fgclip2_onnx.json is damaged, {message}: export it again"):
        OnnxEmbedder.from_pretrained(folder)


def test_damage_that_leaves_the_size_is_found_on_demand(exported, tmp_path):
    assert OnnxEmbedder.from_pretrained(exported, verify=True).model.folder == exported
    folder = with_manifest(exported, tmp_path / "坏", lambda manifest: None)
    content = bytearray((exported / "fp32" / "image.data").read_bytes())
    content[99] ^= 1
    (folder / "fp32" / "image.data").unlink()
    (folder / "fp32" / "image.data").write_bytes(content)
    with pytest.raises(ValueError, match=r"image\.data is damaged, its SHA-256 is not"):
        OnnxEmbedder.from_pretrained(folder, verify=True)


def test_a_folder_of_texts_alone_says_what_it_lacks(exported, images, by_onnx, tmp_path):
    def only_texts(manifest):
        for precision in manifest["precisions"].values():
            precision["graphs"] = {"text": precision["graphs"]["text"]}

    folder = with_manifest(exported, tmp_path / "文", only_texts)
    calls = {"encode_images": (images,), "encode_regions": (images, BOXES), "heatmap": (images, "猫")}
    for embedder in (OnnxEmbedder.from_pretrained(folder), Embedder.from_pretrained(folder, backend="onnx")):
        close(embedder.encode_texts(LABELS), by_onnx.encode_texts(LABELS))
        for name, arguments in calls.items():
            with pytest.raises(ValueError, match=r"FG-CLIP 2.* has no graph for images in .*文, only for texts"):
                getattr(embedder, name)(*arguments)


def test_files_outside_the_folder_are_refused(exported, images, tmp_path):
    shutil.copytree(exported, tmp_path / "out")
    manifest = json.loads((exported / MANIFEST).read_text(encoding="utf-8"))
    manifest["precisions"]["fp32"]["graphs"]["image"] = "../image.onnx"
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ValueError, match=r"names the file '../image.onnx', which lies outside its folder"):
        OnnxEmbedder.from_pretrained(tmp_path / "out").encode_images(images[0])


def test_graphs_of_other_weights_than_those_beside_them_are_refused(exported, by_torch, tmp_path, monkeypatch):
    by_torch.save_pretrained(tmp_path / "模型")
    shutil.copytree(exported, tmp_path / "模型" / "onnx")
    assert files_fingerprint(tmp_path / "模型") == by_torch.weights_fingerprint
    with monkeypatch.context() as patch:  # files tell, so no model is made
        patch.delattr(back_end, "load_checkpoint")
        same = Embedder.from_pretrained(tmp_path / "模型", backend="onnx")
    assert same.fingerprint == by_torch.fingerprint
    manifest = json.loads((exported / MANIFEST).read_text(encoding="utf-8"))
    manifest["weights_fingerprint"] = "0" * 64  # as if the weights had been trained after the export
    (tmp_path / "模型" / "onnx" / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ValueError, match="were exported from other weights than those in"):
        Embedder.from_pretrained(tmp_path / "模型", backend="onnx")


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "fgclip2", "tqdm"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import numpy as np
from fgclip2_onnx import OnnxEmbedder

embedder = OnnxEmbedder.from_pretrained(sys.argv[1])
image = np.zeros((40, 60, 3), np.uint8)
regions = embedder.encode_regions(image, [[1, 2, 30, 40]])
vectors = [embedder.encode_images(image), embedder.encode_texts("一只猫"), regions[0]]
hits = embedder.rerank("a cat, 红色的碗", [image])
OnnxEmbedder.from_pretrained(sys.argv[1], runtime="openvino").encode_texts("一只猫")
np.save(sys.argv[2], np.stack(vectors))
"""


def test_it_runs_where_torch_and_transformers_are_blocked(exported, by_torch, tmp_path):
    output, home = tmp_path / "vectors.npy", tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-c", BLOCKED, str(exported), str(output)]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(PACKAGE), "HOME": str(home)}, cwd=tmp_path)
    assert not [*home.iterdir()]  # where telemetry keeps its identifiers
    image = np.zeros((40, 60, 3), np.uint8)
    expected = [by_torch.encode_images(image), by_torch.encode_texts("一只猫")]
    close(np.load(output), np.stack([*expected, by_torch.encode_regions(image, [[1, 2, 30, 40]])[0]]))
