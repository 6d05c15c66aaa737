"""Vocabularies like CLIP's in the two files that its folders have: a tiny one, and CLIP's own from a package."""

import gzip
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
TINY_MERGES = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("p", "h"), ("ph", "o")]


def byte_characters() -> list[str]:
    """The characters that stand for bytes, in the order of their ids: those of printable bytes first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def write_vocabulary(folder: Path, merges: list[tuple[str, str]]) -> Path:
    characters = byte_characters()
    tokens = [*characters, *(f"{character}</w>" for character in characters)]
    tokens += [first + second for first, second in merges if first + second not in tokens]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def write_tiny_vocabulary(folder: Path) -> Path:
    return write_vocabulary(folder, TINY_MERGES)


def write_clip_vocabulary(folder: Path, downloads: Path) -> Path:
    """CLIP's own, which lies in a package on PyPI and is not shipped with this one."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(downloads)]
    subprocess.run([*command, "open-clip-torch==3.3.0"], check=True)
    (wheel,) = downloads.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        packed = opened.read("open_clip/bpe_simple_vocab_16e6.txt.gz")
    assert hashlib.sha256(packed).hexdigest() == SHA256
    lines = gzip.decompress(packed).decode().split("\n")[1:48_895]
    merges = [(first, second) for first, second in map(str.split, lines)]
    return write_vocabulary(folder, merges)
