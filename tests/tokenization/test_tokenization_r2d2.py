"""The tokenizer of R2D2: official ids, lengths, folders, wrong inputs."""

import pytest
from tokenizers import Tokenizer, models
from transformers import BertTokenizer, DataCollatorWithPadding, PreTrainedTokenizerFast

from fgclip2 import R2D2Tokenizer
from fgclip2.modeling.text_tokenizer import LONG_TEXT
from tests import golden_of_r2d2
from tests.golden_of_r2d2 import GOLDEN_R2D2
from tests.tokenization.bert_vocabulary import write_bert_vocabulary

VOCABULARY = str(GOLDEN_R2D2 / "vocab.txt")
START, END = 2, 3


@pytest.fixture(scope="module")
def tokenizer() -> R2D2Tokenizer:
    return R2D2Tokenizer(vocab_file=VOCABULARY, short_length=24)


def test_official_ids_of_the_golden_captions(tokenizer, tmp_path):
    inputs, captions = golden_of_r2d2.tensors("inputs"), golden_of_r2d2.results()["captions"]
    tokenizer.save_pretrained(tmp_path)
    for loaded in (tokenizer, R2D2Tokenizer.from_pretrained(tmp_path)):
        encoded = loaded(captions, padding="max_length")
        for name in ("input_ids", "attention_mask"):
            assert encoded[name] == inputs[name].tolist()
        assert encoded.keys() == {"input_ids", "attention_mask"}


@pytest.mark.slow
def test_ids_of_the_published_vocabulary(tmp_path):
    """As transformers' own tokenizer of BERT gives them."""
    path = str(write_bert_vocabulary(tmp_path / "vocab.txt", tmp_path / "downloads"))
    tokenizer, theirs = R2D2Tokenizer(vocab_file=path), BertTokenizer(path)
    assert len(tokenizer) == 21128
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.convert_tokens_to_ids(tokens) == [0, 100, 101, 102, 103]
    texts = [
        "一只黑猫趴在窗台上。",
        "A Black CAT, naïve café",
        "ＡＢＣ１２３　全角",
        "😀 emoji\ttab",
        "",
        "乔丹投篮" * 40,
        "x" * 101,
    ]
    texts += ["未知字𠀀", "[MASK] 猫", "\u2028 line"]
    expected = theirs(texts, padding="max_length", truncation=True, max_length=64)
    found = tokenizer(texts, padding="max_length")
    assert found["input_ids"] == expected["input_ids"]
    assert found["attention_mask"] == expected["attention_mask"]


def test_lengths_and_padding(tokenizer):
    short, long = tokenizer(["红猫", "大" * 100])["input_ids"]
    assert len(short) == len(long) == 24
    assert (long[0], long[-1]) == (START, END)
    assert short[3:] == [END] + [0] * 20
    assert tokenizer("红猫")["input_ids"] == tokenizer.encode("红猫") == short[:4]
    assert len(tokenizer("大" * 100, truncation=False, verbose=False)["input_ids"]) == 102
    assert [len(ids) for ids in tokenizer(["红猫", "大"], max_length=16, padding="max_length")["input_ids"]] == [16, 16]
    assert tokenizer.decode(short, skip_special_tokens=True) == "红 猫"
    collated = DataCollatorWithPadding(tokenizer)([tokenizer("红猫"), tokenizer("红")])
    assert collated["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


@pytest.mark.parametrize("word", ["红", "red ", "z" * 50 + " ", "z"])
def test_texts_of_any_length_are_cut_alike(tokenizer, word):
    text = "红猫 " + word * (LONG_TEXT // len(word) + 1)
    whole = tokenizer(text, truncation=False, verbose=False)["input_ids"]
    expected = whole if len(whole) <= 24 else [*whole[:23], END]
    assert tokenizer(text)["input_ids"] == expected


def test_read_by_transformers_own_class(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    stock = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert stock("A red dog，红狗")["input_ids"] == tokenizer("A red dog，红狗")["input_ids"]


def test_wrong_inputs(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"needs a tokenizer\.json"):
        R2D2Tokenizer()
    with pytest.raises(ValueError, match="1 <= short_length"):
        R2D2Tokenizer(vocab_file=VOCABULARY, short_length=0)
    (tmp_path / "vocab.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"is no vocabulary of BERT: it lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"):
        R2D2Tokenizer(vocab_file=str(tmp_path / "vocab.txt"))
    with pytest.raises(ValueError, match=r"the vocabulary has no"):
        R2D2Tokenizer(tokenizer_object=Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]")))
    with pytest.raises(ValueError, match="text is an empty list"):
        tokenizer([])
    with pytest.raises(ValueError, match="pairs of texts"):
        tokenizer("红", "猫")
