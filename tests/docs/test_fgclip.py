"""docs/fgclip.md runs from its top in a folder with a checkpoint, and its numbers are those on record."""

import json
from pathlib import Path

import pytest
import torch

from fgclip2 import FGClipConfig, FGClipModel
from fgclip2.benchmarks.published import published_numbers
from tests.checkpoints import write_json, write_official_fgclip_folder

from .documents import ROOT, run_document, tables

PAGES = [ROOT / "docs" / name for name in ("fgclip.md", "fgclip_zh.md")]


def write_small_base(folder: Path) -> None:
    """An official folder with the sizes of images, texts and vectors of fg-clip-base, and two thin random layers."""
    write_official_fgclip_folder(folder)
    official = json.loads((folder / "config.json").read_text())
    thin = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**thin, "vocab_size": official["text_config"]["vocab_size"], "eos_token_id": 519}
    torch.manual_seed(0)
    FGClipModel(FGClipConfig(text, thin, projection_dim=512)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, **{key: official[key] for key in ("model_type", "architectures")}})
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    side = {"height": 224, "width": 224}
    write_json(folder / "preprocessor_config.json", {**preprocessor, "size": {"shortest_edge": 224}, "crop_size": side})


def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_small_base(tmp_path / "fg-clip-base")
    run_document(PAGES[0])
    assert (tmp_path / "fg-clip-base-exported" / "modeling_fgclip.py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_published_numbers(page):
    """Each cell is the number, or the two numbers, of published.json; a dash where it has none."""
    *_, table = tables(page)
    models = [tuple(cell.rsplit(" ", 1)) for cell in table[0][2:]]
    for row in table[1:]:
        benchmark, _, subset = row[0].strip("`").partition(" ")
        printed = [number for number in published_numbers(benchmark) if number.source.key.startswith("fg-clip-2-table")]
        for model, cell in zip(models, row[2:], strict=True):
            values = [n.value for n in printed if (n.model, n.backbone, n.subset or "") == (*model, subset)]
            assert cell == (" / ".join(f"{100 * value:.1f}" for value in values) or "–"), (row[0], model)
