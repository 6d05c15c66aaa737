"""API keys: where they are read, what they may be, and that only they are let in."""

import pytest

from fgclip2.serving.keys import ApiKeys, read_keys

KEY = "0123456789abcdef"


def test_only_whole_keys_are_allowed():
    keys = ApiKeys([KEY, "another-key-of-20-ch"])
    assert keys.allow(f"Bearer {KEY}".encode())
    assert keys.allow(b"bearer another-key-of-20-ch")
    for wrong in (b"", b"Bearer", b"Bearer ", KEY.encode(), b"Basic " + KEY.encode(), f"Bearer {KEY}0".encode()):
        assert not keys.allow(wrong)
    assert not keys.allow(f"Bearer {KEY[:-1]}".encode())
    assert not keys.allow(b"Bearer \xff\xfe")
    assert KEY not in str(vars(keys))


def test_keys_are_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FGCLIP2_API_KEYS", f"{KEY}, second-key-0123456")
    assert len(read_keys(None)) == 2
    file = tmp_path / "密钥.txt"
    file.write_text(f"# for the shop\n\n{KEY}\n", encoding="utf-8")
    assert len(read_keys(file)) == 1
    monkeypatch.delenv("FGCLIP2_API_KEYS")
    assert len(read_keys(None)) == 0
    file.write_text("# none\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no API key: write one on each line"):
        read_keys(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="must be UTF-8"):
        read_keys(file)


@pytest.mark.parametrize("key", ["short", "has spaces in the middle", "密钥密钥密钥密钥密钥密钥密钥密钥密钥"])
def test_a_key_that_can_not_be_one_is_not_repeated(key):
    with pytest.raises(ValueError, match="API key 2 of 2 must be 16 to 512 printable ASCII") as refused:
        ApiKeys([KEY, key])
    assert key not in str(refused.value)
