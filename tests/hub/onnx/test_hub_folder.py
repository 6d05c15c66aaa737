"""Graphs beside the weights of a folder: they are loaded where neither torch nor this package can be imported."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fgclip2.hub import export_checkpoint, verify_folder

PACKAGE = Path(__file__).parents[3] / "packages" / "fgclip2-onnx" / "src"


@pytest.mark.slow
def test_graphs_are_verified_and_the_card_says_how_to_run_them(model, processor, exported, tmp_path, monkeypatch):
    precisions = ["fp32", "int8", "int8-fast"]
    monkeypatch.setattr("fgclip2.hub.export.export_onnx", lambda *given, **_: shutil.copytree(exported, given[2]))
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE))
    folder = export_checkpoint(model, processor, tmp_path / "图", onnx=precisions)
    differences = verify_folder(folder)
    assert {f"fgclip2_onnx {precision}" for precision in precisions} <= differences.keys()
    assert differences["fgclip2_onnx fp32"] < 1e-5 < differences["fgclip2_onnx int8"]

    card = (folder / "README.md").read_text(encoding="utf-8")
    for snippet in re.findall(r"```python\n(from fgclip2_onnx.*?)```", card, re.DOTALL):
        image = "from PIL import Image\nimage = Image.new('RGB', (64, 48), 'red')\n"
        code = f"{image}{snippet}\nassert [rows.shape for rows in vectors] == [(1, 96), (2, 96)]"
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)

    positions = folder / "onnx" / "positions_short.npy"
    np.save(positions, np.load(positions)[::-1])
    with pytest.raises(ValueError, match=r"fgclip2_onnx (fp32 gives other vectors of|can't load)"):
        verify_folder(folder)
