"""The folder that is searched, and what is around the app."""

import os
import re
import socket
import stat
from pathlib import Path

import pytest
from PIL import Image

from fgclip2.app.answers import InputError
from fgclip2.app.library import Library
from fgclip2.app.server import choose_language, is_local, listen, make_library, private_scratch
from fgclip2.errors import LockedIndexError


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "照片"
    folder.mkdir()
    for number in range(3):
        Image.effect_noise((40, 30), 20 + number).convert("RGB").save(folder / f"{number}.png")
    return folder


def test_an_index_is_built_with_progress_and_keeps_its_patches(embedder, photos):
    library, told = Library(photos), []
    library.load()
    assert library.index is None
    with pytest.raises(InputError, match="no_index"):
        library.require_index()
    library.build(embedder, 16, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    (photos / "2.png").unlink()
    again = Library(photos)
    again.load()
    assert again.build(embedder, 100, lambda done, total: told.append((done, total))).report.removed == 1
    assert (len(told), len(again.require_index()), again.index.settings["max_num_patches"]) == (3, 2, 16)


def test_an_index_of_another_checkpoint_or_in_use_is_told(embedder, photos, monkeypatch):
    library = Library(photos)
    library.build(embedder, 16, lambda done, total: None)
    monkeypatch.setattr(embedder, "fingerprint", "another")
    monkeypatch.setattr(embedder, "weights_fingerprint", "another")
    with pytest.raises(InputError, match="unusable_index"):
        library.build(embedder, 16, lambda done, total: None)

    def locked(*arguments, **options):
        raise LockedIndexError("in use")

    monkeypatch.setattr("fgclip2.search.ImageIndex.build", locked)
    with pytest.raises(InputError, match="locked_index"):
        library.build(embedder, 16, lambda done, total: None)


def test_a_missing_folder_is_told(embedder, tmp_path):
    with pytest.raises(ValueError, match="没有: no such folder or file"):
        make_library(tmp_path / "没有", None, embedder, None, tmp_path)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("fr-FR,zh-TW;q=0.5", "zh"),
        ("zha", "en"),
        ("fr", "en"),
        ("", "en"),
    ],
)
def test_the_browser_chooses_the_language(accepted, language):
    assert choose_language(accepted) == language


def test_addresses_of_this_machine_are_known():
    assert [is_local(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "192.168.0.2")] == [
        *(True, True, True, False, False)
    ]


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_both_kinds_of_addresses_are_listened_on(host, shown):
    listener, address = listen(host, 0)
    with listener:
        port = re.fullmatch(rf"http://{re.escape(shown)}:(\d+)/", address)[1]
        socket.create_connection((host, int(port)), timeout=10).close()


def test_scratch_is_private_and_goes_and_the_environment_comes_back(monkeypatch):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with private_scratch() as scratch:
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
        assert os.environ["GRADIO_TEMP_DIR"] == str(scratch / "gradio")
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert not scratch.exists()
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "True"
    assert "GRADIO_TEMP_DIR" not in os.environ
