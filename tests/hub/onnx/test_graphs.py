"""What is made of traced graphs, on graphs of a few nodes."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fgclip2.files import read_json
from fgclip2.hub.onnx import graphs
from fgclip2.hub.onnx.precisions import quantise
from fgclip2.hub.onnx.report import bundled_image_files, bundled_texts, measure_graph, one_by_one, write_report
from fgclip2.modeling.modeling_fgclip2 import patchify

onnx = pytest.importorskip("onnx", reason='needs the extra: pip install "fgclip2[onnx]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='needs the extra: pip install "fgclip2[onnx]"')
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto


def product(rows: int = 64, columns: int = 96):
    """Two products of one input with weights, of which the second is an output of its own."""
    generator = np.random.default_rng(0)
    weights = [generator.standard_normal((rows, columns), np.float32) for _ in range(2)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["image"], name="layers.0.mlp.fc1/MatMul"),
            helper.make_node("MatMul", ["x", "second"], ["dense"], name="layers.0.self_attn.v_proj/MatMul"),
        ],
        "图",
        [value("x", TensorProto.FLOAT, ["batch", 3, rows])],
        [value(name, TensorProto.FLOAT, ["batch", 3, columns]) for name in ("image", "dense")],
        [numpy_helper.from_array(weight, name) for weight, name in zip(weights, ("first", "second"), strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", graphs.OPSET)])
    model.ir_version = graphs.IR_VERSION
    return model


def run(source, **feeds):
    source = source.SerializeToString() if isinstance(source, onnx.ModelProto) else source
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, feeds)


def test_other_outputs_leave_with_all_that_is_theirs_alone():
    whole, kept = product(), graphs.with_outputs(product(), ["image"])
    assert [tensor.name for tensor in kept.graph.initializer] == ["first"]
    assert [node.name for node in kept.graph.node] == ["layers.0.mlp.fc1/MatMul"]
    x = np.ones((2, 3, 64), np.float32)
    np.testing.assert_array_equal(run(kept, x=x)[0], run(whole, x=x)[0])


def test_weights_are_in_a_file_that_later_graphs_read_too(tmp_path):
    x = np.ones((2, 3, 64), np.float32)
    expected = run(product(), x=x)
    model = product()
    graphs.save(model, tmp_path / "两个.onnx", "数据.data")
    (tmp_path / "一个.onnx").write_bytes(graphs.with_outputs(model, ["dense"]).SerializeToString())
    assert (tmp_path / "两个.onnx").stat().st_size < 2000
    assert 2 * 64 * 96 * 4 <= (tmp_path / "数据.data").stat().st_size < 2 * 64 * 96 * 4 + 64
    for actual, of_graph in zip(run(tmp_path / "两个.onnx", x=x), expected, strict=True):
        np.testing.assert_array_equal(actual, of_graph)
    np.testing.assert_array_equal(run(tmp_path / "一个.onnx", x=x)[0], expected[1])


def test_squares_are_cut_as_the_model_cuts_them():
    value = helper.make_tensor_value_info
    shapes = {"pixel_values": ["b", "n", 48], "pixel_attention_mask": ["b", "n"], "spatial_shapes": ["b", 2]}
    types = {name: TensorProto.FLOAT if name == "pixel_values" else TensorProto.INT64 for name in shapes}
    echo = helper.make_graph(
        [helper.make_node("Identity", [name], [f"same_{name}"]) for name in shapes],
        "echo",
        [value(name, types[name], shape) for name, shape in shapes.items()],
        [value(f"same_{name}", types[name], shape) for name, shape in shapes.items()],
    )
    model = helper.make_model(echo, opset_imports=[helper.make_opsetid("", graphs.OPSET)])
    model.ir_version = graphs.IR_VERSION
    pixels = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    patches, mask, grids = run(graphs.for_squares(model, 12, 4), pixel_values=pixels.numpy())
    expected, shapes = patchify(pixels, 4)
    np.testing.assert_array_equal(patches, expected)
    np.testing.assert_array_equal(mask, np.ones((2, 9)))
    np.testing.assert_array_equal(grids, shapes)
    with pytest.raises(ValueError, match="positive multiple of 4 pixels, got 10"):
        graphs.for_squares(model, 10, 4)


@pytest.mark.parametrize(("precision", "kept", "least"), [("int8", 0, 0.9999), ("int8-fast", 1, 0.99)])
def test_8_bits_stay_near_and_leave_the_log_alone(precision, kept, least, caplog):
    x = np.random.default_rng(1).standard_normal((2, 3, 64), np.float32)
    expected = run(product(), x=x)
    caplog.set_level(logging.INFO)
    model = quantise(product(), precision, is_image=False)
    assert sum(node.op_type == "MatMul" for node in model.graph.node) == kept  # the values of attention
    for actual, of_graph in zip(run(model, x=x), expected, strict=True):
        cosine = (actual * of_graph).sum() / np.linalg.norm(actual) / np.linalg.norm(of_graph)
        assert cosine > least
    assert not caplog.records
    logging.getLogger("of somebody else").info("still heard")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("is_image", "expected"), [(True, []), (False, [4, 4])])
def test_8_bit_weights_leave_the_inputs_of_images_in_float32(is_image, expected):
    model = quantise(product(), "int8", is_image)
    settings = [attribute for node in model.graph.node for attribute in node.attribute]
    levels = [attribute.i for attribute in settings if attribute.name == "accuracy_level"]
    assert levels == expected


def test_fast_images_are_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"images have no precision 'int8-fast'.*cosine.* 0\.25; use 'int8'"):
        quantise(product(), "int8-fast", is_image=True)


def test_a_graph_is_measured_in_a_process_of_its_own(tmp_path):
    graphs.save(product(), tmp_path / "图.onnx", "图.data")
    request = {"graph": str(tmp_path / "图.onnx"), "output": "image", "shapes": {"x": [2, 3, 64]}, "runs": 1}
    measured = measure_graph(request)
    assert measured["seconds"] > 0
    assert measured["peak_bytes"] is None or measured["peak_bytes"] > 10e6
    with pytest.raises(RuntimeError, match=r"没有\.onnx can't be measured"):
        measure_graph({**request, "graph": "没有.onnx"})


def test_bundled_texts_and_images_are_many_in_both_languages():
    texts = bundled_texts(200)
    assert len(set(texts)) == 200
    assert 80 < sum(text.isascii() for text in texts) < 120
    assert max(map(len, texts[:4])) > 60  # long captions come first
    assert len(bundled_image_files(12)) == 12


def test_the_report_counts_what_there_was_to_compare(tmp_path):
    comparison = SimpleNamespace(items=10**6, run=dict, folder=tmp_path, manifest={"title": "FG-CLIP 2"})
    write_report(comparison, "图")
    report = read_json(tmp_path / "report.json")
    assert 200 <= report["images"] == len(bundled_image_files(10**6)) < 10**6
    assert 200 <= report["texts"] == len(bundled_texts(10**6)) < 10**6


def test_texts_alone_have_no_padding_for_others():
    feeds = {"inputs_embeds": np.arange(24.0).reshape(2, 6, 2), "end_index": np.array([2, 5])}
    first, second = one_by_one(feeds)
    assert np.array_equal(first["inputs_embeds"], feeds["inputs_embeds"][:1, :3])
    assert np.array_equal(second["inputs_embeds"], feeds["inputs_embeds"][1:])
    assert second["end_index"] == [5]
