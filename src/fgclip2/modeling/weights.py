"""Read from headers what the safetensors files of checkpoints and adapters hold, before memory is taken for any of it.

A folder from elsewhere may claim anything: sizes that no machine has, files outside of it, pickles, which run code when
loaded. What fits its own headers, and the headers their files, is as large as the files are.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.utils.hub import cached_file

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")

# The header of the largest published model has 0.1 MiB. A file may claim a million tensors, which take minutes to read.
MAX_HEADER_BYTES = 4 * 2**20

# Bytes of a value, by the names of safetensors. Of other types, only the place in the file is checked.
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOAT_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PIECE_BYTES = 16 * 2**20


HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


class TensorInfo(NamedTuple):
    """The entry of a tensor in a header."""

    dtype: str  # as safetensors names it, e.g. "F16"
    shape: tuple[int, ...]
    start: int  # of its values, in bytes from the beginning of the file


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read_json_object(path: str | os.PathLike) -> dict[str, Any]:
    """Read a small JSON file whose content is an object.

    Raises:
        ValueError: It is larger than 4 MiB, not JSON in UTF-8, or no object; the message names it.
    """
    path = Path(path)
    if path.stat().st_size > MAX_HEADER_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; allowed: up to {MAX_HEADER_BYTES:,}")
    try:
        content = json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON in UTF-8, or is broken or cut off: {error}; get it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object")
    return content


def read_header(path: str | os.PathLike) -> dict[str, TensorInfo]:
    """Read names, dtypes and shapes of the tensors of a safetensors file, and check that the file has room for them.

    Raises:
        ValueError: The header is broken, larger than 4 MiB, or does not fit the file; the message names the file.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, MAX_HEADER_BYTES):
            allowed = f"up to {MAX_HEADER_BYTES:,}, and no more than the file has"
            raise ValueError(f"{path} is no whole safetensors file: a header of {length:,} bytes; allowed: {allowed}")
        try:
            content = json.loads(file.read(length))
            content.pop("__metadata__", None)
            tensors = {name: _tensor_info(name, entry, 8 + length) for name, entry in content.items()}
            end = max((entry["data_offsets"][1] for entry in content.values()), default=0)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is no whole safetensors file: its header is broken ({error!r:.200})") from error
    if 8 + length + end != size:
        raise ValueError(f"{path} is no whole safetensors file: it has {size:,} bytes, and should {8 + length + end:,}")
    return tensors


def _tensor_info(name: str, entry: dict[str, Any], data_start: int) -> TensorInfo:
    dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(value) is int and value >= 0 for value in (*shape, start, end - start)):
        raise ValueError(f"{name} has the shape {shape} at {start}:{end}")
    if dtype in _ITEM_BYTES and math.prod(shape) * _ITEM_BYTES[dtype] != end - start:
        raise ValueError(f"{name} of {dtype} {shape} does not take {end - start} bytes")
    return TensorInfo(dtype, shape, data_start + start)


def read_headers(files: Iterable[Path]) -> dict[str, tuple[Path, TensorInfo]]:
    """Read the headers of all safetensors files of a checkpoint: name -> its file, and what it is."""
    return {name: (path, info) for path in files for name, info in read_header(path).items()}


def read_floats(headers: Mapping[str, tuple[Path, TensorInfo]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Read what [`read_headers`] found piece by piece: (name, values of one dimension), valid until the next one.

    A model that maps its files into memory has each page only once it is used; looking at its weights brings in all.
    """
    buffer = bytearray(PIECE_BYTES)
    for name, (path, info) in headers.items():
        dtype = _FLOAT_TYPES.get(info.dtype)
        if dtype is None:
            continue
        with path.open("rb") as file:
            file.seek(info.start)
            left = math.prod(info.shape) * dtype.itemsize
            while left:
                size = file.readinto(memoryview(buffer)[: min(left, PIECE_BYTES)])
                yield name, torch.frombuffer(buffer, dtype=dtype, count=size // dtype.itemsize)
                left -= size


def hub_arguments_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Pick those that say where on the hub a file is and how to get it: [`HUB_ARGUMENTS`] that are set."""
    return {name: arguments[name] for name in HUB_ARGUMENTS if arguments.get(name) is not None}


def find_file(source: str | os.PathLike, name: str, **hub_arguments: Any) -> Path | None:
    """Find a file of a folder or hub id, where it lands in the cache; `None` if there is no such file."""
    found = cached_file(os.fspath(source), name, _raise_exceptions_for_missing_entries=False, **hub_arguments)
    return None if found is None else Path(found)


def base_of_adapter(source: str | os.PathLike, **hub_arguments: Any) -> tuple[str, str | None] | None:
    """Return name and revision of the base model of an adapter, or `None` for a checkpoint.

    Raises:
        ValueError: The adapter names no base model.
        FileNotFoundError: It names a folder that is not there.
    """
    if Path(source, hub_arguments.get("subfolder") or "", "config.json").is_file():
        return None  # transformers takes the weights beside it
    path = find_file(source, ADAPTER_CONFIG, **hub_arguments)
    if path is None:
        return None
    config = read_json_object(path)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise ValueError(f"{source} is an adapter that names no base model in {ADAPTER_CONFIG}: write its name there")
    check_base_folder(source, base)
    return base, revision if isinstance(revision, str) else None


def check_base_folder(source: object, base: str) -> None:
    """Raise a `FileNotFoundError` if `base`, the base model of the adapter `source`, is a folder that is not there."""
    is_path = Path(base).is_absolute() or base.startswith((".", "~"))
    if is_path and not Path(base).expanduser().is_dir():
        raise FileNotFoundError(
            f"the adapter {source} has the base model {base}: there is no such folder; put it there, or write where it "
            f"is into {ADAPTER_CONFIG}"
        )


def find_weights(source: str | os.PathLike, **hub_arguments: Any) -> list[Path]:
    """Find the weights of a checkpoint, in one file or in the shards that an index names.

    Args:
        source: Folder or hub id.
        hub_arguments: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download` or `subfolder`.

    Returns:
        The safetensors files; those of the hub are in its cache then.

    Raises:
        OSError: There are none; pickles are named, and never read.
        ValueError: The index is broken, or names anything but safetensors files beside it.
    """
    folder = Path(source, hub_arguments.get("subfolder") or "")
    if any(folder.glob("shard-*-model-*.safetensors")):  # which transformers would take in place of all others
        raise ValueError(
            f"{folder} has shards of a distributed checkpoint (shard-*.safetensors): consolidate them first"
        )
    single = find_file(source, WEIGHTS, **hub_arguments)
    if single is not None:
        return [single]
    index = find_file(source, INDEX, **hub_arguments)
    if index is None:
        raise OSError(f"{source} has neither {WEIGHTS} nor {INDEX}{_pickles_in(folder)}")
    weight_map = read_json_object(index).get("weight_map")
    shards: list[Any] = list(weight_map.values()) if isinstance(weight_map, dict) else [weight_map]
    for shard in shards:
        # An index that names ../../somewhere must not make anybody read or copy from there.
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ValueError(f"{index} must name .safetensors files in this folder, got {shard!r:.200}")
    files = {shard: find_file(source, shard, **hub_arguments) for shard in sorted(set(shards))}
    for shard, file in files.items():
        if file is None:
            raise OSError(f"{index} names {shard}, which is missing: the download is not complete")
    return [file for file in files.values() if file is not None]


def _pickles_in(folder: Path) -> str:
    found = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern)) if folder.is_dir() else []
    return (
        f"; {', '.join(found)} may run code when loaded, and is never read: save it as safetensors where you trust it, "
        "by model.save_pretrained(folder)"
        if found
        else ""
    )


# ---------------------------------------------------------------------------------------------------------------------
# Checking
# ---------------------------------------------------------------------------------------------------------------------


def differences(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Name the tensors that are missing, unknown or of another shape, with what they are and should be."""
    return [
        f"{name}: {found.get(name, 'missing')}, expected {expected.get(name, 'no such tensor')}"
        for name in sorted(expected.keys() | found.keys())
        if found.get(name) != expected.get(name)
    ]


def shapes_of(make_model: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tensors of a model without making them.

    Raises:
        ValueError: The sizes in its configuration are no sizes of a model.
    """
    try:
        with torch.device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in make_model().state_dict().items()}
    except (RuntimeError, OverflowError, TypeError) as error:  # numbers that no tensor can have
        raise ValueError(f"the sizes in the configuration are no sizes of a model: {error!s:.200}") from error


def check_finite(weights: Iterable[tuple[str, torch.Tensor]], source: object) -> None:
    """Look at weights by their names, those on the meta device left out.

    Raises:
        ValueError: One has values that are not finite; the message names `source` and the weight.
    """
    for name, weight in weights:
        if weight.device.type == "meta" or weight.dtype.itemsize == 1 or not weight.numel():
            continue
        # One NaN makes both NaN. `isfinite` of all values takes more memory than they do.
        if not all(bound.isfinite() for bound in weight.detach().aminmax()):
            raise ValueError(f"{source} has weights that are not finite, e.g. {name}: it is damaged, get it again")


def check_adapter(source: str | os.PathLike, **hub_arguments: Any) -> None:
    """Look at the files of an adapter before PEFT makes matrices of the ranks that it claims.

    Args:
        source, hub_arguments: As in [`find_weights`].

    Raises:
        ValueError: One of the two files is missing or broken, the ranks are not those of the tensors, or a value is not
            finite.
    """
    files: dict[str, Path] = {}
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        file = find_file(source, name, **hub_arguments)
        if file is None:
            raise ValueError(
                f"{source} has no {name}; allowed: an adapter saved as safetensors. adapter_model.bin is a pickle, "
                "which may run code, and is never read"
            )
        files[name] = file
    config = read_json_object(files[ADAPTER_CONFIG])
    headers = read_headers([files[ADAPTER_WEIGHTS]])
    matrices = [info for name, (_, info) in headers.items() if info.shape and re.search(r"lora_(embedding_)?A", name)]
    stored = [info.shape[0] for info in matrices]
    pattern = config.get("rank_pattern")
    ranks = [*([config["r"]] if "r" in config else ()), *(pattern.values() if isinstance(pattern, dict) else ())]
    for rank in ranks:
        if type(rank) is not int or not 1 <= rank <= max(stored, default=0):
            raise ValueError(
                f"{source} has the rank {rank!r:.80} in {ADAPTER_CONFIG}, but matrices of rank {max(stored, default=0)}"
            )
    check_finite(read_floats(headers), source)
