"""transformers.js loads an exported folder in Node.js, and gives the vectors and labels of torch."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgclip2.assets import demo_images
from tests.docs.documents import ROOT, blocks, run_document

PAGE = ROOT / "docs" / "transformers_js.md"

TEXTS = ["a DOG", "红苹果", "两只狗在草地上跑", "A very long description of a red apple. " * 20]
# Squares of the side that the graphs take: transformers.js resizes others by another filter than PIL.
PICTURES = ["dog-face-noto", "red-apple-twemoji", "bicycle-fxemoji", "fire-engine-noto"]
LABELS = ["dog", "红苹果", "bicycle", "消防车"]  # the one of each picture
LEAST_COSINES = {"fp32": (0.99999, 0.9999), "q8": (0.999, 0.999)}  # of texts and of images


@pytest.fixture(scope="module")
def pictures() -> list:
    return [demo_images() / "pictures" / f"{name}.webp" for name in PICTURES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder in which the commands of the page have run: `models/fgclip2` is the checkpoint in fp32 and int8."""
    folder = tmp_path_factory.mktemp("transformers_js")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_document(PAGE)
    return folder


@pytest.fixture(scope="module")
def found(pictures, run_node, folder) -> dict:
    request = {"texts": TEXTS, "pictures": list(map(str, pictures)), "labels": LABELS, "dtypes": list(LEAST_COSINES)}
    (folder / "request.json").write_text(json.dumps(request, ensure_ascii=False), encoding="utf-8")
    script = Path(__file__).with_name("embed.mjs")
    run_node(script, folder / "models" / "fgclip2", folder / "request.json", folder / "output.json")
    return json.loads((folder / "output.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("dtype", LEAST_COSINES)
def test_vectors_are_those_of_torch(embedder, pictures, found, dtype):
    expected = {"texts": embedder.encode_texts(TEXTS, role="caption"), "images": embedder.encode_images(pictures)}
    for (name, vectors), least in zip(expected.items(), LEAST_COSINES[dtype], strict=True):
        actual = np.array(found[dtype][name])
        cosines = (actual * vectors).sum(-1) / np.linalg.norm(actual, axis=-1)
        assert cosines.min() >= least, (name, cosines)


@pytest.mark.parametrize("dtype", LEAST_COSINES)
def test_the_pipeline_ranks_labels_in_both_languages(embedder, pictures, found, dtype):
    expected = embedder.classify(pictures, LABELS)
    for ranked, probabilities, label in zip(found[dtype]["ranked"], expected, LABELS, strict=True):
        assert ranked[0]["label"] == label
        scores = {row["label"]: row["score"] for row in ranked}
        actual = [scores[name] for name in LABELS]
        np.testing.assert_allclose(actual, probabilities, atol=1e-4 if dtype == "fp32" else 0.02)


def test_the_javascript_of_the_page_runs(folder, pictures, run_node):
    (folder / "node_modules").symlink_to(Path(__file__).with_name("node_modules"))
    with Image.open(pictures[0]) as picture:
        picture.save(folder / "dog.png")
    printed = []
    for number, block in enumerate(blocks(PAGE, "javascript")):  # each as a program of its own
        script = folder / f"page_{number}.mjs"
        script.write_text(block, encoding="utf-8")
        printed.append(run_node(script))
    labels, _ = printed
    assert labels.index("'dog'") < labels.index("'红苹果'")
