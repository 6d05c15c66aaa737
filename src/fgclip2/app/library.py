"""The folder that visitors search, and its index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..embedding import Embedder
from ..errors import IncompatibleIndexError, LockedIndexError
from ..search import ImageIndex
from .answers import Budget, InputError

Tell = Callable[[int, int | None], None]  # (done, how many there are, if that is known)


@dataclass
class Library:
    """A folder of pictures with its index, which is as it was when it was loaded or last brought up to date.

    Args:
        folder: What was indexed: a folder, an archive or a Parquet file.
        index_folder: Where the index is; `None`: where `fgclip2 index` puts it.
        index: The index; `None`: there is none yet.
    """

    folder: Path
    index_folder: Path | None = None
    index: ImageIndex | None = None

    def load(self) -> None:
        """Read the index, if there is one.

        Raises:
            IncompatibleIndexError: It is damaged.
        """
        try:
            self.index = ImageIndex.load(self.folder, self.index_folder)
        except IncompatibleIndexError:
            raise
        except ValueError:  # there is none
            self.index = None

    def build(self, embedder: Embedder, budget: Budget, tell: Tell) -> ImageIndex:
        """Make the index or bring it up to date, with the patch budget that it has.

        Args:
            embedder: Embeds what is new.
            budget: Of a new index.
            tell: Is told how many of the new pictures are done.

        Raises:
            InputError: Another run writes it, or it is of another checkpoint.
        """
        if self.index is not None:
            budget = self.index.settings["max_num_patches"]
        watched: Any = Watched(embedder, tell)
        try:
            self.index = ImageIndex.build(
                self.folder, watched, self.index_folder, max_num_patches=budget, show_progress_bar=False
            )
        except LockedIndexError as error:
            raise InputError("locked_index") from error
        except IncompatibleIndexError as error:
            raise InputError("unusable_index", reason=error) from error
        return self.index

    def require_index(self) -> ImageIndex:
        """Return the index.

        Raises:
            InputError: There is none yet.
        """
        if self.index is None:
            raise InputError("no_index")
        return self.index


class Watched:
    """An embedder that says how far its streams are."""

    def __init__(self, embedder: Embedder, tell: Tell):
        self._embedder, self._tell = embedder, tell

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._embedder, name)
        return self._counting(attribute) if name.startswith("stream_") else attribute

    def _counting(self, stream: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def counted(images: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
            total = len(images) if isinstance(images, Sized) else None
            for done, result in enumerate(stream(images, *arguments, **options), 1):
                self._tell(done, total)
                yield result

        return counted
