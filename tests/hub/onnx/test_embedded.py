"""The bounds that the graphs of real weights keep, and FG-CLIP, the first version. Minutes of CPU time."""

import json

import pytest

from fgclip2 import FGClip2Model, FGClip2Processor, FGClipModel, FGClipProcessor
from fgclip2.assets import embedded_checkpoint
from fgclip2.hub import export_onnx

pytest.importorskip("onnx", reason='needs the extra: pip install "fgclip2[onnx]"')
pytestmark = pytest.mark.slow

# Lowest and mean cosine to torch on 200 bundled pictures and 200 texts.
BOUNDS = {
    "fp32": (0.999999, 0.999999),
    "fp16": (0.9999, 0.99999),
    "int8": (0.998, 0.9995),
    "int8-fast": (0.998, 0.9995),
}


def cosines(folder) -> list[tuple[str, str, str, float, float]]:
    graphs = json.loads((folder / "report.json").read_text(encoding="utf-8"))["graphs"]
    return [
        (precision, graph, output, cosine["lowest"], cosine["mean"])
        for precision, of_precision in graphs.items()
        for graph, results in of_precision.items()
        for output, cosine in results["outputs"].items()
    ]


def test_graphs_of_the_embedded_checkpoint_keep_their_bounds(tmp_path):
    model = FGClip2Model.from_pretrained(embedded_checkpoint())
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    folder = export_onnx(model, processor, tmp_path / "图", list(BOUNDS))
    rows = cosines(folder)
    assert len(rows) == 3 * 4 + 3 * 4
    for precision, graph, output, lowest, mean in rows:
        assert lowest >= BOUNDS[precision][0], (precision, graph, output, lowest)
        assert mean >= BOUNDS[precision][1], (precision, graph, output, mean)


def test_graphs_of_the_first_version_keep_their_bounds(converted_fgclip_folder, tmp_path):
    model = FGClipModel.from_pretrained(converted_fgclip_folder)
    processor = FGClipProcessor.from_pretrained(converted_fgclip_folder)
    folder = export_onnx(model, processor, tmp_path / "图", ["fp32", "int8"], compared_items=20)
    rows = cosines(folder)
    assert {(graph, output) for _, graph, output, _, _ in rows} == {
        ("text", "caption"),
        ("text", "long_caption"),
        ("image", "image"),
        ("image_dense", "image"),
        ("image_dense", "dense"),
    }
    for precision, graph, output, lowest, _ in rows:
        assert lowest >= BOUNDS[precision][0], (precision, graph, output, lowest)
    settings = json.loads((folder / "fgclip2_onnx.json").read_text(encoding="utf-8"))
    assert settings["text"]["roles"]["region_phrase"]["output"] == "caption"
    assert settings["text"]["needs_end_index"]
    assert settings["image_square"] is None
    with pytest.raises(ValueError, match="square_side=64, but all images of this family are squares"):
        export_onnx(model, processor, tmp_path / "方", square_side=64)
