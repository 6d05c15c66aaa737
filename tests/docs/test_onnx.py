"""docs/onnx.md runs from its top and prints what it says."""

import pytest

from .documents import ROOT, run_document


@pytest.mark.slow
def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason='needs the extra: pip install "fgclip2[onnx]"')
    monkeypatch.chdir(tmp_path)
    variables = run_document(ROOT / "docs" / "onnx.md")
    assert variables["vectors"].shape == (2, 192)
