"""docs/immich.md writes the folder that it describes."""

import re

import pytest

from .documents import ROOT, read, run_document


@pytest.mark.slow
def test_the_folder_has_the_files_of_the_page(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason='needs the extra: pip install "fgclip2[onnx]"')
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "immich.md"
    run_document(page)
    folder = tmp_path / "fg-clip2-small"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(re.findall(r"`((?:\w+/)?\w+\.(?:json|onnx|data))`", read(page))) == files
