"""Checkpoint folders to the hub."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id

from ..files import read_json
from .card import UNKNOWN, Score, stated_license
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
    """
    folder = Path(folder)
    if repo_id.count("/") != 1:
        raise ValueError(f"`repo_id` must be 'namespace/name', got {repo_id!r}")
    validate_repo_id(repo_id)
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
        api = _api() if api is None else api
        api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        # Exactly the files of the list: what appears in the folder meanwhile stays.
        api.upload_folder(repo_id=repo_id, repo_type="model", folder_path=folder, allow_patterns=files)
    return files


def _api() -> HfApi:
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise ValueError("the environment variable HF_TOKEN must be set, to a token that may write to the repository")
    return HfApi(token=token)


def export_for_hub(
    model: Any,
    processor: Any,
    folder: str | os.PathLike,
    license: str = UNKNOWN,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    results: Sequence[Score] = (),
    push: str | None = None,
    private: bool = True,
) -> Path:
    """Write a folder as [`export_checkpoint`] does, load it as others will, and upload it if `push` is given.

    It is loaded by transformers and, where it is installed, sentence-transformers, see [`verify_folder`]. Nothing is
    uploaded unless both give this package's vectors. Without `push` nothing touches the network.

    Args:
        model, processor, folder, license, base_model, datasets, results: As in [`export_checkpoint`].
        push: Repository to upload to, `"namespace/name"`; `None`: none.
        private: Make a repository that does not exist yet a private one.

    Returns:
        The folder. It stays where the upload fails, for [`publish`].

    Raises:
        ValueError: As [`export_checkpoint`], [`verify_folder`] and [`publish`]; what an upload lacks is said first.
        ImportError: There is to be an upload, and sentence-transformers is not installed.
    """
    api = None
    if push is not None:
        api = _api()
        if license == UNKNOWN:
            raise ValueError("the licence of the weights is unknown, and who uploads them must say it: --license")
        if missing_checks():
            raise ImportError(f"the check before an upload needs more: pip install {shlex.join(missing_checks())}")
        validate_repo_id(push)
    export_checkpoint(model, processor, folder, license, base_model, datasets, results)
    verify_folder(folder)
    if push is not None:
        publish(folder, push, dry_run=False, api=api, private=private)
    return Path(folder)
