"""Pictures with Chinese and English names, and the command run on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fgclip2 import FGClip2Embedder
from fgclip2.cli.main import app
from tests.checkpoints import official_folder, saved_folder

__all__ = ["official_folder", "saved_folder"]


@pytest.fixture(scope="session")
def embedder(saved_folder) -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(saved_folder, device="cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder: `照片/黑猫.png`, `照片/dog.png`, `photo.png` and a broken `坏.png`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "照片").mkdir()
    for seed, name in enumerate(["照片/黑猫.png", "照片/dog.png", "photo.png"]):
        colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colors).resize((160, 96), Image.Resampling.BICUBIC).save(name)
    Path("坏.png").write_bytes(b"not a picture")
    return tmp_path


class Command:
    """`fgclip2 ... --model CHECKPOINT`, in this process."""

    def __init__(self, checkpoint: Path):
        self.checkpoint = checkpoint

    def __call__(self, *arguments: Any, code: int = 0, model: bool = True, stdin: str | None = None) -> Any:
        everything = [str(each) for each in arguments] + (["--model", str(self.checkpoint)] if model else [])
        result = CliRunner().invoke(app, everything, input=stdin)
        assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        if code == 1 and result.stderr:
            assert result.stderr.splitlines()[-1].startswith("fgclip2: ")
            assert "Traceback" not in result.stderr
        return result

    def json(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        return json.loads(self(*arguments, "--json", **options).stdout)


@pytest.fixture
def run(folder, saved_folder) -> Command:
    return Command(saved_folder)
