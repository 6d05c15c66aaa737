"""The folder that a bulk run writes: what it is of, which rows are in it, and that none is in it twice."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .._imports import require
from ..errors import IncompatibleIndexError
from ..files import printable
from .places import kind_of, list_files, open_place
from .sources import doubled_ids
from .worker import ERRORS, TABLE, VECTORS

FACTS = "bulk.json"  # what the vectors are of
FORMAT = 1
PARTIAL = ".partial-"
TABLES = "tables"  # the folder of the tables; in it Ray removes what is not whole, so that nothing else may be there
CHECKPOINT = "checkpoint"  # the folder in which Ray keeps the ids that are done, and those that may be
PENDING = ".pending.parquet"
FILES_SHOWN = 8  # in a message


class BulkOutput:
    """An output folder: `bulk.json`, and in `tables` the tables `vectors` and `errors`, folders of Parquet files.

    Args:
        place: Path or address.
        facts: What the vectors depend on, as JSON. They are written into a new folder, and must be those of an old one.

    Raises:
        IncompatibleIndexError: The folder is of another model, input or other settings.
        ValueError: The folder has something else in it.
    """

    def __init__(self, place: str, facts: dict[str, Any]):
        self.place = place
        self.filesystem, self.root = open_place(place)
        self.tables = f"{self.root}/{TABLES}"
        self.id_column: str = facts["id_column"]
        facts = {"format": FORMAT, **facts}
        path = f"{self.root}/{FACTS}"
        if kind_of(self.filesystem, path) == "file":
            with self.filesystem.open_input_stream(path) as stream:
                self._check(json.loads(stream.read()), facts)
            return
        if kind_of(self.filesystem, self.root) == "file" or list_files(self.filesystem, self.root):
            raise ValueError(f"{printable(place)} exists and is no output of a bulk run: give a new folder")
        self.filesystem.create_dir(self.root, recursive=True)
        self._write(path, lambda stream: stream.write(json.dumps(facts, ensure_ascii=False, indent=1).encode()))

    def _check(self, found: Any, facts: dict[str, Any]) -> None:
        where = printable(self.place)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise IncompatibleIndexError(f"{where}: {FACTS} is not of this release of the package: give a new folder")
        for name, value in facts.items():
            if found.get(name) != value:
                raise IncompatibleIndexError(
                    f"{where} was begun with {name}={found.get(name)!r}, and {name}={value!r} is asked for: give a new "
                    "folder, or go on as it was begun"
                )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs on this machine from writing here meanwhile; addresses can't be locked.

        Raises:
            ValueError: Another run writes here.
        """
        lock = nullcontext() if "://" in self.place else FileLock(Path(self.root, ".lock"), timeout=0)
        try:
            with lock:
                yield
        except Timeout as error:
            raise ValueError(f"another run writes {printable(self.place)}: wait for its end") from error

    def ids(self, folder: str) -> Any:
        """Return the ids in the Parquet files of a folder below the output, an array of pyarrow."""
        pyarrow, dataset = require("pyarrow", "parquet"), require("pyarrow.dataset", "parquet")
        paths = self._paths(folder)
        if not paths:
            return pyarrow.chunked_array([], pyarrow.string())
        files = dataset.dataset(paths, format="parquet", filesystem=self.filesystem)
        return files.to_table(columns=[self.id_column])[self.id_column]

    def _paths(self, folder: str) -> list[str]:
        names = list_files(self.filesystem, f"{self.root}/{folder}")
        whole = (name for name in names if name.endswith(".parquet") and not name.endswith(PENDING))
        return [f"{self.root}/{folder}/{name}" for name in whole]

    def remove_partial(self) -> None:
        """Remove what a run that was killed was writing."""
        for table in (VECTORS, ERRORS):
            fs = require("pyarrow.fs", "parquet")
            selector = fs.FileSelector(f"{self.tables}/{table}", allow_not_found=True)
            for info in self.filesystem.get_file_info(selector):
                if info.base_name.startswith(PARTIAL):
                    self.filesystem.delete_file(info.path)

    def write(self, rows: Any) -> None:
        """Add a table of results to the output, a file in each of its tables that is whole or not there."""
        compute, parquet = require("pyarrow.compute", "parquet"), require("pyarrow.parquet", "parquet")
        for table in (VECTORS, ERRORS):
            part = rows.filter(compute.equal(rows[TABLE], table)).drop_columns(TABLE)
            if part.num_rows:
                self.filesystem.create_dir(f"{self.tables}/{table}", recursive=True)
                path = f"{self.tables}/{table}/{secrets.token_hex(8)}.parquet"
                self._write(path, lambda stream, part=part: parquet.write_table(part, stream))

    def _write(self, path: str, fill: Any) -> None:
        """Write a file under a hidden name, and then give it its own: on object stores and disks all or nothing."""
        folder, _, name = path.rpartition("/")
        partial = f"{folder}/{PARTIAL}{name}"
        with self.filesystem.open_output_stream(partial) as stream:
            fill(stream)
        self.filesystem.move(partial, path)

    def check(self) -> tuple[int, int]:
        """Return the numbers of rows in the two tables, having made sure that no id is there twice.

        Raises:
            RuntimeError: An id is there twice.
        """
        pyarrow = require("pyarrow", "parquet")
        vectors, errors = self.ids(f"{TABLES}/{VECTORS}"), self.ids(f"{TABLES}/{ERRORS}")
        kind = vectors.type if len(vectors) else errors.type
        both = pyarrow.chunked_array([*vectors.chunks, *errors.chunks], kind)
        if doubled := doubled_ids(both):
            raise RuntimeError(
                f"{printable(self.place)} has {len(doubled)} ids more than once, e.g. {doubled[0]!r}: did two runs "
                f"write it at once? Delete {self._files_with(doubled)} and start again (engine='local' embeds their "
                "rows again), or give a new folder"
            )
        return len(vectors), len(errors)

    def _files_with(self, ids: list[Any]) -> str:
        """Return the names of the files of the tables that have one of the ids, for a message."""
        pyarrow, dataset = require("pyarrow", "parquet"), require("pyarrow.dataset", "parquet")
        files = dataset.dataset(self._paths(TABLES), format="parquet", filesystem=self.filesystem)
        doubled = pyarrow.array(ids, files.schema.field(self.id_column).type)
        found = files.to_table(columns=["__filename"], filter=dataset.field(self.id_column).isin(doubled))
        names = sorted({path[len(self.root) :].lstrip("/") for path in found["__filename"].to_pylist()})
        more = f" and {len(names) - FILES_SHOWN} more" if len(names) > FILES_SHOWN else ""
        return ", ".join(names[:FILES_SHOWN]) + more
