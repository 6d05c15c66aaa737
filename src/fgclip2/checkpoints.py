"""Where a checkpoint is: in a folder, on the Hugging Face hub or on ModelScope; if it can't be had, told at once."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from ._imports import require
from .checks import environment_flag

logger = logging.getLogger(__name__)

MODELSCOPE_PREFIX = "modelscope://"
# Weights as safetensors, configurations and vocabularies: no pickles, and no code.
MODELSCOPE_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]


def locate_checkpoint(name: str | os.PathLike, **hub_arguments: Any) -> tuple[str, dict[str, Any]]:
    """Find a checkpoint or an adapter before it is loaded.

    Loading itself asks for many files, and for each it tries a hub that can't be reached several times: a wrong name
    would be told after a minute. This asks once.

    Args:
        name: A folder; an id of the Hugging Face hub; or an id of ModelScope, as `modelscope://namespace/name`, and
            also without the prefix where the environment variable `FGCLIP2_USE_MODELSCOPE=1` is set. Of ModelScope,
            safetensors, JSON and vocabularies are downloaded.
        hub_arguments: `revision`, `token`, `cache_dir`, `local_files_only` and other arguments of `from_pretrained`.

    Returns:
        The folder or hub id to load from, and the hub arguments to load it with.

    Raises:
        OSError: There is no such checkpoint, or it is neither in a folder nor in the cache, and the hub can't be
            reached.
        ImportError: The checkpoint is to come from ModelScope, whose library is not installed.
    """
    name = os.fspath(name)
    if name.startswith("~") and not Path(name).exists():
        name = str(Path(name).expanduser())  # which a shell leaves where it is quoted or follows =
    if Path(name).is_file():
        raise OSError(f"can't load the checkpoint {name}: it is a file; give the folder that it is in")
    if Path(name).exists():
        return name, hub_arguments
    if name.startswith(MODELSCOPE_PREFIX) or environment_flag("FGCLIP2_USE_MODELSCOPE"):
        given = ("revision", "cache_dir", "local_files_only")
        settings = {key: hub_arguments[key] for key in given if hub_arguments.get(key) is not None}
        download = require("modelscope", "modelscope").snapshot_download
        try:
            folder = download(name.removeprefix(MODELSCOPE_PREFIX), allow_patterns=MODELSCOPE_FILES, **settings)
        except Exception as error:  # its library and those below it raise errors of many kinds
            raise OSError(f"can't load the checkpoint {name} from ModelScope: {error}") from error
        return str(folder), {key: value for key, value in hub_arguments.items() if key not in (*given, "token")}
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        id_of_page = name.removeprefix(f"{constants.ENDPOINT}/")
        hint = f"; give the id alone, {id_of_page}" if id_of_page != name else ""
        raise OSError(
            f"can't load the checkpoint {name}: there is no such folder, and it is no id of the hub{hint}"
        ) from error
    revision, cache_dir = hub_arguments.get("revision"), hub_arguments.get("cache_dir")
    is_cached = any(
        isinstance(try_to_load_from_cache(name, file, cache_dir, revision), str)
        for file in ("config.json", "adapter_config.json")
    )
    if constants.HF_HUB_OFFLINE or hub_arguments.get("local_files_only"):
        if is_cached:
            return name, hub_arguments
        raise OSError(
            f"can't load the checkpoint {name}: there is no such folder, it is not in the cache of the hub, and "
            "HF_HUB_OFFLINE or local_files_only forbids to download it"
        )
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), token=hub_arguments.get("token"))
    except GatedRepoError:
        pass  # transformers says what to do
    except RepositoryNotFoundError as error:
        raise OSError(
            f"can't load the checkpoint {name}: there is no such folder, and no such model at {constants.ENDPOINT} "
            "(for a private one, run `hf auth login`)"
        ) from error
    except HfHubHTTPError:
        pass  # the hub has answered: that a file or a revision is missing is told by what needs it
    except Exception as error:  # of the HTTP library, which differs between releases of huggingface_hub
        if not is_cached:
            raise OSError(
                f"can't load the checkpoint {name}: there is no such folder, and {constants.ENDPOINT} can't be reached "
                f"({error}). Give a folder, set HF_ENDPOINT to a mirror of the hub, or load from ModelScope with "
                "FGCLIP2_USE_MODELSCOPE=1"
            ) from error
        logger.warning("%s can't be reached; %s comes from the cache", constants.ENDPOINT, name)
        hub_arguments = {**hub_arguments, "local_files_only": True}
    return name, hub_arguments
