"""Re-ranking in benchmarks: ranks by hand, and those of `Embedder.rerank`."""

import json

import numpy as np
import pytest

from fgclip2 import FGClip2Embedder
from fgclip2.assets import demo_images
from fgclip2.benchmarks.bundled import find_benchmarks
from fgclip2.benchmarks.catalogue import BENCHMARKS, find_benchmark
from fgclip2.benchmarks.encoding import Encoder
from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.models import text_use
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
from tests import golden_of_r2d2

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
    scores = retrieval.evaluate(data, encode, settings, "zh", rerank="phrases", candidates=len(records))
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
    found = matching.evaluate(its, encode, MatchingSettings(100), "zh", rerank="phrases")
    assert {"auc", "accuracy", "reranked/auc", "reranked/accuracy"} == found.metrics.keys()
    assert found.metrics["reranked/auc"].value >= found.metrics["auc"].value


def test_what_has_no_phrases_is_an_error(encoder, picture, tmp_path):
    data = RetrievalData([picture("a.png", "red"), picture("b.png", "green")], ["red", "green"], [(0, 0), (1, 1)])
    with pytest.raises(ValueError, match="colours has no dense features, in which phrases are looked for"):
        retrieval.evaluate(data, encoder, RetrievalSettings(), "en", rerank="phrases")
    with pytest.raises(ValueError, match="colours has no pair scores, it compares vectors only"):
        retrieval.evaluate(data, encoder, RetrievalSettings(), "en", rerank="model")
    (boxes,) = find_benchmarks("bundled-boxes-en")
    with pytest.raises(ValueError, match="of the kind region_classification: only retrieval and matching"):
        check_reranking(boxes, "phrases", "paper")
    with pytest.raises(ValueError, match="rerank must be None, 'phrases' or 'model', got 'words'"):
        check_reranking(boxes, "words", "paper")
    assert check_reranking(boxes, None, "r2d2") is None
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
    others = [
        {**result, "reranking": describe_reranking(*how)}
        for how in (("phrases", "retrieval", 20), ("phrases", "retrieval", 50), ("model", "retrieval", 20))
    ]
    assert len({result_path(tmp_path, one) for one in (result, *others)}) == 4


# By the model -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_data(tmp_path_factory) -> tuple[list[ImageFile], list[str], list[int]]:
    """Images, captions and the image of each caption of the golden data of R2D2."""
    folder = tmp_path_factory.mktemp("golden")
    for number in range(12):
        golden_of_r2d2.image(number).save(folder / f"{number}.png")
    images = [ImageFile(folder / f"{number}.png") for number in range(12)]
    owners = golden_of_r2d2.tensors("inputs")["image_of_caption"].tolist()
    return images, golden_of_r2d2.results()["captions"], owners


def test_recalls_are_those_of_the_released_script(golden_data, tmp_path):
    images, captions, image_of_caption = golden_data
    data = RetrievalData(images, captions, [(image, text) for text, image in enumerate(image_of_caption)])
    expected, top_k = golden_of_r2d2.results()["itm_eval"], golden_of_r2d2.results()["top_k"]
    options = {"rerank": "model", "candidates": top_k}
    encode = Encoder(golden_of_r2d2.embedder(), tmp_path, show_progress_bar=False)
    scores = retrieval.evaluate(data, encode, RetrievalSettings(equal_captions="separate"), "zh", **options)
    for name, short in (("image_to_text", "txt"), ("text_to_image", "img")):
        # Behind the candidates, R@10 of the released script follows the order in which numpy left equal fillers.
        for place in (1, 5):
            recall = scores.metrics[f"reranked/{name}/recall@{place}"].value
            assert 100 * recall == pytest.approx(expected[f"{short}_r{place}"])
    silent = Encoder(golden_of_r2d2.embedder(), tmp_path, show_progress_bar=False)
    silent.model.model.rank_scores = None  # all is in the cache
    again = retrieval.evaluate(data, silent, RetrievalSettings(equal_captions="separate"), "zh", **options)
    assert {name: one.value for name, one in again.metrics.items()} == {
        name: one.value for name, one in scores.metrics.items()
    }


def test_pairs_are_told_apart_by_the_match_probability(golden_data):
    images, captions, image_of_caption = golden_data
    pairs = [(image, text) for text, own in enumerate(image_of_caption) for image in (own, (own + 1) % 12)]
    labels = [image == image_of_caption[text] for image, text in pairs]
    data = MatchingData(images, captions, pairs, labels)
    encode = Encoder(golden_of_r2d2.embedder(), show_progress_bar=False)
    scores = matching.evaluate(data, encode, MatchingSettings(), "zh", rerank="model")
    probabilities = golden_of_r2d2.tensors("outputs")["matching_probability"]
    right = np.array([probabilities[pair].item() for pair, label in zip(pairs, labels, strict=True) if label])
    wrong = np.array([probabilities[pair].item() for pair, label in zip(pairs, labels, strict=True) if not label])
    area = np.mean(right[:, None] > wrong)  # the share of pairs of pairs in the right order
    assert scores.metrics["reranked/auc"].value == pytest.approx(area)
    halves = np.mean([*(right >= 0.5), *(wrong < 0.5)])
    assert scores.metrics["reranked/accuracy@0.5"].value == pytest.approx(halves)


def test_long_captions_are_captions_where_one_head_takes_both(golden_data):
    images, captions, image_of_caption = golden_data
    data = RetrievalData(images, captions, [(image, text) for text, image in enumerate(image_of_caption)])
    embedder = golden_of_r2d2.embedder()
    encode = Encoder(embedder, show_progress_bar=False)
    short, long = (
        retrieval.evaluate(data, encode, RetrievalSettings(walk_type=walk), "zh", rerank="model", candidates=4)
        for walk in ("short", "long")
    )
    assert short.metrics == long.metrics
    assert text_use(embedder, captions, "long_caption") == text_use(embedder, captions, "caption")


def test_the_preset_of_r2d2_has_the_candidates_of_its_scripts(golden_data, tmp_path):
    counts = {name: row.r2d2_candidates for name, row in BENCHMARKS.items() if row.r2d2_candidates}
    assert counts == {"flickr30k-cna": 128, "icr": 64, "iqr": 64}
    images, captions, _ = golden_data
    folder = tmp_path / "IQR_IQM_ICR_ICM_images"
    folder.mkdir()
    for image in images:
        (folder / image.path.name).write_bytes(image.path.read_bytes())
    lines = [json.dumps({"text": captions[number], "image_path": f"a/{number}.png"}) for number in range(12)]
    (tmp_path / "long_itr_val.json").write_text("\n".join(lines), encoding="utf-8")
    pairs = [json.dumps({**json.loads(line), "label": number % 2}) for number, line in enumerate(lines)]
    (tmp_path / "long_itm_val.json").write_text("\n".join(pairs), encoding="utf-8")
    options = {"preset": "r2d2", "show_progress_bar": False}
    result = run(find_benchmark("icr"), tmp_path, golden_of_r2d2.embedder(), **options)
    assert result["reranking"] == {"method": "model", "candidates": 64, "score": "rank_scores"}
    assert "reranked/text_to_image/recall@1" in result["metrics"]
    result = run(find_benchmark("icm"), tmp_path, golden_of_r2d2.embedder(), **options)
    assert result["reranking"] == {"method": "model", "score": "match_probability"}
    assert {"auc", "reranked/auc", "reranked/accuracy@0.5"} < result["metrics"].keys()
    with pytest.raises(ValueError, match="FG-CLIP 2 has no pair scores, it compares vectors only"):
        run(find_benchmark("icr"), tmp_path, FGClip2Embedder.from_pretrained(device="cpu"), **options)
