"""The tokenizer of FG-CLIP, the first version: official ids, lengths, folders of every kind, wrong inputs."""

import json
import random
import shutil

import pytest
from tokenizers import Tokenizer, models
from transformers import CLIPTokenizerFast, DataCollatorWithPadding, PreTrainedTokenizerFast

from fgclip2 import FGClipTokenizer
from tests.golden_of_v1 import tokenizer_rows
from tests.tokenization.clip_vocabulary import write_clip_vocabulary, write_tiny_vocabulary

EN, ZH = "A Cat and\ta  DOG, photographed.", "一只黑猫趴在窗台上，旁边是一盆绿植。"
START, END = 518, 519


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with vocab.json and merges.txt. Don't write into it."""
    return write_tiny_vocabulary(tmp_path_factory.mktemp("tokenizers") / "two_files")


@pytest.fixture(scope="module")
def tokenizer(folder) -> FGClipTokenizer:
    return FGClipTokenizer.from_pretrained(folder)


@pytest.mark.slow
def test_official_ids(tmp_path):
    folder = write_clip_vocabulary(tmp_path / "clip", tmp_path / "downloads")
    tokenizer = FGClipTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(tmp_path / "saved")
    rows = tokenizer_rows()
    texts = [row["text"] for row in rows]
    for loaded in (tokenizer, FGClipTokenizer.from_pretrained(tmp_path / "saved")):
        for length, walk in ((77, "short"), (77, "box"), (248, "long")):
            expected = [row[str(length)] + [49407] * row[f"{length}_tail_is_49407"] for row in rows]
            expected = [ids[:length] for ids in expected]
            official = loaded(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            assert official["input_ids"].tolist() == expected
            assert loaded(texts, walk_type=walk, padding="max_length")["input_ids"] == expected
        assert [len(loaded.encode(text)) for text in texts] == [row["tokens_without_limit"] for row in rows]


def test_ids_and_default_padding(tokenizer):
    (cat, dogs) = tokenizer(["A CAT", "a  dog cat dog"])["input_ids"]
    vocabulary = tokenizer.get_vocab()
    assert cat == [START, vocabulary["a</w>"], vocabulary["cat</w>"], END, END, END]
    assert dogs == [START, vocabulary["a</w>"], *(vocabulary[f"{name}</w>"] for name in ("dog", "cat", "dog")), END]
    assert tokenizer.decode(cat, skip_special_tokens=True) == "a cat"
    assert tokenizer(EN)["input_ids"] == tokenizer.encode(EN) == tokenizer([EN, ZH], padding=False)["input_ids"][0]
    assert list(tokenizer([EN, ZH])) == ["input_ids"]


@pytest.mark.parametrize(("walk", "length"), [("short", 77), ("box", 77), ("long", 248)])
def test_lengths(tokenizer, walk, length):
    texts = [EN, ZH * 30, ""]
    padded = tokenizer(texts, walk_type=walk, padding="max_length", return_tensors="pt")["input_ids"]
    assert padded.shape == (3, length)
    assert padded[:, 0].tolist() == [START] * 3
    assert padded[1].tolist().count(START) == 1
    assert (padded[1, -2].item() != END, padded[1, -1].item()) == (True, END)
    assert tokenizer(texts, walk_type=walk, return_tensors="pt")["input_ids"].equal(padded)  # the longest is cut
    assert tokenizer("", walk_type=walk)["input_ids"] == [START, END]


def test_every_kind_of_folder(folder, tokenizer, tmp_path):
    expected = tokenizer([EN, ZH], padding="max_length")["input_ids"]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "vocab.json").exists()
    (tmp_path / "bare").mkdir()
    shutil.copy(tmp_path / "saved" / "tokenizer.json", tmp_path / "bare")
    leftover = Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json"))
    leftover.enable_truncation(5, direction="left")
    leftover.enable_padding(direction="left", length=9, pad_id=END, pad_token="<|endoftext|>")
    (tmp_path / "leftover").mkdir()
    leftover.save(str(tmp_path / "leftover" / "tokenizer.json"))
    settings = {"tokenizer_class": "CLIPTokenizer", "padding_side": "left", "model_max_length": 77}
    (tmp_path / "leftover" / "tokenizer_config.json").write_text(json.dumps(settings))
    CLIPTokenizerFast.from_pretrained(folder).save_pretrained(tmp_path / "of_transformers")  # as official folders are
    for name in ("saved", "bare", "leftover", "of_transformers"):
        loaded = FGClipTokenizer.from_pretrained(tmp_path / name)
        assert loaded([EN, ZH], padding="max_length")["input_ids"] == expected, name
        assert loaded.decode(loaded("A CAT").input_ids, skip_special_tokens=True) == "a cat"
        assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<|startoftext|>", *["<|endoftext|>"] * 2)


ARGUMENTS = {
    "return_overflowing_tokens": True,
    "return_special_tokens_mask": True,
    "return_attention_mask": True,
    "add_special_tokens": False,
    "padding_side": "left",
    "pad_to_multiple_of": 8,
    "stride": 1,
}


def test_texts_are_cut_and_padded_as_by_transformers(folder, tokenizer):
    class Reference(FGClipTokenizer):
        set_truncation_and_padding = PreTrainedTokenizerFast.set_truncation_and_padding
        _convert_encoding = PreTrainedTokenizerFast._convert_encoding

    reference = Reference.from_pretrained(folder)
    chance = random.Random(0)
    for _ in range(150):
        arguments = {name: value for name, value in ARGUMENTS.items() if chance.random() < 0.3}
        arguments |= {"padding": chance.choice(["max_length", False]), "max_length": chance.choice([8, 16, 64])}
        texts = [chance.choice([EN, ZH, "", "<|endoftext|>", "🐈"]) * chance.choice([1, 2, 30]) for _ in range(2)]
        assert tokenizer(texts, **arguments).data == reference(texts, **arguments).data, arguments


def test_a_collator_pads_to_the_longest(tokenizer):
    batch = DataCollatorWithPadding(tokenizer)([tokenizer(EN), tokenizer("a cat")])
    assert batch["input_ids"].tolist() == tokenizer([EN, "a cat"])["input_ids"]


def test_wrong_inputs(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="walk_type='long' means 248 tokens, but max_length=77 was given"):
        tokenizer(EN, walk_type="long", max_length=77)
    with pytest.raises(ValueError, match="walk_type must be one of 'short', 'long', 'box' or None, got 'caption'"):
        tokenizer([EN], walk_type="caption")
    with pytest.raises(ValueError, match=r"text\[1\] must be a string, got int 3"):
        tokenizer([ZH, 3])
    with pytest.raises(ValueError, match="text is an empty list"):
        tokenizer([])
    with pytest.raises(ValueError, match="pairs of texts"):
        tokenizer(EN, ZH)
    with pytest.raises(ValueError, match="need 1 <= short_length < long_length, got 77 and 5"):
        FGClipTokenizer(tokenizer_object=Tokenizer(models.BPE()), long_length=5)
    with pytest.raises(ValueError, match=r"the vocabulary has no start token '<\|startoftext\|>'"):
        FGClipTokenizer(tokenizer_object=Tokenizer(models.BPE({"a": 0, "<|endoftext|>": 1}, [])))
    for name, content in (("vocab.json", '{"a": 0}'), ("merges.txt", "b c d\n")):
        folder = write_tiny_vocabulary(tmp_path / name)
        (folder / name).write_text(content)
        with pytest.raises(ValueError, match=r"vocab\.json and .*merges\.txt are no vocabulary with its merges"):
            FGClipTokenizer(vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt"))
