"""`python -m fgclip2.drawings`: fetch and build the demo data, and print what there is of it, by set and split."""

from __future__ import annotations

import argparse
from pathlib import Path

from .build import build_demo_data
from .bundle import write_bundle
from .cutouts import load_cutouts
from .sources import ARTWORK, default_cache
from .splits import ARTIST_SPLITS


def main(arguments: list[str] | None = None) -> None:
    """Build everything that is not in the cache yet."""
    parser = argparse.ArgumentParser(prog="python -m fgclip2.drawings", description=__doc__)
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder to keep the data in (default: %(default)s)."
    )
    parser.add_argument(
        "--skip-described", action="store_true", help="Leave out the described test pictures, a download of 205 MB."
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="FOLDER",
        help="Also write the pictures that ship with the demo into this folder.",
    )
    options = parser.parse_args(arguments)
    table, backgrounds, described = build_demo_data(options.cache, not options.skip_described)
    print(f"concepts     {len(table)}, things {table.is_thing.sum()}, held out {table.is_held_out.sum()}")
    for artist, source in ARTWORK.items():
        ids, _ = load_cutouts(options.cache, artist)
        things = ids[table.is_thing[ids]]
        print(
            f"cut-outs     {ARTIST_SPLITS[artist]:<11}{len(ids):>5} of {artist} ({source.licence}); "
            f"{len(things)} of things, {table.is_held_out[things].sum()} of them of held-out concepts"
        )
    for split, count in backgrounds.items():
        print(f"backgrounds  {split:<11}{count:>5} photographs")
    for name, count in described.items():
        print(f"described    {name:<11}{count:>5} pictures, for tests only")
    if options.bundle:
        for kind, count in write_bundle(options.cache, table, options.bundle).items():
            print(f"bundled      {kind:<11}{count:>5} files")


if __name__ == "__main__":
    main()
