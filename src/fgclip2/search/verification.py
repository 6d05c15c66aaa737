"""What is damaged of an index, by reading all of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

from .caches import check_caches
from .store import DAMAGE, read_index

MADE_ANEW = "the next update (`fgclip2 index`, ImageIndex.build) embeds its images anew"
MAPS_MADE_ANEW = "delete it; the next update (`fgclip2 index`, ImageIndex.build) makes its dense maps anew"
CACHE_MADE_ANEW = "delete it; `fgclip2 index --cache KIND` (index.build_cache) makes it anew"


class DamagedFile(NamedTuple):
    """A file of an index that is not as it was written.

    Attributes:
        name: Its path in the folder of the index; of a cache that of its folder.
        reason: What is wrong with it.
        remedy: What to do.
    """

    name: str
    reason: str
    remedy: str


def damaged_files(index_folder: Path, follow_links: bool = False) -> list[DamagedFile] | None:
    """Read all vectors, dense maps and caches of an index, and compare them with their hashes.

    Returns:
        What is damaged; `None` where there is no index.

    Raises:
        IncompatibleIndexError: The manifest itself is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is returned
        index = read_index(index_folder, follow_links)
    if index is None:
        return None
    maps: dict[str, str] = {}
    for block in index.map_blocks:
        for row in range(len(block.files)):
            try:
                block.read(row)
            except DAMAGE as error:
                maps.setdefault(block.name, str(error))
    found = [
        DamagedFile(name, reason, MAPS_MADE_ANEW if name.startswith("dense") else MADE_ANEW)
        for name, reason in {**index.damaged, **maps}.items()
    ]
    return found + [DamagedFile(*its, CACHE_MADE_ANEW) for its in check_caches(index_folder, index.source).items()]
