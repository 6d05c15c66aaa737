"""Train a bilingual vocabulary on one's own text: Gemma's kind of tokenizer, as small as one likes.

    python -m fgclip2.tokenization.train_tokenizer --input en.txt zh.txt --vocab-size 6000 --output FOLDER

Each line of the UTF-8 input files is one text. The files are read line by line, more than once; what is held in memory
are the distinct words (for Chinese: runs without punctuation) and their counts.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

from ..files import UTF8_BOM
from ..modeling.inputs import check_text
from ..modeling.tokenization_fgclip2 import FGClip2Tokenizer

SPECIAL_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>"]  # ids 0, 1, 2, 3, as in Gemma
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]  # what a character outside the vocabulary falls back to
SPACE = "▁"

# Half of what is learnt may be single characters (Chinese has thousands), the rest is left for words.
MAX_SHARE_OF_CHARACTERS = 0.5
MAX_CHARACTERS_PER_TOKEN = 16  # keeps sentences that recur word for word from becoming tokens

# A token never crosses one of these borders: between words, between Chinese and other letters, around each digit and
# each run of punctuation. Only training needs them: merges that were not learnt are not made later either.
WORD_BORDERS = r"▁?\p{Han}+|▁?(?:(?!\p{Han})[\p{L}\p{M}])+|\p{N}|▁|[^▁\p{L}\p{M}\p{N}]+"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> FGClip2Tokenizer:
    """Learn a byte-fallback BPE vocabulary from texts; the same texts always give the same vocabulary.

    Texts are lower-cased and otherwise taken as they are: no Unicode normalisation, no stripping. Characters too rare
    for the vocabulary are spelled in UTF-8 bytes, so every text can be encoded and decoded.

    Args:
        texts: Passed through twice, so that a large corpus can stay on disk; a one-shot iterator is held in memory.
        vocab_size: Entries of the vocabulary, 260 of them special tokens and bytes. Fewer come out where the texts do
            not have that many recurring pieces.

    Raises:
        ValueError: `vocab_size` leaves no room to learn, a text is not a string or has a lone surrogate, or there is
            no text at all.
    """
    room = vocab_size - len(SPECIAL_TOKENS) - len(BYTE_TOKENS)
    if room < 2:
        raise ValueError(
            f"vocab_size must be at least {vocab_size - room + 2}: 4 special tokens, 256 bytes and some "
            f"room to learn, got {vocab_size}"
        )
    if isinstance(texts, str):
        raise ValueError(f"texts must be strings, one per text, got the single string {texts!r:.80}")
    if isinstance(texts, Iterator):
        texts = list(texts)
    counts: Counter[str] = Counter()
    for index, text in enumerate(texts):
        counts.update(check_text(f"texts[{index}]", text).lower())
    for space in (" ", SPACE):
        del counts[space]
    if not counts:
        raise ValueError("the corpus is empty: there is no text to learn from")
    # The most frequent characters, after the space mark; among equally frequent ones the lower code point.
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    alphabet = [SPACE, *ranked[: int(room * MAX_SHARE_OF_CHARACTERS) - 1]]
    learnt = _learn_bpe(texts, vocab_size, alphabet)
    # The pipeline of Gemma's tokenizer.json around what was learnt.
    merges = [tuple(pair) for pair in learnt["merges"]]
    tokenizer = Tokenizer(BPE(learnt["vocab"], merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return FGClip2Tokenizer(tokenizer_object=tokenizer)


def _learn_bpe(texts: Iterable[str], vocab_size: int, alphabet: list[str]) -> dict[str, Any]:
    """Return the vocabulary and the merges, as in the `model` part of a tokenizer.json."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_BORDERS), behavior="isolated")
    # The trainer never drops a character of `initial_alphabet`, so these two arguments fix the alphabet. Its own
    # choice among equally rare characters would differ from run to run.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS + BYTE_TOKENS,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        max_token_length=MAX_CHARACTERS_PER_TOKEN,
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.lower() for text in texts), trainer=trainer)
    return json.loads(tokenizer.to_str())["model"]


class TextFiles:
    """The non-empty lines of UTF-8 files, read anew at each pass."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = list(paths)
        for path in self.paths:
            if not path.is_file():
                raise ValueError(f"there is no file {path}")

    def __iter__(self) -> Iterator[str]:
        for path in self.paths:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    try:
                        text = line.removeprefix(UTF8_BOM).decode().rstrip("\r\n")
                    except UnicodeDecodeError as error:
                        remedy = f"not UTF-8 ({error.reason}); convert the file to UTF-8"
                        raise ValueError(f"{path}, line {number}: {remedy}") from error
                    if text:
                        yield text


def main(arguments: list[str] | None = None) -> None:
    """Train from text files, save a folder, print what it holds."""
    parser = argparse.ArgumentParser(prog="python -m fgclip2.tokenization.train_tokenizer", description=__doc__)
    parser.add_argument("--input", nargs="+", type=Path, required=True, help="UTF-8 files with one text per line.")
    parser.add_argument(
        "--vocab-size", type=int, required=True, help="Number of entries, 260 special tokens and bytes included."
    )
    parser.add_argument("--output", type=Path, required=True, help="Folder to write tokenizer.json into.")
    options = parser.parse_args(arguments)
    if options.output.exists() and not options.output.is_dir():
        parser.error(f"--output {options.output} is a file, it must be a folder")
    try:
        texts = TextFiles(options.input)
        tokenizer = train_tokenizer(texts, options.vocab_size)
    except ValueError as error:
        parser.error(str(error))
    tokenizer.save_pretrained(options.output)
    learnt = [token for token in tokenizer.get_vocab() if token not in {*SPECIAL_TOKENS, *BYTE_TOKENS}]
    characters = sum(len(token) == 1 for token in learnt)
    print(
        f"saved {options.output}: {len(tokenizer)} entries: {len(tokenizer) - len(learnt)} special tokens and bytes, "
        f"{characters} characters, {len(learnt) - characters} longer pieces; learnt from {sum(1 for _ in texts)} texts"
    )
    for path in texts.paths:  # the first text of each as an example
        first = next(iter(TextFiles([path])), "")[:60]
        print(f"{path}: {first!r} -> {tokenizer.tokenize(first)}")


if __name__ == "__main__":
    main()
