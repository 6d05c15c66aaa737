"""Checkpoints of runs on the hub: pushed once they are whole, and fetched to go on from. No pickle is ever read."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi
from transformers.trainer_utils import HubStrategy

from ..files import read_json
from .checkpoints import CHECKSUMS

LAST = "last-checkpoint"  # transformers' name for the newest one in a repository
STRATEGIES = (HubStrategy.END, HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)
_DATA_ALONE = {".safetensors", ".json", ".txt", ".model", ".md", ".jinja"}


def push_checkpoint(
    folder: Path, repo_id: str, strategy: str, token: str | None = None, revision: str | None = None
) -> Future:
    """Begin to upload a sealed checkpoint, in one commit.

    Args:
        folder: `checkpoint-N` of a run.
        repo_id: Repository on the hub, which is there.
        strategy: `"checkpoint"`: as `last-checkpoint`, in place of the one before; `"all_checkpoints"`: by its own
            name.
        token, revision: As in `HfApi.upload_folder`.
    """
    place = LAST if strategy == HubStrategy.CHECKPOINT else folder.name
    return HfApi(token=token).upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        path_in_repo=place,
        commit_message=f"Training in progress: {folder.name}",
        revision=revision,
        run_as_future=True,
    )


def fetch_checkpoint(name: str, revision: str | None = None, token: str | None = None) -> Path:
    """Fetch a checkpoint of a run from the hub into its cache.

    Only the files that its `checksums.json` lists are downloaded, and none that could run code when it is read, so
    [`check_checkpoint`] knows them all.

    Args:
        name: `owner/name`, of which `last-checkpoint` is taken, or `owner/name/checkpoint-500`.
        revision: Branch, tag or commit.
        token: Of the hub; `None`: that of this machine, if there is one.

    Returns:
        The folder, whose parent has the name of the commit.

    Raises:
        ValueError: There is no such checkpoint, the hub can't be reached, or the checkpoint has files that are neither
            safetensors nor text, as those of FSDP, DeepSpeed and other trainers.
    """
    owner, _, rest = name.partition("/")
    repository, _, inside = rest.partition("/")
    repo_id, place = f"{owner}/{repository}", inside or LAST
    api = HfApi(token=token)
    try:
        checksums = Path(api.hf_hub_download(repo_id, f"{place}/{CHECKSUMS}", revision=revision))
        files = sorted(read_json(checksums)["sha256"])
        if unsafe := [file for file in files if PurePosixPath(file).suffix not in _DATA_ALONE]:
            raise ValueError(
                f"{place}/{unsafe[0]} may be a pickle, which can run code when it is read: only safetensors and text "
                "are taken from the hub (checkpoints under FSDP and DeepSpeed have other files)"
            )
        commit = checksums.parents[place.count("/") + 1].name
        api.snapshot_download(repo_id, revision=commit, allow_patterns=[f"{place}/{file}" for file in files])
    except (OSError, ValueError, KeyError, TypeError) as error:  # the hub's errors are of the first two kinds
        raise ValueError(
            f"`resume_from_checkpoint`: {name} is no folder, and as a checkpoint {place} of {repo_id} on the hub: "
            f"{' '.join(str(error).split())}"
        ) from error
    return checksums.parent
