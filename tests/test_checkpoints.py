"""Where checkpoints come from: folders, the hub, its cache and ModelScope; all without a network."""

import shutil
import socket
import sys
import time
import types
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError

from fgclip2 import FGClip2Embedder, checkpoints, embedded_checkpoint
from fgclip2.checkpoints import locate_checkpoint
from tests.cli.conftest import Command


@pytest.fixture
def unreachable(monkeypatch, tmp_path) -> list[str]:
    """Online as far as anybody knows, with an empty cache, but no host is found; the hosts that were looked for."""
    looked_for = []

    def find_host(host, *args, **kwargs):
        looked_for.append(str(host))
        raise socket.gaierror("Name or service not known")

    def no_waiting(seconds):
        raise AssertionError(f"waits {seconds} s for a hub that can't be reached")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "getaddrinfo", find_host)
    monkeypatch.setattr(time, "sleep", no_waiting)
    return looked_for


class Answer:
    """What the hub answers: an error of this kind."""

    def __init__(self, error: type[Exception]):
        self.error = error

    def __call__(self, *args, **kwargs):
        raise self.error.__new__(self.error)


def test_folders_stay_as_they_are(unreachable):
    folder = str(embedded_checkpoint())
    assert locate_checkpoint(embedded_checkpoint(), revision="v1") == (folder, {"revision": "v1"})
    assert unreachable == []


def test_a_wrong_name_without_a_network_is_told_at_once(unreachable):
    message = "nosuch/model: there is no such folder, and .* can't be reached .*Give a folder, set HF_ENDPOINT"
    with pytest.raises(OSError, match=message):
        FGClip2Embedder.from_pretrained("nosuch/model")
    assert len(unreachable) <= 2  # addresses of one host


def test_the_command_tells_it_in_one_line(unreachable, tmp_path):
    run = Command(tmp_path)
    result = run("classify", "x.png", "--labels", "猫", "--model", "nosuch/model", code=1, model=False)
    assert len(result.stderr.splitlines()) == 1
    assert "FGCLIP2_USE_MODELSCOPE=1" in result.stderr
    assert len(unreachable) <= 2


def test_names_that_are_no_ids_are_told_without_asking(unreachable):
    with pytest.raises(OSError, match="no such folder, and it is no id of the hub"):
        locate_checkpoint("a/b/c")
    assert unreachable == []


@pytest.mark.parametrize("forbidden", ["by argument", "by environment"])
def test_offline_nothing_is_asked(unreachable, monkeypatch, forbidden):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", forbidden == "by environment")
    with pytest.raises(OSError, match="not in the cache of the hub, and HF_HUB_OFFLINE or local_files_only"):
        locate_checkpoint("nosuch/model", local_files_only=forbidden == "by argument")
    assert unreachable == []


def test_what_is_in_the_cache_loads_without_a_network(unreachable, tmp_path, caplog):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--some--model"
    shutil.copytree(embedded_checkpoint(), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    embedder = FGClip2Embedder.from_pretrained("some/model", device="cpu", cache_dir=tmp_path / "cache")
    assert embedder.name == "some/model"
    assert "some/model comes from the cache" in caplog.text
    assert len(unreachable) <= 2


def test_names_that_the_hub_does_not_know(monkeypatch, unreachable):
    monkeypatch.setattr(checkpoints, "get_hf_file_metadata", Answer(RepositoryNotFoundError))
    with pytest.raises(OSError, match="no such folder, and no such model at https://"):
        locate_checkpoint("nosuch/model")


def test_an_adapter_on_the_hub_has_no_configuration(monkeypatch, unreachable):
    monkeypatch.setattr(checkpoints, "get_hf_file_metadata", Answer(RemoteEntryNotFoundError))
    assert locate_checkpoint("some/adapter", token="t") == ("some/adapter", {"token": "t"})


@pytest.fixture
def modelscope(monkeypatch, tmp_path) -> list[tuple]:
    """A stand-in for ModelScope's library, that has one model; what it was asked for."""
    asked = []

    def snapshot_download(model_id: str, **settings) -> str:
        asked.append((model_id, settings))
        if model_id != "some/model":
            raise RuntimeError(f"{model_id} does not exist")
        shutil.copytree(embedded_checkpoint(), tmp_path / "modelscope", dirs_exist_ok=True)
        return str(tmp_path / "modelscope")

    module = types.ModuleType("modelscope")
    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "modelscope", module)
    return asked


@pytest.mark.parametrize("by_prefix", [True, False])
def test_modelscope(by_prefix, modelscope, monkeypatch, unreachable):
    monkeypatch.setenv("FGCLIP2_USE_MODELSCOPE", "0" if by_prefix else "1")
    name = "modelscope://some/model" if by_prefix else "some/model"
    embedder = FGClip2Embedder.from_pretrained(name, device="cpu", revision="v2", token="of the hub")
    assert embedder.name == name
    assert embedder.fingerprint == FGClip2Embedder.from_pretrained(device="cpu").fingerprint
    assert modelscope == [("some/model", {"revision": "v2", "allow_patterns": checkpoints.MODELSCOPE_FILES})]
    assert not any(Path("modeling.py").match(pattern) for pattern in checkpoints.MODELSCOPE_FILES)
    assert unreachable == []


def test_folders_come_before_modelscope(modelscope, monkeypatch):
    monkeypatch.setenv("FGCLIP2_USE_MODELSCOPE", "1")
    assert locate_checkpoint(embedded_checkpoint())[0] == str(embedded_checkpoint())
    assert modelscope == []


def test_modelscope_without_the_model_or_the_library(modelscope, monkeypatch):
    with pytest.raises(OSError, match="modelscope://no/model from ModelScope: no/model does not exist"):
        locate_checkpoint("modelscope://no/model")
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(ImportError, match=r'pip install "fgclip2\[modelscope\]"'):
        locate_checkpoint("modelscope://no/model")
