"""Checkpoints of a run: their state without pickles, their checksums, and which one to go on from."""

from __future__ import annotations

import json
import logging
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import flush_to_disk, read_json, replacing, sha256_of_file

logger = logging.getLogger(__name__)

OPTIMIZER, SCHEDULER, SCALER = (f"{name}.safetensors" for name in ("optimizer", "scheduler", "scaler"))
CHECKSUMS = "checksums.json"
TRAINER_STATE = "trainer_state.json"  # transformers' name
_RANDOM_STATE = "random_state_{}.safetensors"  # of each rank
_HASHING_THREADS = 4


def save_state(state: Any, path: Path) -> None:
    """Write a state dict, of numbers, texts, tensors, and lists, tuples and dicts of these, as safetensors.

    Tensors are stored under the keys that lead to them, the rest as JSON in the metadata.

    Raises:
        ValueError: There is something else in it; the message names it.
    """
    tensors: dict[str, Tensor] = {}
    structure = _encode(state, "", tensors)
    save_file(tensors, path, {"state": json.dumps(structure)})


def load_state(path: Path) -> Any:
    """Read what [`save_state`] wrote, equal in every value and type, on the CPU.

    Raises:
        ValueError: The file was not written by it, or is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return _decode(json.loads(file.metadata()["state"]), file)
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or was not written by this trainer: {error}") from error


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if type(value) is Tensor:
        tensors[name] = value.detach().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):  # pairs, for keys may be numbers
        return {"dict": [[key, _encode(item, f"{name}.{key}".lstrip("."), tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, f"{name}.{number}".lstrip("."), tensors) for number, item in enumerate(value)]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(f"{name} of the training state is a {type(value).__name__}, which checkpoints can't hold")


def _decode(value: Any, file: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return file.get_tensor(content)
    if kind == "dict":
        return {key: _decode(item, file) for key, item in content}
    items = [_decode(item, file) for item in content]
    return items if kind == "list" else tuple(items)


def save_random_state(folder: Path, rank: int, device: torch.device) -> None:
    """Write the random states of Python, NumPy, torch's CPU and the device of this rank."""
    name, keys, *numbers = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *numbers),
        "cpu": torch.get_rng_state(),
    }
    if device.type != "cpu":
        state["device"] = getattr(torch, device.type).get_rng_state(device)
    save_state(state, folder / _RANDOM_STATE.format(rank))


def load_random_state(folder: Path, rank: int, device: torch.device) -> bool:
    """Set what [`save_random_state`] wrote; `False` if this rank has none there."""
    path = folder / _RANDOM_STATE.format(rank)
    if not path.is_file():
        return False
    state = load_state(path)
    random.setstate(state["python"])
    name, keys, *numbers = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *numbers))
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and "device" in state:
        getattr(torch, device.type).set_rng_state(state["device"], device)
    return True


def seal_checkpoint(folder: Path) -> None:
    """Write `checksums.json`, of all files of a checkpoint, last of all; then a power cut can't harm it any more."""
    files = _files_in(folder)

    def flush_and_hash(name: str) -> str:
        flush_to_disk(folder / name)
        return sha256_of_file(folder / name)

    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        digests = dict(zip(files, pool.map(flush_and_hash, files), strict=True))
    with replacing(folder / CHECKSUMS) as unfinished:
        unfinished.write_text(json.dumps({"sha256": digests}, indent=2), encoding="utf-8")
    flush_to_disk(folder.parent)


def check_checkpoint(folder: Path) -> None:
    """Compare the files of a checkpoint with its checksums; without any, it is of a release before 0.3.

    Raises:
        ValueError: A file has other content than it was written with, or is missing; the message names it.
    """
    if not (folder / CHECKSUMS).is_file():
        return
    digests, present = read_json(folder / CHECKSUMS)["sha256"], set(_files_in(folder))
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        found = pool.map(lambda name: sha256_of_file(folder / name) if name in present else None, digests)
        for (name, digest), value in zip(digests.items(), found, strict=True):
            if value != digest:
                what = "is missing" if value is None else f"has other content than {CHECKSUMS} says"
                raise ValueError(
                    f"{folder / name} {what}, so the checkpoint is damaged: copy it again, or remove {folder} to go on "
                    "from the checkpoint before it"
                )


def _files_in(folder: Path) -> list[str]:
    """Return the files of a checkpoint but for its checksums, at any depth."""
    files = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in files if name != CHECKSUMS]


def last_checkpoint(output_dir: str | Path) -> str | None:
    """Return the newest `checkpoint-N` in a folder that was written to its end, or `None`.

    A run may die while it writes one. `checksums.json` is written last, when every rank has written its part; a
    checkpoint of a release before 0.3 has none, nor random states in safetensors, and `trainer_state.json` was last.
    """
    found = []
    for folder in Path(output_dir).glob("checkpoint-*"):
        if step := re.fullmatch(r"checkpoint-(\d+)", folder.name):
            try:
                if not (folder / CHECKSUMS).is_file():
                    read_json(folder / TRAINER_STATE)
                    if any(folder.glob(_RANDOM_STATE.format("*"))):
                        raise FileNotFoundError(CHECKSUMS)
                found.append((int(step[1]), str(folder)))
            except (OSError, ValueError):
                logger.warning("%s was not written to its end; it is passed over", folder)
    return max(found)[1] if found else None


def best_checkpoint(recorded: str, checkpoint: Path, step: int, output_dir: str | Path) -> str | None:
    """Return where the best checkpoint of a run lies, or `None` if that is nowhere here.

    It is looked for beside the checkpoint that the run goes on from, for a run may come from another machine, where
    another run may have its path here. Only a checkpoint in `output_dir` is trusted about other places.

    Args:
        recorded: Path of the best checkpoint in the state of the run.
        checkpoint: Folder that the run goes on from; on the hub it may have another name than the run gave it.
        step: Step of `checkpoint`.
        output_dir: Folder of the run.
    """
    is_own = checkpoint.parent.resolve() == Path(output_dir).resolve()
    run = Path(output_dir) if is_own else checkpoint.parent  # old ones are removed by their paths in `output_dir`
    name, places = Path(recorded).name, []
    if name == f"checkpoint-{step}":
        places.append(run / checkpoint.name)
    elif re.fullmatch(r"checkpoint-\d+", name):
        places.append(run / name)
    if is_own:
        places.append(Path(recorded))
    return next((str(place) for place in places if place.is_dir()), None)


def check_resumable(checkpoint: Path) -> None:
    """Make sure that a run can go on from there.

    Raises:
        ValueError: The folder has weights only, or weights in a pickle.
    """
    by_deepspeed = any(checkpoint.glob("global_step*"))
    if not by_deepspeed and not any((checkpoint / name).exists() for name in (SCHEDULER, "scheduler.pt")):
        raise ValueError(
            f"{checkpoint} has no optimizer to go on with (save_only_model=True, or no checkpoint of a run): start a "
            "new run with its weights as the model"
        )
    for name in ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin"):
        if (checkpoint / name).exists():
            raise ValueError(
                f"{checkpoint / name} must be safetensors, for a pickle can run code when it is loaded: remove it if "
                "the folder has its weights as safetensors too"
            )
