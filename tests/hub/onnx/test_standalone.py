"""How graphs for other programs are made, and what is refused before anything is traced."""

import copy

import numpy as np
import pytest
import torch

from fgclip2.hub import export_immich, export_transformers_js
from fgclip2.hub.onnx.standalone import end_with, free_names, normalise, rename_values

from .test_graphs import onnx, product, run


def test_values_make_way_for_names_that_are_wanted():
    x = np.random.default_rng(1).standard_normal((2, 3, 64), np.float32)
    expected = run(product(), x=x)[0]
    model = product()
    free_names(model.graph, ["first"])  # a weight
    rename_values(model.graph, {"x": "first"})
    end_with(model.graph, normalise("image", "dense"), {"dense": ["batch", 3, 96]})  # the other product
    onnx.checker.check_model(model)
    np.testing.assert_allclose(
        run(model, first=x)[0], expected / np.linalg.norm(expected, axis=-1, keepdims=True), atol=1e-6
    )


@pytest.mark.parametrize(
    ("export", "arguments", "message"),
    [
        (export_transformers_js, {"precisions": ["int8-fast"]}, "must be 'fp32', 'fp16' or 'int8', got 'int8-fast'"),
        (export_transformers_js, {"square_side": 50}, "square_side must be a positive multiple of 16 pixels, got 50"),
        (export_transformers_js, {"precisions": []}, "precisions is empty: give 'fp32', 'fp16' or 'int8'"),
        (export_immich, {"precisions": ["int8-fast"]}, "must be 'fp32', 'fp16' or 'int8', got 'int8-fast'"),
        (export_immich, {"precisions": ["fp32", "int8"]}, r"\['fp32', 'int8'\]: immich reads one file for each tower"),
        (export_immich, {"square_side": 50}, "square_side must be a positive multiple of 16 pixels, got 50"),
    ],
)
def test_what_another_program_can_not_read_is_refused(model, processor, tmp_path, export, arguments, message):
    with pytest.raises(ValueError, match=message):
        export(model, processor, tmp_path / "图", **arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("export", [export_transformers_js, export_immich])
def test_other_programs_get_fgclip2_only(processor, tmp_path, export):
    with pytest.raises(ValueError, match=r"only family that can be written for .*, got Linear and FGClip2Processor"):
        export(torch.nn.Linear(2, 2), processor, tmp_path / "图")


@pytest.mark.parametrize("export", [export_transformers_js, export_immich])
def test_other_programs_resize_images(model, processor, monkeypatch, tmp_path, export):
    monkeypatch.setattr(processor.image_processor, "do_resize", False)
    with pytest.raises(ValueError, match="the processor has do_resize=False"):
        export(model, processor, tmp_path / "图")
    assert not any(tmp_path.iterdir())


def test_immich_scales_pixels_in_one_way(model, processor, tmp_path):
    processor = copy.deepcopy(processor)
    processor.image_processor.rescale_factor = 1 / 127.5
    with pytest.raises(ValueError, match=r"immich scales pixels by 1/255, but .* rescale_factor=0\.0078"):
        export_immich(model, processor, tmp_path / "图")
