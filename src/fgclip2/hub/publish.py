"""Checkpoint folders to the hub."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id

from ..files import read_json

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
        api: A `huggingface_hub.HfApi`; `None`: one with the stored token.
        private: Make a repository that does not exist yet a private one.

    Returns:
        Paths of the files in the repository, sorted. Hidden files are never uploaded.

    Raises:
        ValueError: `repo_id` is no such name; or the folder is no complete checkpoint, or has pickled files, which run
            code when loaded.
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
    if not dry_run:
        api = HfApi() if api is None else api
        api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        # Exactly the files of the list: what appears in the folder meanwhile stays.
        api.upload_folder(repo_id=repo_id, repo_type="model", folder_path=folder, allow_patterns=files)
    return files
