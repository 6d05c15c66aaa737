"""What a run leaves when it ends early, and what the next one takes from it."""

import numpy as np
import pytest

from fgclip2.embedding import parts as parts_module
from fgclip2.embedding.parts import VectorParts, text_key

ORIGIN = {"fingerprint": "一", "max_num_patches": 256}


def vector(number: float) -> np.ndarray:
    return np.full(3, number, np.float32)


def test_what_was_added_before_an_interruption_is_there_for_the_same_work_only(tmp_path):
    folder = tmp_path / "向量.npz.parts"
    with pytest.raises(KeyboardInterrupt), VectorParts(folder, ORIGIN) as parts:  # noqa: PT012
        parts.add("黑猫.png", vector(1))
        parts.add("\udcff.png", vector(2))  # a name that is not Unicode
        raise KeyboardInterrupt
    with VectorParts(folder, ORIGIN) as parts:
        assert {key: row.tolist() for key, row in parts.rows.items()} == {"黑猫.png": [1] * 3, "\udcff.png": [2] * 3}
        parts.add("dog.png", vector(3))
    assert VectorParts(folder, {**ORIGIN, "fingerprint": "二"}).rows == {}
    assert len(VectorParts(folder, ORIGIN).rows) == 3


def test_parts_are_saved_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(parts_module, "SECONDS_BETWEEN_SAVES", 0.0)
    parts = VectorParts(tmp_path / "parts", ORIGIN)  # not as a context: the process may be killed
    parts.add("a", vector(1))
    parts.add("b", vector(2))
    assert set(VectorParts(tmp_path / "parts", ORIGIN).rows) == {"a", "b"}


def test_long_texts_are_kept(tmp_path):
    """Their keys are hashes: a header of safetensors has room for 100 MB, and escaped texts take six times theirs."""
    texts = ["长文" * 10_000_000, "\ud800"]
    with VectorParts(tmp_path / "parts", ORIGIN) as parts:
        for number, text in enumerate(texts):
            parts.add(text_key(text), vector(number))
    kept = VectorParts(tmp_path / "parts", ORIGIN).rows
    assert [kept[text_key(text)][0] for text in texts] == [0, 1]


def test_a_flipped_bit_costs_the_vectors_of_one_part(tmp_path, caplog):
    for key in "ab":
        with VectorParts(tmp_path / "parts", ORIGIN) as parts:
            parts.add(key, vector(1))
    damaged = sorted((tmp_path / "parts").iterdir())[0]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert len(VectorParts(tmp_path / "parts", ORIGIN).rows) == 1
    assert "is damaged (the content does not fit its digest): its vectors are made again" in caplog.text
    damaged.write_bytes(content[:20])
    assert len(VectorParts(tmp_path / "parts", ORIGIN).rows) == 1


def test_only_own_parts_are_removed(tmp_path):
    folder = tmp_path / "parts"
    for origin in (ORIGIN, {}):
        with VectorParts(folder, origin) as parts:
            parts.add("a", vector(1))
    VectorParts(folder, ORIGIN).remove()
    assert VectorParts(folder, ORIGIN).rows == {}
    assert len(VectorParts(folder, {}).rows) == 1
    VectorParts(folder, {}).remove()
    assert not folder.exists()


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with VectorParts(None, ORIGIN) as parts:
        parts.add("a", vector(1))
    parts.remove()
    assert list(tmp_path.iterdir()) == []
