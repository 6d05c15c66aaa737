"""publish: what would be uploaded, and what is."""

import shutil

import pytest

from fgclip2.hub import publish


class RecordingApi:
    def __init__(self):
        self.calls = []

    def create_repo(self, repo_id, **kwargs):
        self.calls.append(("create_repo", repo_id, kwargs))

    def upload_folder(self, **kwargs):
        self.calls.append(("upload_folder", kwargs))


@pytest.fixture
def folder(exported_folder, tmp_path):
    return shutil.copytree(exported_folder, tmp_path / "checkpoint")


def test_a_dry_run_lists_the_files_and_does_nothing(folder):
    (folder / ".cache").mkdir()
    (folder / ".cache" / "token").write_text("secret")
    api = RecordingApi()
    files = publish(folder, "acme/fgclip2-tiny", api=api)
    assert files == sorted(path.name for path in folder.iterdir() if path.name != ".cache")
    assert {"README.md", "model.safetensors", "modeling_fgclip2.py"} <= set(files)
    assert api.calls == []


def test_a_real_run_uploads_exactly_the_list(folder):
    api = RecordingApi()
    files = publish(folder, "acme/fgclip2-tiny", dry_run=False, api=api)
    assert api.calls == [
        ("create_repo", "acme/fgclip2-tiny", {"repo_type": "model", "private": True, "exist_ok": True}),
        (
            "upload_folder",
            {
                "repo_id": "acme/fgclip2-tiny",
                "repo_type": "model",
                "folder_path": folder,
                "allow_patterns": files,
            },
        ),
    ]


@pytest.mark.parametrize("repo_id", ["tiny", "a/b/c", "acme/..", "acme/ti ny"])
def test_wrong_names_are_refused(repo_id, folder):
    with pytest.raises(ValueError, match=r"must be|Repo id|repo"):
        publish(folder, repo_id)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(name, folder):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"no complete checkpoint: {name} missing"):
        publish(folder, "acme/tiny", dry_run=False, api=RecordingApi())


def test_pickles_are_refused(folder):
    (folder / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pickled files, which run code when loaded: optimizer.pt"):
        publish(folder, "acme/tiny")


def test_offline_a_real_run_fails_loudly(folder, monkeypatch):
    import huggingface_hub.constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineModeIsEnabled):
        publish(folder, "acme/tiny", dry_run=False)
