"""A Gemma-like vocabulary of 806 entries, in every kind of folder that users have."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

GEMMA_SMALL = Path(__file__).parent / "gemma_small"
FOLDER_KINDS = (
    "raw",  # as Gemma publishes it: the post-processor puts <bos> in front
    "saved_by_transformers_4_57",  # as the official checkpoints were saved: appends <eos>, flags in the config
    "resaved_by_transformers_5_23",  # the flags are lost, a pre-tokenizer is added
    "resaved_by_installed",  # <bos> again, for the flags of `raw` were not read
    "bare",  # tokenizer.json only
    "with_leftover_state",  # saved after a padded and truncated call
    "own",
)


def build_folder(kind: str, folder: Path) -> Path:
    if (GEMMA_SMALL / kind).is_dir():
        return GEMMA_SMALL / kind
    folder.mkdir()
    if kind == "own":
        FGClip2Tokenizer.from_pretrained(GEMMA_SMALL / "raw").save_pretrained(folder)
    elif kind == "resaved_by_installed":
        AutoTokenizer.from_pretrained(GEMMA_SMALL / "raw").save_pretrained(folder)
    elif kind == "with_leftover_state":
        shutil.copytree(GEMMA_SMALL / "saved_by_transformers_4_57", folder, dirs_exist_ok=True)
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        backend.enable_truncation(5, direction="left")
        backend.enable_padding(direction="left", length=9)
        backend.save(str(folder / "tokenizer.json"))
    else:
        shutil.copy(GEMMA_SMALL / "raw" / "tokenizer.json", folder)
    return folder


@pytest.fixture(params=FOLDER_KINDS)
def any_folder(request, tmp_path) -> Path:
    return build_folder(request.param, tmp_path / request.param)


@pytest.fixture(scope="session")
def tokenizer() -> FGClip2Tokenizer:
    """Read from the official kind of folder; don't change it."""
    return FGClip2Tokenizer.from_pretrained(GEMMA_SMALL / "saved_by_transformers_4_57")


@pytest.fixture(scope="session")
def expected_rows() -> list[dict]:
    """Ids that GemmaTokenizerFast of transformers 4.57.6 gave for lower-cased texts."""
    return json.loads((GEMMA_SMALL / "expected_ids.json").read_text())["rows"]
