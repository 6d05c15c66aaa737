"""The fast way to the ids of many texts gives what the tokenizer itself gives, in every family."""

import pytest
import torch

from fgclip2 import FGClip2Processor, FGClipTokenizer, R2D2Tokenizer, embedded_checkpoint
from fgclip2.modeling.text_tokenizer import LONG_TEXT
from tests.golden_of_r2d2 import GOLDEN_R2D2
from tests.tokenization.clip_vocabulary import write_tiny_vocabulary

TEXTS = ["A red CAT", "", "红猫和一只狗", "x " * 400, "桌上" * 300, "<eos> a <pad> b [SEP]"]
TEXTS += ["a cat " * (LONG_TEXT // 5)]


@pytest.fixture(params=["fgclip2", "fgclip", "r2d2"])
def tokenizer(request, tmp_path):
    if request.param == "fgclip2":
        return FGClip2Processor.from_pretrained(embedded_checkpoint()).tokenizer
    if request.param == "fgclip":
        return FGClipTokenizer.from_pretrained(write_tiny_vocabulary(tmp_path / "vocabulary"))
    return R2D2Tokenizer(vocab_file=str(GOLDEN_R2D2 / "vocab.txt"), short_length=24)


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], TEXTS[1:2]])
def test_the_ids_are_the_same(tokenizer, texts):
    walks = (None,) if tokenizer.long_length is None else (None, "short", "box", "long")
    for walk_type in walks:
        options = {} if walk_type is None else {"walk_type": walk_type}
        expected = tokenizer(texts, return_tensors="pt", **options)
        found = tokenizer.encode_texts(texts, walk_type)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert found[name].dtype == torch.int64
            assert torch.equal(found[name], values)


def test_after_a_call_that_split_special_tokens(tokenizer):
    expected = tokenizer.encode_texts(TEXTS)["input_ids"]
    tokenizer(TEXTS, split_special_tokens=True)
    assert torch.equal(tokenizer.encode_texts(TEXTS)["input_ids"], expected)


def test_wrong_texts_are_named(tokenizer):
    with pytest.raises(ValueError, match="empty list"):
        tokenizer.encode_texts([])
    with pytest.raises(ValueError, match=r"text\[1\] must be a string, got int 3"):
        tokenizer.encode_texts(["a", 3])
