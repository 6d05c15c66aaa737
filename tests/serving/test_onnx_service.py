"""The service over exported graphs: each kind of request has the answer that torch gives."""

import pytest

pytest.importorskip("onnxruntime", reason='needs the extra: pip install "fgclip2[onnx]"')

from starlette.testclient import TestClient

from fgclip2 import Embedder
from fgclip2.search import ImageIndex
from fgclip2.serving.app import create_app
from fgclip2.serving.engine import Engine
from fgclip2.serving.limits import Limits
from fgclip2.serving.server import ServiceSettings, make_app
from tests.hub.onnx.conftest import exported, model, processor

from .conftest import encoded

__all__ = ["exported", "model", "processor"]

LABELS = ["狗", "红苹果", "a dog"]


def assert_alike(ours, expected, path="answer"):
    """Compare numbers within 1e-4, and all else as it is."""
    if isinstance(expected, float):
        assert ours == pytest.approx(expected, abs=1e-4), path
    elif isinstance(expected, dict):
        assert ours.keys() == expected.keys(), path
        for name, value in expected.items():
            assert_alike(ours[name], value, f"{path}.{name}")
    elif isinstance(expected, list):
        assert len(ours) == len(expected), path
        for number, value in enumerate(expected):
            assert_alike(ours[number], value, f"{path}[{number}]")
    else:
        assert ours == expected, path


def test_each_answer_is_that_of_torch(exported, model, processor, drawings, dog, tmp_path):
    by_torch = Embedder(model, processor, device="cpu", name="tiny")
    by_torch.use_calibration(exported / "calibration.json")
    index = ImageIndex.build(drawings, by_torch, tmp_path)
    settings = ServiceSettings(
        model=str(exported), backend="onnx", name="tiny", folder=drawings, index_folder=tmp_path, threads=1
    )
    requests = {
        "embeddings": {"input": ["一只狗", {"image": encoded(dog)}, "一张照片，左边是一只狗。" * 9]},
        "classify": {"images": [encoded(dog)], "labels": LABELS, "templates": ["一张{}的照片", "a {}"]},
        "regions": {"image": encoded(dog), "boxes": [[0, 0, 64, 64], [10, 10, 50.5, 60]]},
        "search": {"query": "红苹果", "top_k": 3},
    }
    more = [
        ("regions", {**requests["regions"], "labels": LABELS}),
        ("search", {"image": encoded(dog), "top_k": 3}),
        ("search", {"query": "红苹果和狗", "rerank": "phrases", "candidates": 6, "top_k": 3}),
    ]
    with (
        TestClient(create_app(Engine(by_torch, Limits(), "tiny", index, threads=1))) as torch_client,
        TestClient(make_app(settings), base_url="http://localhost") as onnx_client,
    ):
        for path, request in [*requests.items(), *more]:
            expected, ours = (client.post(f"/v1/{path}", json=request) for client in (torch_client, onnx_client))
            assert expected.status_code == 200, expected.text
            assert ours.status_code == 200, ours.text
            assert_alike(ours.json(), expected.json(), path)
            if path == "classify":
                assert "probability" in expected.text
