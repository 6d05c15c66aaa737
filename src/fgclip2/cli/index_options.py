"""Options of the commands that make, update and search an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[
    Path, typer.Argument(help="Folder of images, with its subfolders; or a .zip, .tar or .parquet file of images.")
]
IndexFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder that the index is kept in.  [default: FOLDER/.fgclip2_index; beside a file FILE.fgclip2_index]"
    ),
]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Make the index anew instead of bringing it up to date.")]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Use links to folders, and links that lead out of the folder.")
]
CompareContents = Annotated[
    bool,
    typer.Option(
        "--compare-contents",
        help="Read each file, to see changes that leave its size and time as is; the first time all are embedded anew.",
    ),
]
NoUpdate = Annotated[bool, typer.Option("--no-update", help="Use the index as it is, without looking for changes.")]
ShowProblems = Annotated[
    bool, typer.Option("--show-problems", help="List the files that can't be used, as of the last update.")
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Read all of the index and list what is damaged, with what to do.")
]
Dense = Annotated[
    str | None,
    typer.Option(
        help="Keep dense maps, with which --rerank of fgclip2 search opens no images: fp16 or int8; none removes them. "
        "At 256 patches of 768 values an image takes 393 kB as fp16, 197 kB as int8.  [default: those that the index "
        "has]"
    ),
]
Cache = Annotated[
    str | None,
    typer.Option(
        help="Make a cache for a large index: hnsw or ivf for --approximate of fgclip2 search, exact to open it fast "
        "and search it in half the memory; none deletes all. Needs FAISS.  [default: those that the index has]"
    ),
]
KeptRegions = Annotated[
    str | None,
    typer.Option(
        "--regions",
        help="Keep vectors of regions, for --regions of fgclip2 search: grid, 25 windows of each image, and of each "
        "frame of a video; given, the boxes in --metadata or a table; none removes them. A region takes as much space "
        "as an image.  [default: those that the index has]",
    ),
]
MetadataFile = Annotated[
    Path | None,
    typer.Option(
        "--metadata",
        help="CSV with a header, or JSONL, with a field path and others, for --where of fgclip2 search, of images and "
        "of videos; JSONL may have boxes.  [default: those that the index has]",
    ),
]
IdColumn = Annotated[
    str | None, typer.Option(help="Column of a table with the ids.  [default: id, else the number of the row]")
]
ImageColumn = Annotated[
    str | None, typer.Option(help="Column of a table with the images.  [default: image, else the only one]")
]
Video = Annotated[
    str | None,
    typer.Option(
        metavar="scenes|SECONDS|none",
        help="Index videos too, by a frame where the picture changes (scenes) or every so many seconds; none removes "
        "them from the index.  [default: as the index has them]",
    ),
]
