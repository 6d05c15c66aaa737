"""What can't be exported is refused before anything is traced or written."""

import pytest
import torch

from fgclip2.hub import export_onnx


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precisions": ["int8-fast"]}, r"precisions=\['int8-fast'\] has none for images.*cosine.*0\.25"),
        ({"precisions": ["int4"]}, "precisions must be 'fp32', 'fp16', 'int8' or 'int8-fast', got 'int4'"),
        ({"square_side": 50}, "square_side must be a positive multiple of 16 pixels, got 50"),
    ],
)
def test_what_can_not_be_is_refused(model, processor, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(model, processor, tmp_path / "图", **arguments)
    assert not any(tmp_path.iterdir())


def test_a_model_of_another_kind_is_refused(processor, tmp_path):
    with pytest.raises(ValueError, match="got Linear and FGClip2Processor"):
        export_onnx(torch.nn.Linear(2, 2), processor, tmp_path / "图")


def test_a_processor_that_does_not_resize_is_refused(model, processor, tmp_path, monkeypatch):
    monkeypatch.setattr(processor.image_processor, "do_resize", False)
    with pytest.raises(ValueError, match="the processor has do_resize=False, which run times of graphs don't know"):
        export_onnx(model, processor, tmp_path / "图")
