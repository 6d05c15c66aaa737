"""A folder of graphs gives torch's vectors, and says what a run time has to know."""

import json

import numpy as np
import pytest
import torch

from fgclip2 import Embedder
from fgclip2.files import sha256_of_file
from fgclip2.hub.onnx.folder import MANIFEST

onnx = pytest.importorskip("onnx", reason='needs the extra: pip install "fgclip2[onnx]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='needs the extra: pip install "fgclip2[onnx]"')

pytestmark = pytest.mark.slow

TEXTS = ["A black CAT on a chair.", "一只黑猫坐在椅子上。", ""]


def run(path, output=None, **feeds):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(output and [output], feeds)


@pytest.fixture(scope="module")
def manifest(exported) -> dict:
    return json.loads((exported / MANIFEST).read_text(encoding="utf-8"))


def embedded_tokens(exported, manifest, ids, role, precision="fp32"):
    table = np.load(exported / manifest["precisions"][precision]["token_table"], mmap_mode="r")
    positions = np.load(exported / manifest["text"]["roles"][role]["positions"])
    return table[ids].astype(np.float32) + positions[: ids.shape[1]]


@pytest.mark.parametrize("role", ["caption", "long_caption", "region_phrase"])
def test_texts_of_each_role_are_those_of_torch(exported, manifest, model, processor, role):
    ids = processor.tokenize(TEXTS, role)["input_ids"]
    settings = manifest["text"]["roles"][role]
    assert ids.shape[1] == settings["length"]
    embeds = embedded_tokens(exported, manifest, ids.numpy(), role)
    (actual,) = run(exported / "fp32" / "text.onnx", settings["output"], inputs_embeds=embeds)
    with torch.no_grad():
        expected = model.get_role_features(role, ids).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_images_of_any_shape_and_their_maps_are_those_of_torch(exported, model, processor, photo):
    images = [photo, photo.rotate(90, expand=True).resize((50, 120))]
    inputs = processor.process_images(images)
    feeds = {name: (value if value.is_floating_point() else value.long()).numpy() for name, value in inputs.items()}
    with torch.no_grad():
        whole, dense = model.get_image_features(**inputs), model.get_image_dense_feature(**inputs)
    (alone,) = run(exported / "fp32" / "image.onnx", **feeds)
    beside, maps = run(exported / "fp32" / "image_dense.onnx", **feeds)
    np.testing.assert_allclose(alone, whole, atol=1e-5)
    np.testing.assert_allclose(beside, whole, atol=1e-5)
    patches = feeds["pixel_attention_mask"].astype(bool)
    assert not patches.all()  # else nothing here is padded
    np.testing.assert_allclose(maps[patches], dense.numpy()[patches], atol=1e-5)


def test_plain_squares_are_those_of_torch(exported, model):
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    (actual,) = run(exported / "fp32" / "image_square.onnx", pixel_values=pixels.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(actual, model.get_image_features(pixels), atol=1e-5)


def test_the_manifest_says_what_a_run_time_needs(exported, manifest, model, processor):
    embedder = Embedder(model, processor)
    assert manifest["fingerprint"] == embedder.fingerprint
    assert (manifest["score"]["scale"], manifest["score"]["bias"]) == embedder.score_scale_and_bias
    assert manifest["embedding_size"] == 96
    assert manifest["image_square"] == {"size": [64, 64]}
    for name, file in manifest["files"].items():
        assert file == {"bytes": (exported / name).stat().st_size, "sha256": sha256_of_file(exported / name)}
    named = {path for precision in manifest["precisions"].values() for path in precision["graphs"].values()}
    assert {path.relative_to(exported).as_posix() for path in exported.rglob("*.onnx")} == named
    for path in exported.rglob("*.onnx"):
        onnx.checker.check_model(path)


def test_graphs_take_int64_and_floats_and_share_their_weights(exported, manifest):
    for precision in manifest["precisions"].values():
        for path in precision["graphs"].values():
            graph = onnx.load(exported / path, load_external_data=False).graph
            types = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
            assert types <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    weights = sum(parameter.nbytes for name, parameter in _body(exported).items())
    assert (exported / "fp32" / "image.data").stat().st_size < 1.1 * weights  # three graphs, one copy
    assert "/work" not in (exported / "fp32" / "image.onnx").read_bytes().decode("latin-1")  # the exporter's notes


def _body(exported):
    graph = onnx.load(exported / "fp32" / "image_dense.onnx").graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_every_matrix_product_with_a_weight_has_8_bits(exported):
    for name, products in {"text": 9, "image_dense": 17}.items():
        graph = onnx.load(exported / "int8" / f"{name}.onnx", load_external_data=False).graph
        weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
        floats = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
        assert floats == (["vision_model.embeddings/MatMul"] if name == "image_dense" else [])
        assert sum(node.op_type == "MatMulNBits" for node in graph.node) == products


def test_fast_texts_keep_the_values_of_attention(exported):
    graph = onnx.load(exported / "int8-fast" / "text.onnx", load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    floats = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    assert floats == ["encoder.layers.0.self_attn.v_proj/MatMul"]
    assert not (exported / "int8-fast" / "image.onnx").exists()


def test_the_report_has_each_graph_and_precision(exported, manifest):
    report = json.loads((exported / "report.json").read_text(encoding="utf-8"))
    assert report["images"] == report["texts"] == 6
    for name, precision in manifest["precisions"].items():
        assert report["graphs"][name].keys() == precision["graphs"].keys()
        for graph, results in report["graphs"][name].items():
            assert results["seconds"] > 0
            assert results["bytes"] > 0
            for output, cosine in results["outputs"].items():
                # Random weights lose more by it than those of a model.
                least = {"fp32": 0.99999, "int8": 0.99, "int8-fast": 0.9}[name]
                assert least < cosine["lowest"] <= cosine["mean"] <= 1.000001, (name, graph, output)
    assert manifest["precisions"]["int8-fast"]["cosine"].keys() == {"caption", "long_caption", "region_phrase"}
    assert "| int8-fast | text | caption |" in (exported / "README.md").read_text(encoding="utf-8")
