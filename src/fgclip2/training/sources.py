"""The data sets of a run, by its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checks import check_choice, check_positive_integer
from ..data import Columns, RecordDataset, ShardedRecords, concatenate
from ..data.formats import FORMATS, WITH_IMAGES, for_each_source, open_records
from ..data.readers.files import SUFFIXES
from ..data.shard_files import INDEX_NAME, is_index
from ..data.validation import guess_format
from ..distributed import gather_objects
from .arguments import FGClip2TrainingArguments
from .settings import DataSettings, split_name

_COLUMNS = (
    "image_column",
    "short_caption_column",
    "long_caption_column",
    "language_column",
    "label_column",
)  # in the order of `Columns`


def open_train_data(
    settings: DataSettings, args: FGClip2TrainingArguments, world_size: int | None = None
) -> RecordDataset | ShardedRecords:
    """Open `train_data`: records, or a stream of shards for this process.

    Args:
        settings: What to open.
        args: Arguments of the run: batch size, seed, and what to do about errors.
        world_size: Processes to plan for; `None`: those that run.

    Raises:
        ValueError: A source can't be read, or shards are mixed with other formats.
    """
    paths = settings.train_data or []
    formats = _formats(paths, settings.data_format, settings)
    if "shards" not in formats:
        opened = _open(paths, formats, settings.images_folder, settings)
        rates = for_each_source("sampling_rates", settings.sampling_rates or [1.0], len(opened))
        return concatenate(opened, rates if settings.sampling_rates or len(opened) > 1 else None)
    if set(formats) != {"shards"}:
        raise ValueError(
            f"`train_data` must be all shards or none, got the formats {', '.join(formats)}: "
            "write the others as shards (fgclip2.data.write_shards)"
        )
    if settings.images_folder:
        folders = ", ".join(settings.images_folder)
        raise ValueError(f"`images_folder` must be left out with shards, which hold their images, got {folders}")
    check_positive_integer("`shuffle_buffer`", settings.shuffle_buffer)
    records = ShardedRecords(
        paths,
        batch_size=args.per_device_train_batch_size,
        rank=0 if world_size else args.process_index,
        world_size=world_size or args.world_size,
        drop_last=True,
        buffer_size=settings.shuffle_buffer,
        seed=args.order_seed,
        language=for_each_source("language", settings.language, len(paths)),
        on_error=args.on_error,
        language_batches=args.language_batches,
        follow_links=settings.follow_links,
        sampling_rates=for_each_source("sampling_rates", settings.sampling_rates or [1.0], len(paths)),
        language_shares=args.shares_of_languages,
    )
    # Where one saw another folder, or could not read what others could, ranks would wait for each other without end.
    if len(set(gather_objects(tuple(records.shards)))) > 1:
        raise ValueError(
            f"the shards of {', '.join(paths)} are not the same on all processes: they must see the same files"
        )
    return records


def open_eval_data(settings: DataSettings) -> RecordDataset | dict[str, RecordDataset] | None:
    """Open `eval_data`, if there is any: one set of all its paths, or a dict of sets where these have names.

    Of several formats and languages, which are those of `train_data` one by one, none is taken for granted here; nor is
    one format for a path that can't be of it, nor names of columns where no path is pairs.

    Raises:
        ValueError: A source can't be read, or some sources have names and others have none.
    """
    if not settings.eval_data:
        return None
    names, paths = zip(*map(split_name, settings.eval_data), strict=True)
    if None in names and any(names):
        unnamed = settings.eval_data[names.index(None)]
        raise ValueError(f"`eval_data` must be NAME=PATH for all sources or for none, got {unnamed} without a name")
    given = settings.data_format[0] if settings.data_format and len(settings.data_format) == 1 else None
    formats = _formats(paths, [given if given and _can_be(path, given) else None for path in paths], settings)
    language = settings.language if settings.language and len(settings.language) == 1 else None
    columns: Any = {} if "pairs" in formats else dict.fromkeys(_COLUMNS)  # those of `train_data`
    folders: Any = settings.eval_images_folder
    if not folders:  # that of the records to train on, for what does not have its images in itself
        needed = [format not in WITH_IMAGES for format in formats]
        spread = for_each_source("images_folder", settings.images_folder if any(needed) else None, len(paths))
        folders = [folder if needs else None for folder, needs in zip(spread, needed, strict=True)]
    opened = _open(paths, formats, folders, replace(settings, language=language, **columns))
    sets: dict[str | None, list[RecordDataset]] = {}
    for name, records in zip(names, opened, strict=True):
        sets.setdefault(name, []).append(records)
    return concatenate(opened) if None in sets else {str(name): concatenate(parts) for name, parts in sets.items()}


def _can_be(path: str, format: str) -> bool:
    """Tell by the files of a path whether it can be of a format; of shards always no, for these are seen at once."""
    place = Path(path)
    if format == "shards":
        return False
    if not place.is_dir():
        return format != "folder" and place.suffix != ".tar" and not is_index(path)
    if format == "folder":
        return any(entry.is_dir() for entry in place.iterdir())
    suffixes = (".txt",) if format == "flickr30k-cna" else (*SUFFIXES, ".parquet")
    index = place / INDEX_NAME  # of shards, beside which may be records that they leave out
    is_indexed = index.is_file() and is_index(index) and any(place.glob("*.tar"))
    return not is_indexed and any(entry.suffix.lower() in suffixes for entry in place.iterdir())


def describe_sources(settings: DataSettings) -> list[dict[str, str]]:
    """Return the paths of `train_data` with their formats."""
    paths = settings.train_data or []
    formats = _formats(paths, settings.data_format, settings)
    return [{"path": path, "format": format} for path, format in zip(paths, formats, strict=True)]


def _formats(paths: Sequence[str], given: Sequence[str | None] | None, settings: DataSettings) -> list[str]:
    formats = for_each_source("data_format", given, len(paths))
    for format in formats:
        if format is not None:
            check_choice("`data_format`", format, FORMATS)
    return [format or guess_format(path, settings.follow_links)[0] for path, format in zip(paths, formats, strict=True)]


def _open(
    paths: Sequence[str], formats: Sequence[str], folders: list[Any] | None, settings: DataSettings
) -> list[RecordDataset]:
    columns = Columns(*(getattr(settings, name) for name in _COLUMNS))
    if columns != Columns() and "pairs" not in formats:
        columns_of = {name: getattr(settings, name) for name in _COLUMNS}
        named = ", ".join(f"`{name}`: {column}" for name, column in columns_of.items() if column is not None)
        raise ValueError(
            f"columns are named ({named}), but the format is {', '.join(formats)}: leave them out, for only "
            "pairs have columns, or set `data_format` to pairs"
        )
    sources = zip(
        paths,
        formats,
        for_each_source("images_folder", folders, len(paths)),
        for_each_source("language", settings.language, len(paths)),
        strict=True,
    )
    return [open_records(*source, columns, settings.follow_links) for source in sources]
