"""Checkpoint folders to the hub."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id

from ..calibration import Calibration
from ..files import read_json
from .card import UNKNOWN, Score, license_of, stated_license
from .export import export_checkpoint
from .verify import missing_checks, verify_folder

NEEDED = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def publish(
    folder: str | os.PathLike, repo_id: str, dry_run: bool = True, api: Any = None, private: bool = True
) -> list[str]:
    """Upload an exported folder to a model repository of the hub, or only list what would be uploaded.

    Args:
        folder: A folder that [`export_checkpoint`] or [`convert_checkpoint`] wrote.
        repo_id: `"namespace/name"`.
        dry_run: Change nothing, and don't touch the network.
        api: A `huggingface_hub.HfApi`; `None`: one with the token of the environment variable `HF_TOKEN`. A token that
            `hf auth login` has stored is not used.
        private: Make a repository that does not exist yet a private one.

    Returns:
        Paths of the files in the repository, sorted. Hidden files are never uploaded.

    Raises:
        ValueError: `repo_id` is no such name; the folder is no complete checkpoint, or has pickled files, which run
            code when loaded; its card names no licence; or it is to be uploaded and there is no token.
        OSError: The upload failed; the message has the command that tries it again.
    """
    folder = Path(folder)
    check_repo_id(repo_id)
    relative = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    files = sorted(path.as_posix() for path in relative if not any(part.startswith(".") for part in path.parts))
    missing = [name for name in NEEDED if name not in files]
    if not any(name.endswith(".safetensors") for name in files):
        missing.append("model.safetensors")
    if missing:
        raise ValueError(f"{folder} is no complete checkpoint: {', '.join(missing)} missing; see export_checkpoint")
    pickles = [name for name in files if name.endswith(PICKLES)]
    if pickles:
        raise ValueError(f"{folder} has pickled files, which run code when loaded: {', '.join(pickles)}; remove them")
    read_json(folder / "config.json")  # an error where it is damaged
    if stated_license(folder) == UNKNOWN:
        raise ValueError(
            f"{folder / 'README.md'} says no licence of the weights: whoever finds them must know. Export with "
            "--license, e.g. --license apache-2.0"
        )
    if not dry_run:
        api = HfApi(token=token_of_environment()) if api is None else api
        step = f"the repository {repo_id} can't be made"
        try:
            api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
            step = f"{folder} can't be uploaded to {repo_id}"
            # Exactly the files of the list: what appears in the folder meanwhile stays.
            api.upload_folder(repo_id=repo_id, repo_type="model", folder_path=folder, allow_patterns=files)
        except Exception as error:  # the library and those below it raise errors of many kinds
            again = f"from fgclip2.hub import publish; publish({str(folder)!r}, {repo_id!r}, False, private={private})"
            raise OSError(
                f"{step}: {error}. The folder is complete; to push it again: python -c {shlex.quote(again)}"
            ) from error
    return files


def check_repo_id(repo_id: str) -> None:
    """Raise a `ValueError` unless `repo_id` is `"namespace/name"`, as the hub writes these."""
    if repo_id.count("/") != 1:
        raise ValueError(f"`repo_id` must be 'namespace/name', got {repo_id!r}")
    validate_repo_id(repo_id)


def token_of_environment() -> str:
    """Return the token in the environment variable `HF_TOKEN`; raise a `ValueError` if there is none."""
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise ValueError("the environment variable HF_TOKEN must be set, to a token that may write to the repository")
    return token


def check_push(repo_id: str, license: str, has_graphs: bool = False) -> None:
    """Check, before any work is done for it, what the upload of a checkpoint needs; don't touch the network.

    Args:
        repo_id: Where it is to go.
        license: Licence of the weights.
        has_graphs: Whether it has ONNX graphs.

    Raises:
        ValueError: `repo_id` is not `"namespace/name"`, there is no token, or the licence is unknown.
        ImportError: A library that is to load the folder before the upload is not installed.
    """
    check_repo_id(repo_id)
    token_of_environment()
    if license == UNKNOWN:
        raise ValueError("the licence of the weights is unknown, and who uploads them must say it: --license")
    if missing := missing_checks(has_graphs):
        raise ImportError(f"the check before an upload needs more: pip install {shlex.join(missing)}")


def export_for_hub(
    model: Any,
    processor: Any,
    folder: str | os.PathLike,
    license: str | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    results: Sequence[Score] = (),
    onnx: Sequence[str] = (),
    push: str | None = None,
    private: bool = True,
    calibration: Calibration | None = None,
) -> Path:
    """Write a folder as [`export_checkpoint`] does, load it as others will, and upload it if `push` is given.

    It is loaded by transformers, where it is installed by sentence-transformers, and, where it has graphs, by
    fgclip2-onnx, see [`verify_folder`]. Nothing is uploaded unless all of them give this package's vectors. Without
    `push` nothing touches the network.

    Args:
        model, processor, folder, license, base_model, datasets, results, onnx: As in [`export_checkpoint`].
        push: Repository to upload to, `"namespace/name"`; `None`: none.
        private: Make a repository that does not exist yet a private one.
        calibration: As in [`export_checkpoint`].

    Returns:
        The folder. It stays where the upload fails, for [`publish`].

    Raises:
        ValueError: As [`export_checkpoint`], [`verify_folder`] and [`publish`]; what an upload lacks is said first.
        ImportError: There is to be an upload, and a library that is to check the folder is not installed.
        OSError: The upload failed.
    """
    license = license_of(model) if license is None else license
    if push is not None:
        check_push(push, license, bool(onnx))
    export_checkpoint(model, processor, folder, license, base_model, datasets, results, onnx, calibration)
    verify_folder(folder)
    if push is not None:
        publish(folder, push, dry_run=False, private=private)
    return Path(folder)
