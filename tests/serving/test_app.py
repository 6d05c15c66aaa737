"""The endpoints: their answers are those of the embedder and the index, and what they refuse has its own error."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from fgclip2.serving.app import create_app
from fgclip2.serving.engine import Engine
from fgclip2.serving.limits import Limits
from tests.calibrations import level_calibration

from .conftest import code_of, encoded

LABELS = ["dog", "cat", "狗", "红苹果"]


def vectors_of(answer) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([one["embedding"] for one in answer.json()["data"]], np.float32)


def picture(format: str, side: int = 40, **options) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(stream, format, **options)
    return stream.getvalue()


def test_texts_and_images_in_one_request(client, embedder, dog):
    long = "一张照片，左边是一只狗，右边是一个红苹果。" * 4
    inputs = ["一只狗", {"image": encoded(dog)}, long, f"data:image/webp;base64,{encoded(dog)}", {"text": "A DOG"}]
    answer = client.post("/v1/embeddings", json={"input": inputs, "model": "tiny"})
    vectors = vectors_of(answer)
    assert np.allclose(vectors[[0, 2, 4]], embedder.encode_texts(["一只狗", long, "A DOG"]), atol=1e-5)
    assert np.allclose(vectors[[1, 3]], embedder.encode_images([dog, dog]), atol=1e-5)
    body = answer.json()
    assert (body["model"], body["object"]) == ("tiny", "list")
    assert [one["index"] for one in body["data"]] == [0, 1, 2, 3, 4]
    assert body["usage"]["total_tokens"] == sum(embedder.processor.count_tokens(["一只狗", long, "A DOG"]))


def test_base64_has_the_same_numbers(client):
    request = {"input": "a dog", "role": "region_phrase"}
    floats = vectors_of(client.post("/v1/embeddings", json=request))
    answer = client.post("/v1/embeddings", json={**request, "encoding_format": "base64"})
    decoded = np.frombuffer(base64.b64decode(answer.json()["data"][0]["embedding"]), "<f4")
    assert np.array_equal(decoded, floats[0])


def test_labels_of_images(client, embedder, dog):
    templates = ["a photo of {}", "一张{}的照片"]
    request = {"images": [encoded(dog)], "labels": LABELS, "templates": templates, "top_k": 2}
    (result,) = client.post("/v1/classify", json=request).json()["results"]
    expected = embedder.classify(dog, LABELS, templates)
    assert [one["label"] for one in result["labels"]] == [LABELS[row] for row in np.argsort(-expected)[:2]]
    assert np.allclose([one["score"] for one in result["labels"]], np.sort(expected)[::-1][:2], atol=1e-5)


def test_regions_have_vectors_or_labels(client, embedder, dog):
    boxes = [[0, 0, 64, 64], [10, 10, 50.5, 60]]
    request = {"image": encoded(dog), "boxes": boxes}
    found = client.post("/v1/regions", json=request).json()["regions"]
    assert np.allclose([one["embedding"] for one in found], embedder.encode_regions(dog, boxes), atol=1e-5)
    assert [one["box"] for one in found] == boxes
    corners_and_sides = {**request, "boxes": [[0, 0, 64, 64], [10, 10, 40.5, 50]], "box_format": "xywh"}
    same = client.post("/v1/regions", json=corners_and_sides).json()["regions"]
    assert [one["embedding"] for one in same] == [one["embedding"] for one in found]
    labelled = client.post("/v1/regions", json={**request, "labels": LABELS, "top_k": 4}).json()["regions"]
    shares = embedder.classify_regions(dog, boxes, LABELS)
    for region, row in zip(labelled, shares, strict=True):
        assert np.allclose([one["score"] for one in region["labels"]], np.sort(row)[::-1], atol=1e-5)


def test_search_by_text_by_image_and_again(client, index, embedder, dog):
    hits = client.post("/v1/search", json={"query": "红苹果", "top_k": 2}).json()["hits"]
    expected = index.search("红苹果", embedder, 2)
    assert [hit["path"] for hit in hits] == ["red-apple-twemoji.webp", expected[1].path.name]
    assert np.allclose([hit["score"] for hit in hits], [hit.score for hit in expected], atol=1e-5)
    assert (
        client.post("/v1/search", json={"image": encoded(dog), "top_k": 1}).json()["hits"][0]["path"] == "动物/狗.webp"
    )
    request = {"query": "a red apple and a dog", "rerank": "phrases", "candidates": 4, "top_k": 3}
    again = client.post("/v1/search", json=request).json()["hits"]
    expected = index.search("a red apple and a dog", embedder, 3, rerank="phrases", candidates=4)
    assert np.allclose([hit["reranked"] for hit in again], [hit.reranked for hit in expected], atol=1e-4)
    assert [one["text"] for one in again[0]["phrases"]] == [one.text for one in expected[0].phrases]


def test_probabilities_and_nothing_that_matches(client, embedder, dog, monkeypatch):
    """At level curves, which the Chinese texts have: three to one that a pair matches, at even odds."""
    monkeypatch.setattr(embedder, "calibration", level_calibration(embedder.fingerprint, "校准", embedder.budget_of()))
    images, region = {"images": [encoded(dog)]}, {"image": encoded(dog), "boxes": [[0, 0, 64, 64]]}
    for path, request, said in (("classify", images, "nothing_matches"), ("regions", region, "none_of_these")):

        def ask(labels, path=path, request=request, **more):
            found = client.post(f"/v1/{path}", json={**request, "labels": labels, **more}).json()
            return found.get("results", found.get("regions"))[0]

        found = ask(["狗", "红苹果", "dog"])  # one of three, or none of them: odds of 1/3
        probabilities = {one["label"]: one.get("probability") for one in found["labels"]}
        assert probabilities == {"狗": pytest.approx(0.5), "红苹果": pytest.approx(0.5), "dog": None}
        assert found[said] is False  # for of one label nothing is known
        assert ask(["狗", "红苹果"], top_k=1)[said] is False  # odds of 3/2
        assert ask(["狗", "红苹果"], top_k=1, min_probability=0.61)[said] is True
        assert said not in ask(["dog", "cat"])

    def search(**request):
        return client.post("/v1/search", json={"top_k": 2, **request}).json()

    for more in ({}, {"rerank": "phrases", "candidates": 4}):
        found = search(query="红苹果", **more)  # one of six images, or none of them: odds of 3/6
        assert [hit["probability"] for hit in found["hits"]] == pytest.approx([1 / 3] * 2)
        assert found["nothing_matches"] is True
        assert search(query="红苹果", min_probability=0.3, **more)["nothing_matches"] is False
    for other in ({"query": "a red apple"}, {"image": encoded(dog)}):
        found = search(**other)
        assert "nothing_matches" not in found
        assert not any("probability" in hit for hit in found["hits"])
    assert client.post("/v1/search", json={"query": "红苹果", "min_probability": 1.5}).status_code == 422


def test_without_a_calibration_there_is_no_least_probability(client, embedder, dog, monkeypatch):
    monkeypatch.setattr(embedder, "calibration", None)
    requests = {
        "classify": {"images": [encoded(dog)], "labels": ["狗"]},
        "regions": {"image": encoded(dog), "boxes": [[0, 0, 64, 64]], "labels": ["狗"]},
        "search": {"query": "狗"},
    }
    for path, request in requests.items():
        answer = client.post(f"/v1/{path}", json={**request, "min_probability": 0.5})
        assert code_of(answer) == (422, "probability_not_available")
        assert "probability" not in client.post(f"/v1/{path}", json=request).text


def test_images_alone_have_no_least_probability(client, dog):
    for path, request in (
        ("regions", {"image": encoded(dog), "boxes": [[0, 0, 64, 64]]}),
        ("search", {"image": encoded(dog)}),
    ):
        answer = client.post(f"/v1/{path}", json={**request, "min_probability": 0.5})
        assert code_of(answer) == (422, "probability_not_available")
        assert client.post(f"/v1/{path}", json=request).status_code == 200


def test_an_image_is_not_compared_with_an_index_of_other_images(client, index, dog, monkeypatch):
    monkeypatch.setitem(index.settings, "images", "square")
    answer = client.post("/v1/search", json={"image": encoded(dog)})
    assert code_of(answer) == (422, "image_not_comparable")
    assert client.post("/v1/search", json={"query": "狗"}).status_code == 200


def test_hits_fulfil_an_expression(client):
    request = {"query": "红苹果", "where": "path like '动物/%' or id = 'bus-twemoji.webp'"}
    for more in ({}, {"rerank": "phrases"}):
        hits = client.post("/v1/search", json={**request, **more}).json()["hits"]
        assert {hit["path"] for hit in hits} == {"动物/狗.webp", "bus-twemoji.webp"}
    for wrong in ("colour = 1", "path in (select 1)", "read_csv('/etc/passwd')", "1; drop table x"):
        answer = client.post("/v1/search", json={**request, "where": wrong})
        assert code_of(answer) == (422, "filter_not_usable")


def test_only_the_filter_is_blamed_on_the_filter(client, index, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("the index is damaged")

    monkeypatch.setattr(type(index), "search", fail)
    answer = client.post("/v1/search", json={"query": "红苹果", "where": "id = 'a'"})
    assert code_of(answer) == (500, "internal_error")


def test_state_and_models(client, embedder):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ok"}
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["embedding_size"]) == ("tiny", embedder.embedding_size)
    client.post("/v1/embeddings", json={"input": ["猫", "猫", "a cat"]})
    client.post("/v1/embeddings", json={"input": "猫"})
    metrics = client.get("/metrics").text
    assert 'fgclip2_requests_total{route="/v1/embeddings",status="200"} 2.0' in metrics
    assert "fgclip2_text_cache_hits_total 2.0" in metrics
    assert 'fgclip2_batch_size_sum{work="_text_vectors"} 2.0' in metrics


REFUSED = {
    "another model": ("embeddings", {"input": "猫", "model": "text-embedding-3-small"}, 404, "model_not_found"),
    "other dimensions": ("embeddings", {"input": "猫", "dimensions": 8}, 422, "dimensions_not_available"),
    "token ids": ("embeddings", {"input": [[1, 2]]}, 422, "request_not_valid"),
    "an unknown field": ("embeddings", {"input": "猫", "轴": 1}, 422, "request_not_valid"),
    "half a surrogate pair": ("embeddings", {"input": "\ud800"}, 422, "request_not_valid"),
    "texts": ("embeddings", {"input": ["猫"] * 9}, 422, "too_many_texts"),
    "characters of a query": (
        "search",
        {"query": "猫" * 201, "rerank": "phrases", "candidates": 4, "top_k": 1},
        422,
        "text_too_long",
    ),
    "blank query": ("search", {"query": " ", "rerank": "phrases", "candidates": 4}, 422, "query_empty"),
    "characters": ("embeddings", {"input": "猫" * 201}, 422, "text_too_long"),
    "labels": ("classify", {"images": ["AAAA"], "labels": list("一二三四五六七八九")}, 422, "too_many_texts"),
    "images": ("classify", {"images": ["AAAA"] * 4, "labels": ["猫"]}, 422, "too_many_images"),
    "no base64": ("classify", {"images": ["猫"], "labels": ["猫"]}, 422, "image_not_base64"),
    "another data URL": ("classify", {"images": ["data:text/plain,hi"], "labels": ["猫"]}, 422, "image_not_base64"),
    "an address": ("classify", {"images": ["http://localhost/a"], "labels": ["猫"]}, 422, "image_url_not_allowed"),
    "a file": ("classify", {"images": ["file:///etc/passwd"], "labels": ["猫"]}, 422, "image_url_not_allowed"),
    "hits": ("search", {"query": "猫", "top_k": 8}, 422, "too_many_hits"),
    "candidates": ("search", {"query": "猫", "rerank": "phrases"}, 422, "too_many_hits"),
    "no query": ("search", {}, 422, "query_not_single"),
    "two queries": ("search", {"query": "猫", "image": "AAAA"}, 422, "query_not_single"),
    "no ranking stage": (
        "search",
        {"query": "猫", "rerank": "model", "top_k": 1, "candidates": 1},
        422,
        "rerank_not_possible",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(make_client, name):
    path, request, status, code = REFUSED[name]
    client = make_client(texts=8, text_characters=200, images=3, boxes=2, hits=5)
    content = json.dumps(request).encode()  # half a surrogate pair has no UTF-8
    answer = client.post(f"/v1/{path}", content=content, headers={"Content-Type": "application/json"})
    assert code_of(answer) == (status, code)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_boxes_that_are_refused(make_client, dog):
    client = make_client(boxes=2)
    request = {"image": encoded(dog), "boxes": [[0, 0, 9, 9]] * 3}
    assert code_of(client.post("/v1/regions", json=request)) == (422, "too_many_boxes")
    for boxes in ([[9, 0, 3, 9]], [[0, 0, 9, 9], [5000, 0, 5001, 9]]):
        answer = client.post("/v1/regions", json={**request, "boxes": boxes})
        assert code_of(answer) == (422, "box_not_usable")
        assert answer.json()["error"]["message"].startswith(f"boxes[{len(boxes) - 1}]=[")
    answer = client.post("/v1/regions", json={**request, "boxes": [[0, 0, -3, 9]], "box_format": "xywh"})
    assert "width and height positive" in answer.json()["error"]["message"]


def test_images_with_too_many_pixels_are_not_decoded(make_client, monkeypatch):
    """By the header: a bomb of a few hundred kB would be 3 GB of pixels."""
    client = make_client(pixels=1000)
    whole = picture("PNG")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    for side in (40, 10_000, 30_000):  # Pillow itself warns of the second, and refuses the third
        head = whole[12:16] + 2 * side.to_bytes(4, "big") + whole[24:29]
        content = whole[:12] + head + zlib.crc32(head).to_bytes(4, "big") + whole[33:]
        answer = client.post("/v1/classify", json={"images": [encoded(content)], "labels": ["猫"]})
        assert code_of(answer) == (413, "too_many_pixels")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_an_image_that_is_cut_off_fails_alone(client, format):
    whole = picture(format)
    answer = client.post("/v1/classify", json={"images": [encoded(whole), encoded(whole[:-20])], "labels": ["猫"]})
    if format not in ("GIF", "BMP") or answer.status_code != 200:  # whose last bytes may be none of its pixels
        assert code_of(answer) == (422, "image_not_readable")
    assert client.post("/v1/classify", json={"images": [encoded(whole)], "labels": ["猫"]}).status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "json_not_valid"),
        (b"", 422, "request_not_valid"),
        (b"[" * 100_000, 400, "not_usable"),
        (b'{"input": "\xff\xfe"}', 400, "not_usable"),
        (b'{"input": 1e999}', 422, "request_not_valid"),
        (b'{"input": ' + b"9" * 5000 + b"}", 400, "not_usable"),
        (b"null", 422, "request_not_valid"),
    ],
)
def test_broken_json(client, content, status, code):
    answer = client.post("/v1/embeddings", content=content, headers={"Content-Type": "application/json"})
    assert code_of(answer) == (status, code)


def test_other_paths_and_methods(client):
    assert code_of(client.get("/v1/embeddings")) == (405, "method_not_allowed")
    assert code_of(client.get("/etc/passwd")) == (404, "path_not_found")


def test_without_an_index_there_is_no_search(embedder):
    with TestClient(create_app(Engine(embedder, Limits(pixels=embedder.max_pixels), "tiny"))) as client:
        assert client.post("/v1/search", json={"query": "猫"}).status_code == 404
        assert "/v1/search" not in client.get("/openapi.json").json()["paths"]
