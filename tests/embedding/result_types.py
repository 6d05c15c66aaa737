"""Result types of the public methods, checked by `make types`: mypy reads this file, nothing runs it."""

from pathlib import Path
from typing import assert_type

import numpy as np

from fgclip2 import Embedder, FGClip2Embedder
from fgclip2.embedding import RerankedHit, Skipped
from fgclip2.search import ImageIndex, SearchHit


def check(embedder: Embedder, own: FGClip2Embedder, index: ImageIndex, one: Path, on_error: str) -> None:
    many, box = [one], [[0, 0, 1, 1]]
    assert_type(Embedder.from_pretrained(), Embedder)
    assert_type(FGClip2Embedder.from_pretrained(), FGClip2Embedder)
    assert_type(own.to("cpu"), FGClip2Embedder)
    assert_type(embedder.encode_texts(["a"]), np.ndarray)
    for e in (embedder, own):
        assert_type(e.encode_images(many), np.ndarray)
        assert_type(e.encode_images(many, on_error="skip"), tuple[np.ndarray, list[Skipped]])
        assert_type(e.encode_images(many, on_error=on_error), np.ndarray | tuple[np.ndarray, list[Skipped]])
        assert_type(e.encode_regions(one, box), np.ndarray)
        assert_type(e.encode_regions(many, [box]), list[np.ndarray])
        assert_type(e.encode_regions(many, [box], on_error="skip"), tuple[list[np.ndarray], list[Skipped]])
        assert_type(e.encode_labels(["a"]), np.ndarray)
        assert_type(e.heatmap(one, "a"), np.ndarray)
        assert_type(e.rerank("a", many), list[RerankedHit])
        assert_type(e.rerank("a", many, by="model"), list[RerankedHit])
        assert_type(e.rerank("a", many, on_error="skip"), tuple[list[RerankedHit], list[Skipped]])
        assert_type(e.heatmap(many, "a"), list[np.ndarray])
        assert_type(e.heatmap(many, "a", on_error="skip"), tuple[list[np.ndarray], list[Skipped]])
    assert_type(embedder.classify(many, ["a"]), np.ndarray)
    assert_type(embedder.classify(many, ["a"], on_error="skip"), tuple[np.ndarray, list[Skipped]])
    assert_type(own.classify(many, ["a"], walk_type="short"), np.ndarray)
    assert_type(own.classify(many, ["a"], on_error="skip"), tuple[np.ndarray, list[Skipped]])
    assert_type(embedder.classify_regions(one, box, ["a"]), np.ndarray)
    assert_type(own.classify_regions(one, box, ["a"]), np.ndarray)
    assert_type(own.classify_regions(many, [box], ["a"]), list[np.ndarray])
    assert_type(own.classify_regions(many, [box], ["a"], on_error="skip"), tuple[list[np.ndarray], list[Skipped]])
    assert_type(index.search("a", own), list[SearchHit])
    assert_type(index.search(["a"], own), list[list[SearchHit]])
