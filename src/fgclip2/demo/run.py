"""The demo: the bundled pictures indexed, searched, named and mapped, and a page of it all."""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..embedding import Embedder
from ..errors import IncompatibleIndexError
from ..files import replacing
from ..search import ImageIndex
from .bundle import Bundle
from .page import render
from .scenes import Scenes
from .shares import section_of_shares
from .whole_pictures import WholePictures


def run_demo(output: Path, embedder: Embedder) -> tuple[Path, dict[str, Any]]:
    """Run the demo and write `index.html` and `results.json` into a folder.

    Args:
        output: The folder, made if missing.
        embedder: Any checkpoint with regions; the embedded one is meant.

    Returns:
        The page's path and the results, which say the same as the page.
    """
    started = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.load()
    options: dict[str, Any] = {"index_folder": output / "index", "show_progress_bar": False}
    try:
        index = ImageIndex.build(bundle.folder, embedder, **options)  # goes on where another run was interrupted
    except IncompatibleIndexError:  # that run had another checkpoint
        index = ImageIndex.build(bundle.folder, embedder, rebuild=True, **options)
    results: dict[str, Any] = {"indexed": len(index), "version": version("fgclip2"), "checkpoint": embedder.name}

    pictures, scenes = WholePictures(index, embedder, bundle), Scenes(index, embedder, bundle)
    by_text = pictures.search_by_text(results)
    of_scenes, searches = scenes.search(results)
    of_regions, regions = scenes.name_regions(results)
    of_places, places = scenes.locate(results)
    shares = [*pictures.shares(), *of_scenes, of_regions, of_places]
    results["right"] = [share.json() for share in shares]
    first = section_of_shares(shares, len(bundle.unseen_things), len(bundle.scenes))
    others = [pictures.search_by_image(results), pictures.name(results)]
    sections = [first, by_text, *searches, regions, places, *others]

    results["seconds"] = round(time.perf_counter() - started, 1)
    summary = f"{len(index)} pictures indexed, {results['seconds']} s in all, fgclip2 {results['version']}. "
    credits = {credit for picture in bundle.pictures for credit in picture["attribution"].split("; ")}
    page = output / "index.html"
    for path, text in (
        (page, render("fgclip2: demo / 演示", sections, summary + "Pictures: " + " · ".join(sorted(credits)))),
        (output / "results.json", json.dumps(results, ensure_ascii=False, indent=1)),
    ):
        with replacing(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    return page, results
