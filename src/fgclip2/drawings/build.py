"""Building all of the demo data at once."""

from __future__ import annotations

from pathlib import Path

from .backgrounds import build_backgrounds
from .concepts import ConceptTable, build_concepts
from .cutouts import build_cutouts
from .photographs import build_described


def build_demo_data(cache: Path, described: bool = True) -> tuple[ConceptTable, dict[str, int], dict[str, int]]:
    """Fetch and build what is not in the cache yet.

    Args:
        cache: The folder to keep it in, made if missing.
        described: False leaves out the described test pictures, a download of 205 MB.

    Returns:
        The concepts, split -> number of photographs for backgrounds, and set -> number of described pictures.

    Raises:
        RuntimeError: A package can't be fetched; the message says why, and what to do.
    """
    cache.mkdir(parents=True, exist_ok=True)
    table = build_concepts(cache)
    build_cutouts(cache, table)
    return table, build_backgrounds(cache), build_described(cache, table) if described else {}
