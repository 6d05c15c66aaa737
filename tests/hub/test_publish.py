"""publish: what would be uploaded, and what is."""

import json
import math
import shlex
import shutil
from importlib import import_module

import pytest
import torch
from huggingface_hub import HfApi, constants

from fgclip2.hub import export_for_hub, publish, verify, verify_folder
from fgclip2.hub.fresh_process import check_close
from fgclip2.hub.verify import largest_difference
from tests.checkpoints import load
from tests.hub.server import stand_in

publishing = import_module("fgclip2.hub.publish")  # whose name in the package is that of its function


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


def test_an_upload_as_the_library_makes_it(folder, monkeypatch):
    """By HTTP, to a server on this machine; the hub's own storage of large files is left out."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    (folder / "说明.txt").write_text("一只黑猫", encoding="utf-8")
    with stand_in() as received:
        files = publish(folder, "acme/tiny", False, HfApi(endpoint=received.endpoint, token="hf_test"))
    assert received.files == {name: (folder / name).read_bytes() for name in files}
    assert {"说明.txt", "model.safetensors", "modeling_fgclip2.py"} <= received.files.keys()
    (created,) = received.created
    assert created.get("visibility") == "private" or created.get("private") is True
    assert received.authorizations == {"Bearer hf_test"}


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
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with pytest.raises(OSError, match=r"the repository acme/tiny can't be made: .*offline") as raised:
        publish(folder, "acme/tiny", dry_run=False)
    assert isinstance(raised.value.__cause__, OfflineModeIsEnabled)


def test_a_failed_upload_says_how_to_go_on(folder, monkeypatch):
    class Unreachable(RecordingApi):
        def upload_folder(self, **kwargs):
            raise RuntimeError("connection reset")  # as libraries below the hub's own raise

    folder = folder.rename(folder.with_name("模型 'a'"))
    with pytest.raises(
        OSError, match=r"can't be uploaded to acme/tiny: connection reset\. The folder is compl"
    ) as raised:
        publish(folder, "acme/tiny", dry_run=False, api=Unreachable(), private=False)
    assert isinstance(raised.value.__cause__, RuntimeError)
    # The command is a line of a shell, and does what failed.
    command = shlex.split(str(raised.value).partition("to push it again: ")[2])
    assert command[:2] == ["python", "-c"]
    api = RecordingApi()
    monkeypatch.setattr(publishing, "HfApi", lambda token: api)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    exec(command[2], {})
    assert [call[0] for call in api.calls] == ["create_repo", "upload_folder"]
    assert api.calls[0][2]["private"] is False
    assert api.calls[1][1]["folder_path"] == folder


def test_without_a_token_in_the_environment_nothing_is_uploaded(folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="HF_TOKEN must be set"):
        publish(folder, "acme/tiny", dry_run=False)


def test_a_folder_without_a_licence_is_refused(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(card.replace("license: apache-2.0", "license: unknown"), encoding="utf-8")
    with pytest.raises(ValueError, match="says no licence of the weights"):
        publish(folder, "acme/tiny", dry_run=False, api=RecordingApi())


# The format hub: a folder that is loaded as others will before it is kept or uploaded


@pytest.fixture
def steps(monkeypatch) -> list[str]:
    """What `export_for_hub` does after the export, in turn; libraries for the check are there."""
    done: list[str] = []
    monkeypatch.setattr(publishing, "verify_folder", lambda folder: done.append("verified"))
    monkeypatch.setattr(publishing, "publish", lambda *arguments, **options: done.append(f"published {options}"))
    monkeypatch.setattr(publishing, "missing_checks", lambda has_graphs: [])
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    return done


@pytest.fixture(scope="module")
def loaded(official_folder):
    return load(official_folder)


def test_a_folder_is_verified_and_nothing_is_uploaded_without_push(loaded, steps, tmp_path):
    assert export_for_hub(*loaded, tmp_path / "导出", "apache-2.0") == tmp_path / "导出"
    assert steps == ["verified"]


def test_what_is_pushed_has_been_verified(loaded, steps, tmp_path):
    export_for_hub(*loaded, tmp_path / "导出", "apache-2.0", push="acme/tiny", private=False)
    assert steps[0] == "verified"
    assert "'dry_run': False" in steps[1]
    assert "'private': False" in steps[1]


def test_a_folder_that_fails_its_check_is_not_uploaded(loaded, steps, tmp_path, monkeypatch):
    def fail(folder):
        raise ValueError("transformers gives other vectors")

    monkeypatch.setattr(publishing, "verify_folder", fail)
    with pytest.raises(ValueError, match="other vectors"):
        export_for_hub(*loaded, tmp_path / "导出", "apache-2.0", push="acme/tiny")
    assert steps == []


def test_what_a_push_lacks_is_said_before_the_work(loaded, steps, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"licence of the weights is unknown.*--license"):
        export_for_hub(*loaded, tmp_path / "导出", push="acme/tiny")
    with pytest.raises(ValueError, match=r"(?i)repo"):
        export_for_hub(*loaded, tmp_path / "导出", "apache-2.0", push="acme/ti ny")
    with pytest.raises(ValueError, match="`repo_id` must be 'namespace/name', got 'tiny'"):
        export_for_hub(*loaded, tmp_path / "导出", "apache-2.0", push="tiny")
    monkeypatch.setattr(publishing, "missing_checks", lambda has_graphs: ["fgclip2-onnx"] if has_graphs else [])
    with pytest.raises(ImportError, match="pip install fgclip2-onnx"):
        export_for_hub(*loaded, tmp_path / "导出", "apache-2.0", onnx=["fp32"], push="acme/tiny")
    monkeypatch.setattr(publishing, "missing_checks", lambda has_graphs: ["sentence-transformers>=6.2"])
    with pytest.raises(ImportError, match=r"pip install 'sentence-transformers>=6\.2'"):
        export_for_hub(*loaded, tmp_path / "导出", "apache-2.0", push="acme/tiny")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ValueError, match="HF_TOKEN must be set"):
        export_for_hub(*loaded, tmp_path / "导出", "apache-2.0", push="acme/tiny")
    assert list(tmp_path.iterdir()) == []
    assert steps == []


def test_a_difference_that_is_not_a_number_is_one():
    nan, zero = torch.tensor([[0.0, math.nan]]), torch.zeros(1, 2)
    assert math.isnan(largest_difference([(zero, zero), (nan, zero)]))
    assert largest_difference([(zero + 0.5, zero), (zero, zero)]) == 0.5
    check_close("pixels", zero.numpy(), zero.numpy() + 1e-5, 1e-4)
    for found, message in ((nan, "pixels are nan off"), (zero[:, :1], r"pixels have the shape \(1, 1\)")):
        with pytest.raises(SystemExit, match=message):
            check_close("pixels", found.numpy(), zero.numpy(), 1e-4)


def test_the_check_of_graphs_is_asked_for_where_there_are_graphs(monkeypatch):
    monkeypatch.setattr(verify, "find_spec", lambda module: None)
    assert verify.missing_checks() == ["transformers", "sentence-transformers>=6.2"]
    assert verify.missing_checks(has_graphs=True)[-1] == "fgclip2-onnx"


@pytest.mark.slow
def test_verification_compares_the_vectors_of_another_interpreter(folder):
    assert verify_folder(folder)["transformers"] < 1e-4
    code = (folder / "tokenization_fgclip2.py").read_text(encoding="utf-8")
    (folder / "tokenization_fgclip2.py").write_text(code.replace("return text.lower()", "return text + '!'"), "utf-8")
    with pytest.raises(ValueError, match=r"(?s)transformers (gives other vectors|can't load).*"):
        verify_folder(folder)


@pytest.mark.slow
def test_verification_compares_the_pixels_of_transformers_own_class(folder):
    for name in ("preprocessor_config.json", "processor_config.json"):
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        settings.get("image_processor", settings)["image_processor_type"] = "CLIPImageProcessor"  # squares
        (folder / name).write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match="pixels by AutoImageProcessor without the code of the folder have the shape"):
        verify_folder(folder)


@pytest.mark.slow
def test_the_first_version_is_verified_too(exported_fgclip_folder):
    assert verify_folder(exported_fgclip_folder)["transformers"] < 1e-4
