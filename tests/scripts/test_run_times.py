"""The table of run times: it is what was measured, and the page has its figures."""

import json

import pytest

from scripts.run_times.__main__ import RUN_TIMES, markdown

from ..docs.documents import ROOT, read, tables

FOLDER = ROOT / "docs" / "run_times"


@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "avx2"], ids=lambda folder: folder.name)
def test_a_table_has_what_was_measured(folder):
    content = json.loads((folder / "run_times.json").read_text(encoding="utf-8"))
    assert read(folder / "run_times.md") == markdown(content["results"], content["machine"])


def test_the_pages_have_what_was_measured():
    results = json.loads((FOLDER / "run_times.json").read_text(encoding="utf-8"))["results"]
    assert list(results) == [run_time.name for run_time in RUN_TIMES]
    for page in ("onnx.md", "onnx_zh.md"):
        (table,) = (table for table in tables(ROOT / "docs" / page) if table[1][0] == RUN_TIMES[0].name)
        for name, images, texts, _, _, peak in table[1:]:
            its = results[name]
            assert (images, texts) == (f"{its['images, time']:.2f}", f"{its['texts, time']:.2f}")
            assert peak == (f"{its['peak, MB']:.0f}" if "peak, MB" in its else "-")
