"""Re-ranking in benchmarks: ranks by hand, and those of `Embedder.rerank`."""

import json

import numpy as np
import pytest

from fgclip2 import FGClip2Embedder
from fgclip2.assets import demo_images
from fgclip2.benchmarks.bundled import find_benchmarks
from fgclip2.benchmarks.catalogue import find_benchmark
from fgclip2.benchmarks.encoding import Encoder
from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.reranking import describe_reranking, reranked_ranks
from fgclip2.benchmarks.runner import check_reranking, result_path, run
from fgclip2.benchmarks.tasks import (
    MatchingData,
    MatchingSettings,
    RetrievalData,
    RetrievalSettings,
    matching,
    retrieval,
)

from .tasks.conftest import encoder, picture

__all__ = ["encoder", "picture"]
SCENES = demo_images() / "scenes"


def test_ranks_after_reranking_by_hand():
    ranks = np.array([3, 7, 1, 2])
    rows = np.array([[0, 1, 2], [0, 1, 2], [3, 4, 5], [0, 1, 2]])
    scores = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.5, 0.5, 0.1], [0.1, 0.2, 0.3]])
    # The first's comes first; the second's is not there; the third's ties; the fourth has two, of which one is second.
    pairs = np.array([[0, 2], [1, 9], [2, 3], [3, 0], [3, 1]])
    assert reranked_ranks(ranks, rows, scores, pairs).tolist() == [1, 7, 2, 2]


def test_both_ways_as_the_embedder_does_it(monkeypatch):
    embedder = FGClip2Embedder.from_pretrained(device="cpu")
    records = json.loads((SCENES / "scenes_zh.json").read_text(encoding="utf-8"))
    captions = [record["short_caption"] for record in records]
    images = [ImageFile(SCENES / record["f_path"]) for record in records]
    numbers = range(len(records))
    data = RetrievalData(images, captions, list(zip(numbers, numbers, strict=True)))
    encode = Encoder(embedder, show_progress_bar=False)
    settings = RetrievalSettings(100)
    plain = retrieval.evaluate(data, encode, settings, "zh")
    reads: list[str] = []
    read = ImageFile.read
    monkeypatch.setattr(ImageFile, "read", lambda self: reads.append(str(self)) or read(self))
    scores = retrieval.evaluate(data, encode, settings, "zh", rerank_candidates=len(records))
    assert len(reads) == 2 * len(records)  # for their vectors, and for re-ranking
    assert {name: scores.metrics[name] for name in plain.metrics} == plain.metrics
    assert {f"reranked/{name}" for name in plain.metrics} == scores.metrics.keys() - plain.metrics.keys()
    paths = [SCENES / record["f_path"] for record in records]
    for index, caption in enumerate(captions):
        hits = embedder.rerank(caption, paths, max_num_patches=100)
        rank = 1 + [hit.index for hit in hits].index(index)
        assert scores.per_item["reranked/text_to_image/rank"][index] == rank
    pairs = [(image, (image + shift) % len(images)) for image in numbers for shift in (0, 1)]
    its = MatchingData(images, captions, pairs, [image == text for image, text in pairs])
    found = matching.evaluate(its, encode, MatchingSettings(100), "zh", rerank=True)
    assert {"auc", "accuracy", "reranked/auc", "reranked/accuracy"} == found.metrics.keys()
    assert found.metrics["reranked/auc"].value >= found.metrics["auc"].value


def test_what_has_no_phrases_is_an_error(encoder, picture, tmp_path):
    data = RetrievalData([picture("a.png", "red"), picture("b.png", "green")], ["red", "green"], [(0, 0), (1, 1)])
    with pytest.raises(ValueError, match="colours has no dense features, in which phrases are looked for"):
        retrieval.evaluate(data, encoder, RetrievalSettings(), "en", rerank_candidates=2)
    (boxes,) = find_benchmarks("bundled-boxes-en")
    with pytest.raises(ValueError, match="of the kind region_classification: only retrieval and matching"):
        check_reranking(boxes, "phrases")
    with pytest.raises(ValueError, match="rerank must be None or 'phrases', got 'words'"):
        check_reranking(boxes, "words")
    with pytest.raises(ValueError, match="colours has no dense features"):  # before anything is read
        run(find_benchmark("lit-cn"), tmp_path / "missing", encoder.model, rerank="phrases")


def test_results_of_other_reranking_have_other_files(tmp_path):
    result = {
        "benchmark": "lit-cn",
        "language": "zh",
        "model": {"name": "m", "revision": None, "fingerprint": None, "dtype": None},
        "data": {"digest": "d"},
        "changed": {},
        "preset": "paper",
    }
    others = [{**result, "reranking": describe_reranking(count)} for count in (20, 50)]
    assert len({result_path(tmp_path, one) for one in (result, *others)}) == 3
