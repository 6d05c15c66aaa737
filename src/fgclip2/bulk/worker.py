"""What each worker of a bulk run does: rows in, one row with a vector or an error out for each."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from .._imports import require
from ..embedding import ImageInput, Skipped
from ..files import leads_outside, printable
from ..search.archives import MAX_MEMBER_BYTES
from ..search.scan import OUTSIDE
from .places import open_place
from .settings import BulkSettings
from .sources import PROBLEM

TABLE = "table"  # a column: which of the tables of the output a row belongs to, and a folder there
VECTORS, ERRORS = "vectors", "errors"


class Worker:
    """Embed tables of rows on one device, or on some cores.

    Args:
        settings: What is embedded, and by what.
        fingerprint: That of the model which the output is of.
        device: Where to compute.
        threads: How many cores to compute on.

    Raises:
        ValueError: The model here is another one than the output's.
    """

    def __init__(self, settings: BulkSettings, fingerprint: str, device: str = "cpu", threads: int = 1):
        torch.set_num_threads(threads)
        self.settings = settings
        self.images = None if settings.images_folder is None else open_place(settings.images_folder)
        self.embedder = settings.load_embedder(device)
        if self.embedder.fingerprint != fingerprint:
            raise ValueError(
                f"the model {settings.model} of this worker has the fingerprint {self.embedder.fingerprint[:12]}…, and "
                f"the output is of {fingerprint[:12]}…: give all workers the same files"
            )

    def __call__(self, rows: Any) -> Any:
        """Return a table of pyarrow with a row for each row: its id, `embedding` or `error`, and its table.

        Args:
            rows: A table of pyarrow with the columns of the settings, and maybe `PROBLEM`.
        """
        problems: list[str | None] = rows[PROBLEM].to_pylist() if PROBLEM in rows.column_names else [None] * len(rows)
        inputs: list[Any] = [None] * len(rows)
        for place, value in enumerate(rows[self.settings.columns[1]].to_pylist()):
            if problems[place] is None:
                try:
                    inputs[place] = self._input(value)
                except ValueError as error:
                    problems[place] = str(error)
        usable = [place for place, problem in enumerate(problems) if problem is None]
        vectors, skipped = self._embed([inputs[place] for place in usable], rows, usable)
        for index, reason in skipped:
            problems[usable[index]] = reason.removeprefix(f"images[{index}]: ").replace(f"boxes[{index}]", "boxes")
        usable = [place for place in usable if problems[place] is None]
        return self._result(rows, dict(zip(usable, vectors, strict=True)), problems)

    def _input(self, value: Any) -> Any:
        """Return the text, or the image as the embedder takes it, of a cell.

        Raises:
            ValueError: There is none, or it must not be read.
        """
        if isinstance(value, dict):
            value = value.get("bytes")
        if value is None or not value or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"it has no {'text' if self.settings.kind == 'text' else 'image'}")
        if self.settings.kind == "text" or isinstance(value, bytes):
            return value
        if self.images is None or OUTSIDE.search(value):
            raise ValueError(f"{printable(value)} is no path below the folder of images")
        filesystem, folder = self.images
        path = f"{folder.rstrip('/')}/{value}"
        if "://" not in str(self.settings.images_folder) and leads_outside(path, folder):
            raise ValueError(f"{printable(value)} is a link that leads out of the folder of images")
        return partial(_read_file, filesystem, path)

    def _embed(self, inputs: list[Any], rows: Any, places: list[int]) -> tuple[Any, list[Skipped]]:
        """Return the vectors of the inputs that can be used, and the others; `places` are their rows."""
        options: dict[str, Any] = {"batch_size": self.settings.batch_size, "show_progress_bar": False}
        if self.settings.kind == "text":
            return self.embedder.encode_texts(inputs, role=self.settings.role, **options), []  # type: ignore[arg-type]
        images: list[ImageInput] = inputs
        options |= {"max_num_patches": self.settings.max_num_patches, "on_error": "skip"}
        if self.settings.kind == "image":
            return self.embedder.encode_images(images, **options)
        cells = rows[self.settings.boxes_column].to_pylist()
        boxes = [cells[place] or [] for place in places]
        return self.embedder.encode_regions(images, boxes, **options)

    def _result(self, rows: Any, vectors: dict[int, np.ndarray], problems: list[str | None]) -> Any:
        pyarrow = require("pyarrow", "parquet")
        width = self.embedder.embedding_size
        without = pyarrow.array([problem is not None for problem in problems])
        empty = np.zeros((int(self.settings.kind != "region"), width), np.float32)  # (1, D), or no region: (0, D)
        cells = [vectors.get(place, empty).reshape(-1, width) for place in range(len(rows))]  # (1 or regions, D) each
        flat = pyarrow.array(np.concatenate(cells).ravel())
        if self.settings.kind == "region":
            ends = np.cumsum([0, *map(len, cells)], dtype=np.int32)
            regions = pyarrow.FixedSizeListArray.from_arrays(flat, width)
            embeddings = pyarrow.ListArray.from_arrays(pyarrow.array(ends), regions, mask=without)
        else:
            embeddings = pyarrow.FixedSizeListArray.from_arrays(flat, width, mask=without)
        return pyarrow.table(
            {
                self.settings.id_column: rows[self.settings.id_column],
                "embedding": embeddings,
                "error": pyarrow.array(problems, pyarrow.string()),
                TABLE: pyarrow.array([ERRORS if problem else VECTORS for problem in problems]),
            }
        )


def _read_file(filesystem: Any, path: str) -> bytes:
    with filesystem.open_input_file(path) as file:
        if (size := file.size()) > MAX_MEMBER_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than {MAX_MEMBER_BYTES:,}")
        return file.read()
