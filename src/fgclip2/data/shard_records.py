"""Tar shards as a data set of records that are read in any order, for evaluation.

[`ShardedRecords`] is the stream for training, which reads shards from one end to the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..languages import Language
from .readers.checks import check_language_option
from .readers.record_index import RecordIndex, Span, make_index, record_indexes
from .readers.scanning import Piece, scan_files
from .records import Record, RecordDataset, concatenate
from .shard_files import ShardReader, broken_shard, check_count, list_shards


class ShardRecords(RecordDataset):
    """The samples of one shard, each read from the place that an index has.

    Args:
        path: Local path, or an address that fsspec opens.
        language: The language of all records; `None`: that of each.
        index: Where the samples begin, and in which languages they are.
    """

    def __init__(self, path: str, language: Language | None, index: RecordIndex):
        self.path, self._language, self._index = path, language, index

    @property
    def languages(self) -> np.ndarray:  # type: ignore[override]  # not kept here, so that workers map it, too
        return self._index.languages

    @property
    def image_sizes(self) -> np.ndarray:  # type: ignore[override]
        return self._index.image_sizes

    def _source(self, index: int) -> str:
        return f"{self.path}:sample {self._index.numbers[index]}"

    def _read(self, index: int) -> Record:
        with ShardReader(self.path, self._language, int(self._index.starts[index])) as reader:
            for sample in reader.samples():
                return reader.record(sample)
        raise broken_shard(self.path, f"without sample {self._index.numbers[index]}, which it had before")


def read_shards(
    shards: str | Path | Sequence[str | Path], language: Language | None = None, follow_links: bool = False
) -> RecordDataset:
    """Read tar shards as a data set whose records are read in any order, each from where it is.

    All headers and texts are read once to find the samples and their languages. What is found of 64 MiB and more is
    kept in the user's cache, as of other large sources.

    Args:
        shards: What `list_shards` takes.
        language: The language of all records; `None`: by `is_cn`, else detected.
        follow_links: Also read shards that links in their folder lead to outside it.

    Raises:
        ValueError: There are no shards, or not one sample.
        BrokenShardError: A shard can't be read, is cut off, corrupt, or does not hold what its index says.
    """
    check_language_option(language)
    found = list_shards(shards, count=False, follow_links=follow_links)
    local = [Path(shard.path) for shard in found if "://" not in shard.path]
    for path in local:
        if not path.is_file():
            raise broken_shard(str(path), "missing")
    named = [shards] if isinstance(shards, (str, Path)) else shards
    source = [str(Path(name).resolve()) for name in named]
    scanner = ShardScanner(language)
    kept = record_indexes(local, partial(scan_files, scanner), source, f"shard {language}")
    indexes = dict(zip(map(str, local), kept, strict=True))
    datasets = []
    for shard in found:
        index = indexes.get(str(Path(shard.path))) or scanner.index(shard.path)
        check_count(shard.path, len(index.starts), shard.samples)
        datasets.append(ShardRecords(shard.path, language, index))
    if not any(map(len, datasets)):
        raise ValueError(f"{shards} must hold at least one sample")
    return concatenate(datasets)


@dataclass(frozen=True)
class ShardScanner:
    """Finds the samples of whole shards, for each is found by the sizes of those before it."""

    language: Language | None

    def find_item(self, path: Path, begin: int, end: int) -> None:
        """Return `None`."""

    def scan(self, path: Path, start: int, end: int) -> Piece:
        """Find all samples."""
        return Piece(self.index(str(path)), None, None)

    def index(self, path: str) -> RecordIndex:
        """Find all samples of a shard, which may be at an address."""

        def spans() -> Iterator[Span]:
            with ShardReader(path, self.language) as reader:
                for number, sample in enumerate(reader.samples(), 1):
                    members = list(sample.members.values())
                    length = sum(member.size for member in members)
                    yield Span(members[0].offset, length, number, reader.language(sample))

        return make_index(spans(), lambda found: [(0, found)])
