import ast
import copy
import itertools
import json
import os
import pickle
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast
from transformers.utils import PaddingStrategy

from fgclip2.modeling import text_tokenizer, tokenization_fgclip2
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

from ..interpreters import run_python
from .conftest import GEMMA_SMALL

EN, ZH = "A Black CAT on the Window-Sill.", "一只黑猫趴在窗台上，旁边是一盆绿植。"
SOURCE = Path(tokenization_fgclip2.__file__)


def padded(ids: list[int], length: int) -> list[int]:
    return ids + [0] * (length - len(ids))


def assert_expected_ids(tokenizer: FGClip2Tokenizer, rows: list[dict]) -> None:
    texts = [row["text"] for row in rows]
    for length, walk_type in ((64, "short"), (64, "box"), (196, "long")):
        expected = [padded(row[f"ids_{length}"], length) for row in rows]
        official = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        assert list(official) == ["input_ids"]
        assert official["input_ids"].dtype == torch.int64
        assert official["input_ids"].tolist() == expected
        assert tokenizer(texts, walk_type=walk_type)["input_ids"] == expected


def test_ids_of_any_folder_are_those_of_gemma(any_folder, expected_rows):
    assert_expected_ids(FGClip2Tokenizer.from_pretrained(any_folder), expected_rows)


def test_ids_survive_saving_and_loading(any_folder, expected_rows, tmp_path):
    tokenizer = FGClip2Tokenizer.from_pretrained(any_folder)
    tokenizer.save_pretrained(tmp_path / "once")
    tokenizer(ZH, walk_type="long")
    tokenizer.save_pretrained(tmp_path / "after_a_call")
    again = FGClip2Tokenizer.from_pretrained(tmp_path / "after_a_call")
    assert_expected_ids(again, expected_rows)
    again.save_pretrained(tmp_path / "twice")
    once, after_a_call, twice = (
        (tmp_path / name / "tokenizer.json").read_bytes() for name in ("once", "after_a_call", "twice")
    )
    assert once == after_a_call == twice


def test_saved_settings_are_those_of_this_class(any_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(any_folder, folder)
    foreign = {"processor_class": "Siglip2Processor", "padding_side": "left", "auto_map": {"AutoTokenizer": ["x.Y"]}}
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **foreign}))
    FGClip2Tokenizer.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    expected = {
        "tokenizer_class": "FGClip2Tokenizer",
        "short_length": 64,
        "long_length": 196,
        "padding_side": "right",
        "model_input_names": ["input_ids"],
        "eos_token": "<eos>",
        "pad_token": "<pad>",
    }
    assert {key: config.get(key) for key in expected} == expected
    assert not {"processor_class", "auto_map", "add_bos_token"} & set(config)


def test_saved_file_alone_lower_cases_and_ends_with_eos(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in (EN, ZH):
        assert backend.encode(text).ids == tokenizer.encode(text)


@pytest.mark.parametrize("flag", ["add_bos_token", "add_eos_token"])
@pytest.mark.parametrize("value", [True, False])
def test_flags_of_other_classes_change_nothing(flag, value, expected_rows):
    tokenizer = FGClip2Tokenizer.from_pretrained(GEMMA_SMALL / "raw", **{flag: value})
    assert_expected_ids(tokenizer, expected_rows)
    setattr(tokenizer, flag, value)
    assert_expected_ids(tokenizer, expected_rows)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda tokenizer: pickle.loads(pickle.dumps(tokenizer))])
def test_copies_for_worker_processes(clone, tokenizer, expected_rows):
    assert_expected_ids(clone(tokenizer), expected_rows)


def test_own_lengths_are_kept(tmp_path):
    FGClip2Tokenizer.from_pretrained(GEMMA_SMALL / "raw", short_length=8, long_length=24).save_pretrained(tmp_path)
    tokenizer = FGClip2Tokenizer.from_pretrained(tmp_path)
    assert [len(tokenizer(ZH, walk_type=walk)["input_ids"]) for walk in ("short", "box", "long")] == [8, 8, 24]


def test_the_limit_of_short_captions_is_kept(tmp_path):
    tokenizer = FGClip2Tokenizer.from_pretrained(GEMMA_SMALL / "raw", max_caption_tokens=16)
    assert tokenizer.max_caption_tokens == copy.deepcopy(tokenizer).max_caption_tokens == 16
    tokenizer.max_caption_tokens = 12
    tokenizer.save_pretrained(tmp_path)
    assert FGClip2Tokenizer.from_pretrained(tmp_path).max_caption_tokens == 12
    plain = FGClip2Tokenizer.from_pretrained(GEMMA_SMALL / "raw")
    assert plain.max_caption_tokens == 64
    plain.save_pretrained(tmp_path)
    assert "max_caption_tokens" not in json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))


@pytest.mark.parametrize("value", [-1, 65, True, 8.0, "8"])
def test_a_wrong_limit_of_short_captions_is_named(value):
    with pytest.raises(ValueError, match=r"`max_caption_tokens` must be an integer from 0 to 64, got "):
        FGClip2Tokenizer.from_pretrained(GEMMA_SMALL / "raw", max_caption_tokens=value)


@pytest.mark.parametrize("padding", ["max_length", True, "longest", None])
@pytest.mark.parametrize("truncation", [True, None, "longest_first"])
def test_padding_always_reaches_the_length(tokenizer, padding, truncation):
    ids = tokenizer([EN, ZH * 99], padding=padding, truncation=truncation, return_tensors="pt")["input_ids"]
    assert ids.shape == (2, 64)
    assert ids[0].tolist() == padded(tokenizer.encode(EN), 64)
    assert ids[1, -1] == tokenizer.eos_token_id


@pytest.mark.parametrize("padding", [False, "do_not_pad"])
def test_padding_can_be_switched_off(tokenizer, padding):
    assert tokenizer([EN, ZH], padding=padding)["input_ids"] == [tokenizer.encode(EN), tokenizer.encode(ZH)]


def test_truncation_can_be_switched_off(tokenizer):
    ids = tokenizer(ZH * 20, truncation=False)["input_ids"]
    assert ids == tokenizer.encode(ZH * 20)
    assert len(ids) > 64


@pytest.mark.parametrize(("given_length", "shape"), [(1, (1, 1)), (7, (1, 7)), (77, (1, 77))])
def test_max_length_without_walk_type_decides(tokenizer, given_length, shape):
    ids = tokenizer(ZH * 9, max_length=given_length, return_tensors="pt")["input_ids"]
    assert ids.shape == shape
    assert ids[0, -1] == tokenizer.eos_token_id


def test_one_text_without_tensors_is_a_flat_list(tokenizer):
    assert tokenizer(EN)["input_ids"] == padded(tokenizer.encode(EN), 64)


def test_attention_mask_only_on_request(tokenizer):
    encoded = tokenizer([EN, ZH], return_attention_mask=True)
    for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True):
        assert sum(mask) == ids.index(tokenizer.eos_token_id) + 1


def test_encode_and_tokenize_agree_with_the_call(tokenizer):
    for text in (EN, ZH, "a <TABLE> 表格", "ΣΊΣΥΦΟΣ"):
        ids = tokenizer.encode(text)
        assert padded(ids, 64) == tokenizer(text)["input_ids"]
        assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) == ids[:-1]


def test_very_long_texts(tokenizer):
    for text in ("cat " * 2500, "猫" * 10_000, "😀" * 10_000):
        for walk_type, length in (("short", 64), ("long", 196)):
            ids = tokenizer(text, walk_type=walk_type)["input_ids"]
            assert (len(ids), ids[-1]) == (length, tokenizer.eos_token_id)


@pytest.mark.parametrize(("walk_type", "max_length"), [("short", 64), ("box", 64), ("long", 196)])
def test_walk_type_and_agreeing_max_length(tokenizer, walk_type, max_length):
    assert len(tokenizer(ZH, walk_type=walk_type, max_length=max_length)["input_ids"]) == max_length


@pytest.mark.parametrize(("walk_type", "max_length"), [("short", 196), ("box", 196), ("long", 64), ("short", 32)])
def test_walk_type_against_max_length(tokenizer, walk_type, max_length):
    with pytest.raises(ValueError, match=f"walk_type='{walk_type}' means .* max_length={max_length} .*leave out"):
        tokenizer(ZH, walk_type=walk_type, max_length=max_length)


@pytest.mark.parametrize("walk_type", ["medium", "", "SHORT", 64, ["short"]])
def test_unknown_walk_type(tokenizer, walk_type):
    with pytest.raises(ValueError, match="walk_type must be one of 'short', 'long', 'box' or None, got"):
        tokenizer(EN, walk_type=walk_type)


@pytest.mark.parametrize("max_length", [0, -1, 64.0, "64"])
def test_bad_max_length(tokenizer, max_length):
    with pytest.raises(ValueError, match="max_length must be a positive number of tokens, got"):
        tokenizer(EN, max_length=max_length)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "text must be a string or a list of strings, got NoneType"),
        (3, "got int 3"),
        (b"cat", "got bytes"),
        (np.array(["cat"]), "got ndarray"),
        ({"text": "cat"}, "got dict"),
        ([], "empty list"),
        (["猫", None], r"text\[1\] must be a string, got NoneType None"),
        (["cat", 1.5], r"text\[1\] must be a string, got float 1.5"),
        ([("a cat", "一只猫")], r"text\[0\] must be a string, got tuple .*pairs of texts"),
        ("cat \ud83d", r"text has the lone surrogate '\\ud83d' at position 4"),
        (["猫", "cat", "\udc00猫"], r"text\[2\] has the lone surrogate '\\udc00' at position 0"),
    ],
)
def test_bad_text(tokenizer, text, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(text)


@pytest.mark.parametrize("text", [None, ["cat"], "cat \ud83d"])
def test_bad_text_of_encode_and_tokenize(tokenizer, text):
    with pytest.raises(ValueError, match=r"^text "):
        tokenizer.encode(text)
    with pytest.raises(ValueError, match=r"^text "):
        tokenizer.tokenize(text)


def test_remedy_for_surrogates_works(tokenizer):
    split_emoji, half_emoji = "猫 \ud83d\ude00", "cat \ud83d"
    repaired = [
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in (split_emoji, half_emoji)
    ]
    assert repaired == ["猫 😀", "cat \ufffd"]
    assert tokenizer(repaired, return_tensors="pt")["input_ids"].shape == (2, 64)


@pytest.mark.parametrize(
    "arguments", [{"text_pair": "狗"}, {"text_target": "dog"}, {"is_split_into_words": True}], ids=str
)
def test_pairs_are_rejected(tokenizer, arguments):
    with pytest.raises(ValueError, match="one plain text at a time"):
        tokenizer("cat", **arguments)


def test_pairs_are_rejected_positionally(tokenizer):
    for call in (tokenizer, tokenizer.encode, tokenizer.tokenize):
        with pytest.raises(ValueError, match="one plain text at a time"):
            call("cat", "猫")


def lengths_seen_by_threads(tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, set[int]]]:
    """Texts in batches of three lengths from three threads at once: the length asked for and those that came."""
    seen = []

    def work(length: int) -> None:
        for _ in range(60):
            ids = tokenizer([EN, ZH * 9] * 8, padding="max_length", truncation=True, max_length=length)["input_ids"]
            seen.append((length, set(map(len, ids))))

    threads = [threading.Thread(target=work, args=(length,)) for length in (16, 64, 196)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return seen


def test_threads_may_share_a_tokenizer(tokenizer):
    seen = lengths_seen_by_threads(tokenizer)
    assert len(seen) == 180
    assert [(asked, lengths) for asked, lengths in seen if lengths != {asked}] == []
    assert tokenizer.backend_tokenizer.padding is None
    assert tokenizer.backend_tokenizer.truncation is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_during_a_call_can_tokenize(tokenizer):
    """As workers of a data loader do."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            tokenizer([EN, ZH] * 50, walk_type="long")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that waits for a lock ends here, with another status
                os._exit(len(tokenizer(ZH, walk_type="short")["input_ids"]))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 64
    finally:
        stop.set()
        thread.join()


ARGUMENTS = {
    "return_attention_mask": True,
    "return_special_tokens_mask": True,
    "return_offsets_mapping": True,
    "return_overflowing_tokens": True,
    "return_length": True,
    "add_special_tokens": False,
    "padding_side": "left",
    "pad_to_multiple_of": 8,
    "stride": 1,
}


def test_texts_are_cut_and_padded_as_by_transformers(tokenizer):
    class Reference(FGClip2Tokenizer):
        set_truncation_and_padding = PreTrainedTokenizerFast.set_truncation_and_padding
        _convert_encoding = PreTrainedTokenizerFast._convert_encoding

    reference = Reference.from_pretrained(GEMMA_SMALL / "saved_by_transformers_4_57")
    chance = random.Random(0)
    for _ in range(300):
        arguments = {name: value for name, value in ARGUMENTS.items() if chance.random() < 0.3}
        arguments |= {"padding": chance.choice(["max_length", False]), "max_length": chance.choice([8, 16, 64])}
        texts = [chance.choice([EN, ZH, "", "<eos>", "🐈"]) * chance.choice([1, 2, 30]) for _ in range(2)]
        ours, theirs = tokenizer(texts, **arguments), reference(texts, **arguments)
        assert ours.data == theirs.data, arguments
        for one, other in zip(ours.encodings, theirs.encodings, strict=True):
            assert (one.tokens, one.word_ids, one.sequence_ids) == (other.tokens, other.word_ids, other.sequence_ids)


def test_padding_to_the_longest_of_a_batch_is_refused(tokenizer):
    assert tokenizer.encode(ZH, padding=True) == tokenizer.encode(ZH)
    with pytest.raises(ValueError, match="can't be padded to the longest of them"):
        tokenizer.tokenize(ZH, padding_strategy=PaddingStrategy.LONGEST)


@pytest.mark.parametrize(
    "make",
    [
        lambda chance, tokens: " " * 80_000,
        lambda chance, tokens: "黑猫趴在窗台上，" * 10_000,
        lambda chance, tokens: "".join(chance.choice("ab 猫\n🐈É") for _ in range(80_000)),
        lambda chance, tokens: "".join(chance.choice(tokens).replace("▁", " ") for _ in range(60_000)),
    ],
    ids=["spaces", "chinese", "characters", "tokens"],
)
def test_long_texts_are_cut_before_they_are_tokenized(tokenizer, make, monkeypatch):
    text = make(random.Random(0), sorted(tokenizer.get_vocab())).lower()
    assert len(tokenizer._beginning(text, 196)) < 2000
    ids = {walk: tokenizer(text, walk_type=walk)["input_ids"] for walk in ("short", "long")}
    monkeypatch.setattr(text_tokenizer, "LONG_TEXT", len(text))
    assert ids == {walk: tokenizer(text, walk_type=walk)["input_ids"] for walk in ("short", "long")}


@pytest.mark.parametrize("length", [4000, 4001])
def test_a_text_whose_end_decides_its_first_token_is_not_cut(length, monkeypatch):
    monkeypatch.setattr(text_tokenizer, "LONG_TEXT", 100)
    letters = [chr(0x4E00 + index) for index in range(4001)]
    pairs = [*itertools.pairwise(letters)]  # each is merged before the pair on its left
    tokens = ["<pad>", "<eos>", *letters, *(first + second for first, second in pairs)]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, pairs[::-1]))
    tokenizer = FGClip2Tokenizer(tokenizer_object=backend)
    text = "".join(letters[:length])
    assert tokenizer._beginning(text, 64) == text
    assert tokenizer.tokenize(text)[0] == (text[:2] if length % 2 == 0 else text[0])


def test_twenty_megabytes_take_no_minute(tokenizer):
    began = time.process_time()
    assert len(tokenizer(" " * 20_000_000, walk_type="long")["input_ids"]) == 196
    assert time.process_time() - began < 10


def test_data_collator_pads_to_the_length(tokenizer):
    features = [{"input_ids": tokenizer.encode(EN), "labels": 0}, {"input_ids": tokenizer.encode(ZH), "labels": 1}]
    batch = DataCollatorWithPadding(tokenizer)(features)
    assert set(batch) == {"input_ids", "labels"}
    assert torch.equal(batch["input_ids"], tokenizer([EN, ZH], return_tensors="pt")["input_ids"])


@pytest.mark.parametrize("as_type", [list, torch.tensor, np.array])
def test_pad_takes_the_shortest_length_that_holds_all(tokenizer, as_type):
    short, long = tokenizer.encode(EN), tokenizer.encode(ZH * 8)
    assert 64 < len(long) <= 196
    assert len(tokenizer.pad({"input_ids": short})["input_ids"]) == 64
    features = [{"input_ids": as_type(ids)} for ids in (short, long)]
    assert tokenizer.pad(features, return_tensors="pt")["input_ids"].shape == (2, 196)
    assert tokenizer.pad({"input_ids": [as_type(short)]}, return_tensors="pt")["input_ids"].shape == (1, 64)
    several = {"input_ids": [as_type(long), as_type(long)]}
    assert tokenizer.pad(several, return_tensors="pt")["input_ids"].shape == (2, 196)
    assert tokenizer.pad(features[:1], walk_type="long", return_tensors="pt")["input_ids"].shape == (1, 196)
    assert tokenizer.pad(features[:1], max_length=70, return_tensors="pt")["input_ids"].shape == (1, 70)
    assert len(tokenizer.pad(features[:1], padding=False)["input_ids"][0]) == len(short)


def test_pad_rejects_what_does_not_fit(tokenizer):
    features = [{"input_ids": tokenizer.encode(ZH * 8)}]
    with pytest.raises(ValueError, match="cannot be padded to 64: truncate it first"):
        tokenizer.pad(features, walk_type="short")
    with pytest.raises(ValueError, match="cannot be padded to 70"):
        tokenizer.pad(features, max_length=70)
    with pytest.raises(ValueError, match="cannot be padded to 196"):
        tokenizer.pad({"input_ids": [5] * 197})


@pytest.mark.parametrize("features", [[], {}, [{"labels": 1}], {"attention_mask": [1]}], ids=str)
def test_pad_needs_ids(tokenizer, features):
    with pytest.raises(ValueError, match="pad takes a dict with input_ids or a non-empty list of such dicts, got"):
        tokenizer.pad(features)


def test_bad_construction():
    with pytest.raises(ValueError, match=r"needs a tokenizer\.json"):
        FGClip2Tokenizer()
    with pytest.raises(ValueError, match="1 <= short_length < long_length, got 64 and 64"):
        FGClip2Tokenizer(str(GEMMA_SMALL / "raw" / "tokenizer.json"), long_length=64)


def test_folder_without_tokenizer_json(tmp_path):
    with pytest.raises((ValueError, ImportError)) as caught:
        FGClip2Tokenizer.from_pretrained(tmp_path)
    # transformers 4.57 without protobuf complains about that, with the error of the constructor above it.
    cause = caught.value.__context__ if isinstance(caught.value, ImportError) else caught.value
    assert "needs a tokenizer.json" in str(cause)


@pytest.mark.parametrize("vocabulary", [["a", "猫"], ["a", "<eos>"], ["a", "<pad>"]])
def test_vocabulary_without_end_or_padding(vocabulary):
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, []))
    with pytest.raises(ValueError, match=r"the vocabulary has no (<pad>|end token '<eos>'|<eos>)"):
        FGClip2Tokenizer(tokenizer_object=backend)


def test_source_can_travel_with_a_checkpoint():
    imported = set()
    for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or node.module in ("text_tokenizer", "configurations", "inputs")
            imported |= set() if node.level else {node.module.split(".")[0]}
    assert imported - set(sys.stdlib_module_names) == {"tokenizers", "transformers"}


@pytest.mark.parametrize("slot", [0, 1], ids=["as_slow_class", "as_fast_class"])
def test_remote_code_in_a_fresh_interpreter(tokenizer, slot, tmp_path):
    folder = tmp_path / "checkpoint"
    tokenizer.save_pretrained(folder)
    for name in (SOURCE.name, "text_tokenizer.py", "configurations.py", "inputs.py"):
        shutil.copy(SOURCE.with_name(name), folder)
    path = folder / "tokenizer_config.json"
    classes = [None, None]
    classes[slot] = "tokenization_fgclip2.FGClip2Tokenizer"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoTokenizer": classes}}))
    code = (
        "import sys, json; from transformers import AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(folder)!r}, trust_remote_code=True)\n"
        "calls = [tokenizer(sys.argv[1:], padding=True), tokenizer(sys.argv[1:], walk_type='long')]\n"
        "print(json.dumps([type(tokenizer).__name__, 'fgclip2' in sys.modules, [call['input_ids'] for call in calls]]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "hf_home"), "HF_HUB_OFFLINE": "1"}
    run = run_python("-c", code, EN, ZH, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    name, package_imported, ids = json.loads(run.stdout)
    assert (name, package_imported) == ("FGClip2Tokenizer", False)
    assert ids == [tokenizer([EN, ZH])["input_ids"], tokenizer([EN, ZH], walk_type="long")["input_ids"]]


TEXTS = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="aB 猫狗Ｚ，。\n\t▁😀é<>eospadbt", max_size=300),
    st.lists(st.sampled_from(["Cat ", "黑猫", "<eos>", "<PAD>", "  ", "\n\n", "é", "İ", "Σ"]), max_size=200).map(
        "".join
    ),
)


@given(text=TEXTS, walk_type=st.sampled_from(["short", "long", "box"]))
def test_any_text_gives_eos_then_pads(tokenizer, text, walk_type):
    ids = tokenizer(text, walk_type=walk_type)["input_ids"]
    length = 196 if walk_type == "long" else 64
    whole = tokenizer.encode(text)
    assert len(ids) == length
    assert ids == padded([*whole[: length - 1], tokenizer.eos_token_id] if len(whole) > length else whole, length)
    assert whole[-1] == tokenizer.eos_token_id
    assert all(0 <= index < len(tokenizer) for index in ids)


@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_case_and_batch_change_nothing(tokenizer, texts):
    batch = tokenizer(texts)["input_ids"]
    assert batch == [tokenizer(text)["input_ids"] for text in texts]
    assert batch == tokenizer([text.lower() for text in texts])["input_ids"]
