"""docs/r2d2.md runs from its top in a folder with a checkpoint."""

import torch

from fgclip2 import R2D2ImageProcessor, R2D2Model, R2D2Processor, R2D2Tokenizer
from tests import golden_of_r2d2
from tests.golden_of_r2d2 import GOLDEN_R2D2

from .documents import ROOT, run_document


def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    R2D2Model(golden_of_r2d2.config(embed_dim=768)).save_pretrained(tmp_path / "r2d2")
    tokenizer = R2D2Tokenizer(vocab_file=str(GOLDEN_R2D2 / "vocab.txt"), short_length=24)
    R2D2Processor(R2D2ImageProcessor(size=32), tokenizer).save_pretrained(tmp_path / "r2d2")
    run_document(ROOT / "docs" / "r2d2.md")
