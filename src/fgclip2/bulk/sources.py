"""What a bulk run reads: tables in Parquet files, tar shards in the layout of WebDataset, folders of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tarfile import TarInfo
from typing import Any

from .._imports import require
from ..data.readers.files import MAX_RECORD_BYTES
from ..data.shard_files import BrokenShardError, RawSample, ShardReader, broken_shard
from ..files import IMAGE_SUFFIXES, decode_json, printable
from ..search.archives import MAX_MEMBER_BYTES
from ..search.scan import ALLOWED_BY, scan_folder, suffix_of
from .places import kind_of, list_files, open_place
from .settings import BulkSettings

PROBLEM = "problem"  # a column: why a row can't be embedded, known when it is read
ROWS_PER_TABLE = 128
TABLE, SHARD = ".parquet", ".tar"
ALLOWED = "give a .parquet file, a .tar shard, or a folder of such files or of images"


@dataclass(frozen=True)
class BulkSource:
    """The rows of one place, as tables of pyarrow with the columns that settings name.

    Args:
        place: Path or address, as the user gave it.
        filesystem: Of pyarrow.
        root: Path in the file system.
        form: `".parquet"`, `".tar"`, or `""` for a folder of images.
        files: Paths relative to `root`; empty if `root` is the file itself.
        unusable: Images of a folder that must not be used, and why.
        settings: Name the columns.
    """

    place: str
    filesystem: Any
    root: str
    form: str
    files: list[str]
    settings: BulkSettings
    unusable: list[tuple[str, str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The place, whatever the working folder is."""
        return self.place if "://" in self.place else self.root

    @property
    def paths(self) -> list[str]:
        """The paths of the files in the file system."""
        return [f"{self.root.rstrip('/')}/{name}" for name in self.files] or [self.root]

    @cached_property
    def table(self) -> Any:
        """The Parquet files as one `pyarrow.dataset.Dataset`.

        Raises:
            ValueError: A file is no Parquet file, or the columns don't fit the settings.
        """
        pyarrow, dataset = require("pyarrow", "parquet"), require("pyarrow.dataset", "parquet")
        try:
            found = dataset.dataset(self.paths, format="parquet", filesystem=self.filesystem)
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(
                f"{printable(self.place)} has a file that is not Parquet, or is damaged: {error}"
            ) from error
        check_columns(found.schema, self.settings, printable(self.place))
        return found

    @property
    def count(self) -> int | None:
        """Number of rows; `None` if only reading everything would tell."""
        if self.form == TABLE:
            return self.table.count_rows()
        return len(self.files) + len(self.unusable) if self.form == "" else None

    def pieces(self) -> list[Any]:
        """Return parts that [`read`] takes one at a time: files of a table, shards, runs of image files."""
        if self.form == TABLE:
            return list(self.table.get_fragments())
        if self.form == SHARD:
            return self.files or [""]
        runs = range(0, len(self.files), ROWS_PER_TABLE)
        return [*([None] if self.unusable else []), *(self.files[start : start + ROWS_PER_TABLE] for start in runs)]

    def read(self, piece: Any) -> Iterator[Any]:
        """Yield the rows of a piece as tables of at most `ROWS_PER_TABLE` rows."""
        if self.form == TABLE:
            for batch in piece.to_batches(self.table.schema, columns=self.settings.columns, batch_size=ROWS_PER_TABLE):
                if batch.num_rows:
                    yield require("pyarrow", "parquet").Table.from_batches([batch])
        elif self.form == SHARD:
            yield from self._tables(self._samples(piece))
        elif piece is None:
            yield from self._tables({"id": name, PROBLEM: reason} for name, reason in self.unusable)
        else:
            yield from self._tables({"id": name, "image": name} for name in piece)

    def tables(self) -> Iterator[Any]:
        """Yield all rows as tables."""
        for piece in self.pieces():
            yield from self.read(piece)

    def _tables(self, rows: Iterator[dict[str, Any]]) -> Iterator[Any]:
        pyarrow = require("pyarrow", "parquet")
        image = pyarrow.string() if self.form == "" else pyarrow.binary()
        types = {
            "image": image,
            "text": pyarrow.string(),
            "boxes": pyarrow.list_(pyarrow.list_(pyarrow.float64())),
        }
        names = self.settings.columns[1:]
        schema = pyarrow.schema(
            [("id", pyarrow.string()), *((name, types[name]) for name in names), (PROBLEM, pyarrow.string())]
        )
        waiting: list[dict[str, Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == ROWS_PER_TABLE:
                yield pyarrow.Table.from_pylist(waiting, schema)
                waiting = []
        if waiting:
            yield pyarrow.Table.from_pylist(waiting, schema)

    def _samples(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the samples of a shard as rows; what is behind a break in it is one row, with the name of the shard.

        A key that comes again, with other members in between, is a break: its id is taken.
        """
        shard = name or self.root.rpartition("/")[2]
        keys: set[str] = set()
        try:
            with ShardReader(f"{self.address.rstrip('/')}/{name}" if name else self.address) as reader:
                for sample in reader.samples():
                    if sample.key in keys:
                        raise broken_shard(reader.path, f"holding the members of key {sample.key!r} apart")
                    keys.add(sample.key)
                    row: dict[str, Any] = {"id": f"{shard}/{sample.key}"}
                    try:
                        row |= self._members(reader, sample)
                    except ValueError as error:
                        if isinstance(error, BrokenShardError):
                            raise
                        row[PROBLEM] = str(error)
                    yield row
        except BrokenShardError as error:
            yield {"id": shard, PROBLEM: str(error)}

    def _members(self, reader: ShardReader, sample: RawSample) -> dict[str, Any]:
        row: dict[str, Any] = {}
        members = sample.members
        if self.settings.kind != "text":
            images = [member for suffix, member in members.items() if suffix in IMAGE_SUFFIXES]
            if len(images) != 1:
                raise ValueError(f"a sample must have one image, got {len(images)} in {', '.join(members)}")
            row["image"] = _read(reader, images[0], "image", MAX_MEMBER_BYTES)
        if self.settings.kind == "text":
            if ".txt" not in members:
                raise ValueError(f"a sample must have a .txt, got {', '.join(members)}")
            row["text"] = _read(reader, members[".txt"], ".txt", MAX_RECORD_BYTES).decode().strip()
        if self.settings.kind == "region":
            if ".json" not in members:
                raise ValueError(f"a sample must have its boxes in a .json, got {', '.join(members)}")
            row["boxes"] = _boxes_of_json(_read(reader, members[".json"], ".json", MAX_RECORD_BYTES))
        return row


def open_source(place: str, settings: BulkSettings) -> BulkSource:
    """Find out what a place holds.

    Raises:
        ValueError: There is nothing, or nothing that can be embedded, or the columns don't fit the settings.
    """
    filesystem, root = open_place(place)
    found = kind_of(filesystem, root)
    unusable: list[tuple[str, str]] = []
    if found == "nothing":
        raise ValueError(f"{printable(place)}: no such folder or file")
    if found == "file":
        form, files = suffix_of(root), []
        if form not in (TABLE, SHARD):
            raise ValueError(f"{printable(place)} can't be embedded in bulk: {ALLOWED}")
    else:
        if "://" in place:
            names = list_files(filesystem, root)
        else:
            scan = scan_folder(Path(root).resolve(), suffixes=IMAGE_SUFFIXES | {TABLE, SHARD})
            names = [file.path for file in scan.images]
            unusable = [(name, reason.removesuffix(f"; {ALLOWED_BY}")) for name, reason in scan.unusable]
        of_form = {
            TABLE: [name for name in names if suffix_of(name) == TABLE],
            SHARD: [name for name in names if suffix_of(name) == SHARD],
            "": [name for name in names if suffix_of(name) in IMAGE_SUFFIXES],
        }
        there = [form for form, its in of_form.items() if its]
        if len(there) != 1:
            kinds = " and ".join(form or "images" for form in there) or "none of these"
            refused = f" ({printable(unusable[0][0])} is not used, {unusable[0][1]})" if unusable else ""
            raise ValueError(f"{printable(place)} has {kinds}{refused}: {ALLOWED}")
        form, files = there[0], of_form[there[0]]
        # A link to an image, beside tables or shards, would not be read anyway.
        lost = [(name, reason) for name, reason in unusable if suffix_of(name) not in IMAGE_SUFFIXES]
        if form and lost:
            more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
            raise ValueError(
                f"{printable(place)}: {printable(lost[0][0])} can't be used, {lost[0][1]}{more}: remove it, or have "
                "the files themselves there"
            )
    source = BulkSource(place, filesystem, root, form, files, settings, unusable)
    if form == TABLE:
        check_ids(source.table, settings.id_column, printable(place))
    elif settings.columns != BulkSettings(kind=settings.kind).columns:
        raise ValueError(f"{printable(place)} is no table: leave out the names of columns")
    if form == "" and settings.kind != "image":
        raise ValueError(f"{printable(place)} is a folder of images, of which there are no {settings.kind}s")
    return source


def check_columns(schema: Any, settings: BulkSettings, name: str) -> None:
    """Raise a `ValueError` unless a table has the columns that settings name, of types that can be embedded.

    Args:
        schema: Of pyarrow.
        settings: Name the columns.
        name: What messages call the table.
    """
    for column in settings.columns:
        if column not in schema.names:
            raise ValueError(f"{name} has no column {column!r}; it has {', '.join(schema.names)}")
    types = require("pyarrow", "parquet").types
    texts = (types.is_string, types.is_large_string)
    encoded = (types.is_binary, types.is_large_binary, is_encoded_struct)
    tests = {
        settings.id_column: ((*texts, types.is_integer), "texts or whole numbers"),
        settings.text_column: (texts, "texts"),
        settings.image_column: ((*texts, *encoded), "encoded images, structs with `bytes`, or paths"),
        settings.boxes_column: ((types.is_list, types.is_large_list), "lists of (x1, y1, x2, y2)"),
    }
    for column in settings.columns:
        allowed, meaning = tests[column]
        kind = schema.field(column).type
        if not any(test(kind) for test in allowed):
            raise ValueError(f"{name}: the column {column!r} must have {meaning}, got {kind}")
    has_images = settings.image_column in settings.columns
    if (
        has_images
        and not settings.images_folder
        and not any(test(schema.field(settings.image_column).type) for test in encoded)
    ):
        raise ValueError(
            f"{name}: the column {settings.image_column!r} has paths: give the folder that they start from as "
            "`images_folder` (`--images-folder`)"
        )


def is_encoded_struct(kind: Any) -> bool:
    """Tell if a type of pyarrow is a struct with `bytes`, as the library `datasets` writes images."""
    types = require("pyarrow", "parquet").types
    return types.is_struct(kind) and any(kind.field(place).name == "bytes" for place in range(kind.num_fields))


def check_ids(table: Any, column: str, name: str) -> None:
    """Raise a `ValueError` unless each row of a `pyarrow.dataset.Dataset` has an id of its own."""
    compute = require("pyarrow.compute", "parquet")
    ids = table.to_table(columns=[column])[column]
    if ids.null_count:
        row = compute.index(compute.is_null(ids), True).as_py()
        raise ValueError(f"{name}: row {row} has no {column!r}; each row needs an id")
    if doubled := doubled_ids(ids):
        more = f" ({len(doubled)} such ids)" if len(doubled) > 1 else ""
        raise ValueError(f"{name}: {column}={doubled[0]!r} is in more than one row{more}; ids must be unique")


def doubled_ids(ids: Any) -> list[Any]:
    """Return the values that an array of pyarrow has more than once."""
    compute = require("pyarrow.compute", "parquet")
    if compute.count_distinct(ids).as_py() == len(ids):
        return []
    counts = compute.value_counts(ids)
    return counts.filter(compute.greater(counts.field("counts"), 1)).field("values").to_pylist()


def _read(reader: ShardReader, member: TarInfo, what: str, most: int) -> bytes:
    if member.size > most:
        raise ValueError(f"the {what} has {member.size:,} bytes, more than {most:,}")
    return reader.read(member)


def _boxes_of_json(content: bytes) -> list[list[float]]:
    """Return the boxes of a sample, those under `boxes` or the list itself."""
    found = decode_json(content)
    boxes = found.get("boxes") if isinstance(found, dict) else found
    if not isinstance(boxes, list) or not all(isinstance(box, list) for box in boxes):
        raise ValueError(f"the .json must have `boxes`, a list of (x1, y1, x2, y2), got {boxes!r:.80}")
    try:
        return [[float(value) for value in box] for box in boxes]
    except (TypeError, ValueError, OverflowError) as error:  # OverflowError: of a whole number of 309 digits
        raise ValueError(f"the boxes must be numbers, got {boxes!r:.80}") from error
