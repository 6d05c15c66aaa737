"""The tools of the Model Context Protocol: their answers, what they may read, and a session with the SDK's client."""

import asyncio
import os
import sys

import numpy as np
import pytest
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.server.mcpserver.exceptions import ToolError

from fgclip2.serving.tools import ImageTools, make_server
from tests.calibrations import level_calibration


@pytest.fixture
def tools(embedder, drawings, index) -> ImageTools:
    return ImageTools(embedder, [drawings])


def test_search(tools, drawings, index, embedder):
    (best, *_) = tools.search(query="红苹果", top_k=3).images
    assert best.path == str(drawings.resolve() / "red-apple-twemoji.webp")
    assert (best.score, best.windows) == (index.search("红苹果", embedder, 1)[0].score, [])
    similar = tools.search(image="动物/狗.webp", top_k=10).images
    assert len(similar) == len(index) - 1  # without itself
    (best, *_) = tools.search(query="a red apple and a dog", top_k=1, windows=True).images
    assert [window.phrase for window in best.windows] == ["a red apple", "a dog"]
    for wrong in ({}, {"query": "a", "image": "b"}, {"image": "动物/狗.webp", "windows": True}):
        with pytest.raises(ToolError, match="give "):
            tools.search(**wrong)


def test_label_regions_and_comparison(tools, embedder, drawings):
    dog, apple = "动物/狗.webp", str(drawings / "red-apple-twemoji.webp")
    labels = tools.label(dog, ["红苹果", "狗", "bus"]).labels
    expected = embedder.classify(drawings / dog, ["红苹果", "狗", "bus"])
    assert labels[0].label == "狗"
    assert np.isclose(labels[0].score, expected[1], atol=1e-5)
    (window,) = tools.find_regions(dog, ["狗"]).windows
    assert len(window.box) == 4
    assert -1 <= window.cosine <= 1
    pairs = tools.compare([dog, apple], ["狗", "a red apple"]).pairs
    assert [(pair.first, pair.second) for pair in pairs[:2]] in (
        [(dog, "狗"), (apple, "a red apple")],
        [(apple, "a red apple"), (dog, "狗")],
    )
    (pair,) = tools.compare([dog, apple]).pairs
    vectors = embedder.encode_images([drawings / dog, apple])
    assert np.isclose(pair.cosine, vectors[0] @ vectors[1], atol=1e-5)
    with pytest.raises(ToolError, match="give at least two images, or a text"):
        tools.compare([dog])


def test_probabilities_where_there_is_a_curve(tools, embedder, monkeypatch):
    """At level curves, which the Chinese texts have: three to one that a pair matches, at even odds."""
    monkeypatch.setattr(embedder, "calibration", level_calibration(embedder.fingerprint, "校准", embedder.budget_of()))
    dog, apple = "动物/狗.webp", "red-apple-twemoji.webp"
    found = tools.search(query="红苹果", top_k=2)
    assert [image.probability for image in found.images] == pytest.approx([1 / 3] * 2)  # odds of 3/6
    assert found.nothing_matches is True
    assert tools.search(query="a red apple", top_k=2).nothing_matches is None
    found = tools.label(dog, ["狗", "红苹果"])
    assert [label.probability for label in found.labels] == pytest.approx([0.6] * 2)  # odds of 3/2
    assert found.nothing_matches is False
    pairs = tools.compare([dog, apple], ["狗", "a red apple"]).pairs
    assert {pair.probability for pair in pairs if pair.second == "a red apple"} == {None}
    assert [pair.probability for pair in pairs if pair.second == "狗"] == pytest.approx([0.6] * 2)
    monkeypatch.setattr(embedder, "calibration", None)
    assert tools.label(dog, ["狗"]).labels[0].probability is None


def test_only_images_in_the_folders_are_read(tools, drawings, tmp_path, embedder):
    outside = tmp_path / "秘密.webp"
    outside.write_bytes((drawings / "bus-twemoji.webp").read_bytes())
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.webp").symlink_to(outside)
    (inside / "own.webp").write_bytes(outside.read_bytes())
    other = ImageTools(embedder, [inside])
    assert other.label("own.webp", ["bus"]).labels
    for path in ("link.webp", "../秘密.webp", str(outside), "/etc/passwd", "missing.webp", ".", "http://localhost/a"):
        with pytest.raises(ToolError, match=r"is no file in .*inside$"):
            other.label(path, ["bus"])
    with pytest.raises(ToolError, match="has no index: make it by"):
        other.search(query="a bus")
    with pytest.raises(ValueError, match="no such folder"):
        ImageTools(embedder, [tmp_path / "missing"])
    with pytest.raises(ValueError, match="give it by --root"):
        ImageTools(embedder, [])


def test_a_broken_image_is_an_error_that_the_model_can_read(embedder, tmp_path):
    (tmp_path / "坏.png").write_bytes(b"not a picture")
    server = make_server(embedder, [tmp_path])
    with pytest.raises(ToolError, match=r"not a readable image"):
        asyncio.run(server.call_tool("label", {"image": "坏.png", "labels": ["狗"]}))


def test_the_tools_describe_themselves(embedder, drawings):
    listed = {tool.name: tool for tool in asyncio.run(make_server(embedder, [drawings]).list_tools())}
    assert listed.keys() == {"search", "label", "find_regions", "compare"}
    assert listed["search"].description.startswith("Find images by a text in Chinese or English")
    assert listed["search"].input_schema["properties"]["top_k"]["maximum"] == 50
    assert listed["label"].output_schema is not None


@pytest.mark.slow
def test_a_session_over_stdio(drawings, index):
    """As a program with a language model does it, by the client of the same SDK."""
    command = ["-m", "fgclip2", "mcp", "--root", str(drawings), "--device", "cpu"]
    parameters = StdioServerParameters(
        command=sys.executable, args=command, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    )

    async def main():
        async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
            await session.initialize()
            names = [tool.name for tool in (await session.list_tools()).tools]
            found = await session.call_tool("search", {"query": "红苹果", "top_k": 2})
            refused = await session.call_tool("label", {"image": "/etc/passwd", "labels": ["狗"]})
            return names, found, refused

    names, found, refused = asyncio.run(main())
    assert names == ["search", "label", "find_regions", "compare"]
    assert found.structured_content["images"][0]["path"].endswith("red-apple-twemoji.webp")
    assert "embedding" not in found.content[0].text
    assert refused.is_error
    assert "/etc/passwd is no file in" in refused.content[0].text
