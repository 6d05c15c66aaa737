"""Checkpoints of runs in folders and on the hub: pushed once they are whole, located and fetched to go on from.

No pickle of the hub is ever read.
"""

from __future__ import annotations

import logging
import re
from concurrent.futures import Future
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi
from transformers.trainer_utils import HubStrategy

from ..distributed import gather_objects, rank
from ..files import read_json
from .checkpoints import CHECKSUMS, last_checkpoint

logger = logging.getLogger(__name__)

LAST = "last-checkpoint"  # transformers' name for the newest one in a repository
STRATEGIES = (HubStrategy.END, HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)
_ON_HUB = re.compile(rf"\w[\w.-]*/\w[\w.-]*(/({LAST}|checkpoint-\d+))?", re.ASCII)
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


def locate_checkpoint(
    name: str | bool, output_dir: str | Path, revision: str | None = None, token: str | None = None
) -> str:
    """Return the folder of a checkpoint to go on from; all ranks have to call this, and what is wrong is wrong on all.

    Args:
        name: A folder, or what [`fetch_checkpoint`] takes; `True`: the last complete checkpoint in `output_dir`.
        output_dir: Folder of the run.
        revision, token: As in [`fetch_checkpoint`]; without effect, but for a warning, on a folder.

    Raises:
        ValueError: There is no such checkpoint, or ranks see different ones.
    """
    found = last_checkpoint(output_dir) if name is True else str(name)
    seen = gather_objects((found, found is not None and Path(found).is_dir()))
    if len(set(seen)) > 1:
        folder = output_dir if name is True else name
        raise ValueError(f"{folder} is not the same on all processes: choose a folder that all nodes share")
    if found is None:
        raise ValueError(f"{output_dir} has no complete checkpoint to go on from")
    if not Path(found).is_dir():
        return _fetch_on_all_ranks(found, revision, token)
    if revision is not None and rank() == 0:
        logger.warning("`resume_revision` %s has no effect: %s is a folder, and not on the hub", revision, found)
    return found


def _fetch_on_all_ranks(name: str, revision: str | None, token: str | None) -> str:
    folder, problem = Path(), None
    try:
        folder = fetch_checkpoint(name, revision, token)
    except ValueError as error:
        problem = str(error)
    outcomes = gather_objects((problem, folder.parent.name))
    if problems := [found for found, _ in outcomes if found]:
        raise ValueError(problems[0])
    if len(set(outcomes)) > 1:
        raise ValueError(f"{name} has moved while it was fetched: give its commit as `resume_revision`")
    return str(folder)


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
        ValueError: The name is more likely a path, there is no such checkpoint, the hub can't be reached, or the
            checkpoint has files that are neither safetensors nor text, as those of FSDP, DeepSpeed and other trainers.
    """
    _check_meant_for_hub(name, revision)
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


def _check_meant_for_hub(name: str, revision: str | None) -> None:
    """Raise a `ValueError` about what may be a mistyped path, for whoever owns that name on the hub could answer."""
    if not _ON_HUB.fullmatch(name):
        raise ValueError(
            f"`resume_from_checkpoint`: {name} is no folder, and no checkpoint on the hub, which would be owner/name, "
            f"owner/name/{LAST} or owner/name/checkpoint-500"
        )
    owner = name.partition("/")[0]
    if revision is None and Path(owner).is_dir():
        raise ValueError(
            f"`resume_from_checkpoint`: {name} is no folder, and is not looked for on the hub, for {owner} is a folder "
            "here: correct the path, or set `resume_revision`, e.g. to main, if it is on the hub"
        )
