"""The data sets of `fgclip2 train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .train_options import FORMATS, DataOptions

if TYPE_CHECKING:
    from ..data import Columns, RecordDataset, ShardedRecords
    from ..training import FGClip2TrainingArguments


def open_train_data(
    options: DataOptions, args: FGClip2TrainingArguments, world_size: int | None = None
) -> RecordDataset | ShardedRecords:
    """Open `train_data`: records, or a stream of shards for this process.

    Args:
        options: Of the command.
        args: Of the run: batch size, seed, and what to do about errors.
        world_size: `None`: of `args`; to plan for other processes than those that run.

    Raises:
        ValueError: A source can't be read, or shards are mixed with other formats.
    """
    paths = options.train_data or []
    formats = _formats(paths, options.data_format)
    if "shards" not in formats:
        return _open(paths, formats, options.images_folder, options)
    if set(formats) != {"shards"}:
        raise ValueError(f"train_data has the formats {', '.join(formats)}; allowed: shards, or anything without them")
    return open_shards(options, args, world_size)


def open_shards(
    options: DataOptions, args: FGClip2TrainingArguments, world_size: int | None = None, shuffle: bool = True
) -> ShardedRecords:
    """Open the shards of `train_data` as a stream for this process."""
    from ..data import ShardedRecords

    paths = options.train_data or []
    if options.images_folder:
        raise ValueError("images_folder does not go with shards, which hold their images")
    if len(paths) > 1 and not all(path.endswith(".tar") for path in paths):
        raise ValueError(f"train_data={', '.join(paths)}; allowed: one folder or index of shards, or several .tar")
    return ShardedRecords(
        paths if len(paths) > 1 else paths[0],
        batch_size=args.per_device_train_batch_size,
        rank=0 if world_size else args.process_index,
        world_size=world_size or args.world_size,
        drop_last=True,
        shuffle=shuffle,
        buffer_size=options.shuffle_buffer,
        seed=args.order_seed,
        language=_each("language", options.language, 1)[0],  # type: ignore[arg-type]  # checked there
        on_error=args.on_error,
    )


def open_eval_data(options: DataOptions) -> RecordDataset | None:
    """Open `eval_data`, if there is any.

    Of several formats and languages, which are those of `train_data` one by one, none is taken for granted here.

    Raises:
        ValueError: A source can't be read, or is shards.
    """
    paths = options.eval_data
    if not paths:
        return None
    same = options.data_format and len(options.data_format) == 1 and options.data_format != ["shards"]
    formats = _formats(paths, options.data_format if same else None)
    if "shards" in formats:
        raise ValueError("eval_data has shards; allowed: finehard, fineregion-cn, pairs or folder")
    language = options.language if options.language and len(options.language) == 1 else None
    folders = options.eval_images_folder or options.images_folder
    return _open(paths, formats, folders, replace(options, language=language))


def _formats(paths: Sequence[str], given: list[str] | None) -> list[str]:
    from ..data.validation import guess_format

    formats = _each("data_format", given, len(paths))
    for format in formats:
        if format not in (None, *FORMATS):
            raise ValueError(f"data_format={format!r}; allowed: {', '.join(FORMATS)}")
    return [format or guess_format(path)[0] for path, format in zip(paths, formats, strict=True)]


def _open(
    paths: Sequence[str], formats: Sequence[str], folders: list[str] | None, options: DataOptions
) -> RecordDataset:
    from ..data import Columns, concatenate

    columns = Columns(
        options.image_column, options.short_caption_column, options.long_caption_column, options.language_column
    )
    if columns != Columns() and "pairs" not in formats:
        raise ValueError(f"names of columns are given, but the format is {', '.join(formats)}; allowed with: pairs")
    sources = zip(
        paths,
        formats,
        _each("images_folder", folders, len(paths)),
        _each("language", options.language, len(paths)),
        strict=True,
    )
    return concatenate([open_source(*source, columns) for source in sources])


def open_source(path: str, format: str, folder: str | Path | None, language: Any, columns: Columns) -> RecordDataset:
    """Records of one path, in any format but shards."""
    from ..data import read_finehard, read_fineregion_cn, read_image_folder, read_pairs

    if format == "folder":
        if folder:
            raise ValueError(f"images_folder={folder} does not go with {path}, a folder of images")
        return read_image_folder(path, language=language)
    if format == "pairs":
        return read_pairs(path, folder, columns, language)
    folder = folder or str(path if Path(path).is_dir() else Path(path).parent)
    if format == "fineregion-cn":
        return read_fineregion_cn(path, folder, language or "zh")
    return read_finehard(path, folder, language)


def _each(name: str, values: list[str] | None, count: int) -> list[str | None]:
    """One value for all, or one for each."""
    if not values:
        return [None] * count
    if len(values) == 1:
        return [*values] * count
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values for {count} sources; allowed: 1 or {count}")
    return list(values)


def sources(options: DataOptions) -> list[dict[str, str]]:
    """Paths of `train_data` with their formats."""
    paths = options.train_data or []
    formats = _formats(paths, options.data_format)
    return [{"path": path, "format": format} for path, format in zip(paths, formats, strict=True)]
