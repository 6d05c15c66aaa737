import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer
from fgclip2.tokenization.train_tokenizer import BYTE_TOKENS, SPECIAL_TOKENS, TextFiles, main, train_tokenizer

ENGLISH = [f"A {color} {thing} in the park." for color in ("red", "Blue", "green") for thing in ("cat", "dog", "tree")]
CHINESE = [f"公园里有一只{color}{thing}。" for color in ("红色的", "蓝色的", "绿色的") for thing in ("猫", "狗", "鸟")]
TEXTS = [*ENGLISH, *CHINESE, "In 2024 there were 35 cats", "罕"]


@pytest.fixture(scope="module")
def trained() -> FGClip2Tokenizer:
    return train_tokenizer(TEXTS, vocab_size=400)


@pytest.fixture
def files(tmp_path):
    english, chinese = tmp_path / "english.txt", tmp_path / "中文.txt"
    english.write_bytes("\ufeff".encode() + "\r\n".join(ENGLISH).encode())
    chinese.write_text("\n\n".join(CHINESE) + "\n", encoding="utf-8")
    return [english, chinese]


def test_special_tokens_and_bytes_come_first(trained):
    assert trained.convert_ids_to_tokens(range(260)) == [*SPECIAL_TOKENS, *BYTE_TOKENS]
    ids = [trained.pad_token_id, trained.eos_token_id, trained.bos_token_id, trained.unk_token_id]
    assert ids == [0, 1, 2, 3]
    assert set(trained.all_special_ids) == {0, 1, 2, 3}


def test_recurring_pieces_become_tokens_in_both_languages(trained):
    assert trained.tokenize("A red cat in the park.") == ["a", "▁red", "▁cat", "▁in", "▁the", "▁park", "."]
    assert trained.tokenize("公园里有一只红色的猫。")[-1] == "。"
    assert len(trained.tokenize("公园里有一只红色的猫。")) <= 4


def test_contract_of_the_tokenizer_holds(trained):
    ids = trained(["A Red CAT", "一只猫"], return_tensors="pt")["input_ids"]
    assert ids.shape == (2, 64)
    assert ids[0].tolist() == trained("a red cat")["input_ids"]
    assert trained.encode("一只猫")[-1] == trained.eos_token_id


def test_unseen_characters_are_spelled_in_bytes(trained):
    assert trained.tokenize("😀") == ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]
    assert trained.decode(trained.encode("a 😀 龘"), skip_special_tokens=True) == "a 😀 龘"


def test_literal_byte_tokens_are_plain_text(trained):
    assert trained.tokenize("<0x41>") != ["<0x41>"]
    assert trained.decode(trained.encode("<0x41>"), skip_special_tokens=True) == "<0x41>"


def test_tokens_cross_no_border(trained):
    mixed = train_tokenizer(["cat猫 cat猫 12 12 cat, cat, 猫，猫，"] * 50, vocab_size=400)
    for token in mixed.get_vocab():
        if token not in BYTE_TOKENS and token not in SPECIAL_TOKENS:
            body = token.removeprefix("▁")
            assert len({(c.isascii(), c.isalpha()) for c in body}) <= 1, token
            assert not any(c.isdigit() for c in body) or len(token) == 1, token
            assert "▁" not in body, token
    assert {"▁cat", "cat"} <= set(mixed.get_vocab())
    assert trained.tokenize("2024") == [*"2024"]


def test_alphabet_keeps_the_frequent_characters_and_leaves_room():
    texts = ["一" * 9 + "二" * 8, "".join(chr(0x4E10 + i) for i in range(100))]
    tokenizer = train_tokenizer(texts, vocab_size=280)
    characters = [token for token in tokenizer.get_vocab() if len(token) == 1]
    assert len(characters) == 10
    assert set(characters) == {"▁", "一", "二", *(chr(0x4E10 + i) for i in range(7))}  # ties: the lower code point
    assert len(tokenizer) <= 280


def test_vocabulary_size_is_reached_when_the_text_allows_and_never_exceeded():
    assert len(train_tokenizer(TEXTS, vocab_size=330)) == 330
    assert 262 <= len(train_tokenizer(["猫", "cat"], vocab_size=5000)) < 270


def test_iterator_and_list_give_the_same(trained):
    assert train_tokenizer((text for text in TEXTS), vocab_size=400).get_vocab() == trained.get_vocab()


def test_texts_are_read_twice_and_not_collected():
    class Passes:
        count = 0

        def __iter__(self):
            self.count += 1
            return iter(TEXTS)

    texts = Passes()
    train_tokenizer(texts, vocab_size=400)
    assert texts.count == 2


@pytest.mark.parametrize("vocab_size", [0, 259, 261])
def test_vocabulary_without_room_to_learn(vocab_size):
    with pytest.raises(ValueError, match=f"vocab_size must be at least 262: .* got {vocab_size}"):
        train_tokenizer(TEXTS, vocab_size)


@pytest.mark.parametrize("texts", [[], [""], ["  ", ""], iter([])], ids=["none", "one empty", "blank", "iterator"])
def test_empty_corpus(texts):
    with pytest.raises(ValueError, match="the corpus is empty"):
        train_tokenizer(texts, vocab_size=400)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("corpus.txt", r"single string 'corpus\.txt'"),
        (["猫", None], r"texts\[1\] must be a string, got NoneType"),
        (["cat", "猫\ud83d"], r"texts\[1\] has the lone surrogate"),
    ],
)
def test_bad_texts(texts, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(texts, vocab_size=400)


def test_files_are_read_line_by_line_without_marks(files):
    texts = TextFiles(files)
    assert list(texts) == list(texts) == [*ENGLISH, *CHINESE]


def test_command_saves_a_folder_and_says_what_is_in_it(files, tmp_path, capsys):
    output = tmp_path / "词表"
    main(["--input", *map(str, files), "--vocab-size", "400", "--output", str(output)])
    printed = capsys.readouterr().out
    tokenizer = FGClip2Tokenizer.from_pretrained(output)
    assert tokenizer.get_vocab() == train_tokenizer([*ENGLISH, *CHINESE], 400).get_vocab()
    assert f"saved {output}: {len(tokenizer)} entries: 260 special tokens and bytes" in printed
    assert "learnt from 18 texts" in printed
    assert f"{files[1]}: '公园里有一只红色的猫。' -> {tokenizer.tokenize(CHINESE[0])}" in printed


def test_module_gives_the_same_bytes_in_another_process(files, tmp_path):
    outputs = tmp_path / "here", tmp_path / "there"
    arguments = ["--input", *map(str, files), "--vocab-size", "300", "--output"]
    main([*arguments, str(outputs[0])])
    command = [sys.executable, "-m", "fgclip2.tokenization.train_tokenizer", *arguments, str(outputs[1])]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert len({(output / "tokenizer.json").read_bytes() for output in outputs}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--input": "missing.txt"}, r"there is no file .*missing\.txt"),
        ({"--input": "latin1.txt"}, r"latin1\.txt, line 2: not UTF-8 .*convert the file"),
        ({"--input": "empty.txt"}, "the corpus is empty"),
        ({"--vocab-size": "200"}, "vocab_size must be at least 262"),
        ({"--output": "latin1.txt"}, r"latin1\.txt is a file, it must be a folder"),
    ],
    ids=str,
)
def test_command_explains_mistakes(change, message, tmp_path, files, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin1.txt").write_bytes("cat\ncaf\xe9\n".encode("latin1"))
    (tmp_path / "empty.txt").write_text("\n\n")
    options = {"--input": str(files[0]), "--vocab-size": "400", "--output": "out", **change}
    with pytest.raises(SystemExit) as stop:
        main([part for option in options.items() for part in option])
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed), printed


@given(text=st.text(max_size=200))
def test_any_text_survives_a_round_trip(trained, text):
    lowered = trained.backend_tokenizer.normalizer.normalize_str(text.lower()).replace("▁", " ")
    ids = trained.encode(text)
    assert all(0 <= index < len(trained) for index in ids)
    if not any(token in text.lower() for token in SPECIAL_TOKENS):
        assert trained.decode(ids, skip_special_tokens=True) == lowered
