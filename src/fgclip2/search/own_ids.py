"""The source of an index of the user's own ids: what is added to it, and what is removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..embedding import ImageInput
from ..files import printable
from .scan import ImageFile, Scan

KIND = "ids"


class OwnIdsSource:
    """Entries that are added by their ids; the index keeps what is made of their images, not the images.

    Args:
        path: The folder of the index.
        added: Id -> image of the entries to add, `None` where there is a vector instead. They take the place of those
            that have the same ids.
        removed: Ids of entries to remove.
    """

    kind = KIND
    tells_contents = False
    adds_entries = True

    def __init__(self, path: Path, added: Mapping[str, Any] | None = None, removed: Collection[str] = ()):
        self.path, self._added, self._removed = path, added or {}, removed
        self._stamp = time.time_ns()  # tells an entry from a former one of its id

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def scan(self, known: Iterable[ImageFile], compare_contents: bool) -> Scan:
        others = [file for file in known if file.path not in self._added and file.path not in self._removed]
        return Scan([*others, *(ImageFile(entry, 0, self._stamp) for entry in self._added)], [], {})

    def image(self, entry: str) -> ImageInput:
        image = self._added.get(entry)
        return _missing(entry) if image is None else image

    def images(self, files: list[ImageFile]) -> list[ImageInput]:
        return [self.image(file.path) for file in files]

    def shown_path(self, entry: str) -> Path:
        return self.path / entry.lstrip("/")


def check_ids(ids: Sequence[str], **others: Sequence[Any] | None) -> list[str]:
    """Return ids as a list.

    Args:
        ids: Texts, each once.
        others: What comes with them, one for each id, by the names that messages call them; `None`: not given.

    Raises:
        ValueError: An id can't be used, or there are more or fewer of the others.
    """
    if isinstance(ids, str):
        raise ValueError(f"ids must be a list of texts, got the text {ids!r:.80}: give [{ids!r:.80}]")
    checked: dict[str, None] = {}
    for place, entry in enumerate(ids):
        if not isinstance(entry, str) or not entry:
            raise ValueError(f"ids[{place}] must be a text that is not empty, got {entry!r:.80}")
        if entry in checked:
            raise ValueError(f"ids[{place}] is {printable(entry)!r}, which stands among them before: give it once")
        checked[entry] = None
    for name, values in others.items():
        if values is not None and len(values) != len(checked):
            raise ValueError(f"{name} has {len(values)} entries for {len(checked)} ids: give one for each")
    return list(checked)


def _missing(entry: str) -> Callable[[], Any]:
    def read() -> Any:
        raise ValueError(f"the image of {printable(entry)!r} is not kept: add images of own ids with dense maps")

    return read
