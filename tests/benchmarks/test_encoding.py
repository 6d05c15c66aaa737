"""Embeddings of a data set: complete, in order, kept, and the same on any number of processes."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from fgclip2 import FGClip2Embedder
from fgclip2.benchmarks import encoding
from fgclip2.benchmarks.encoding import Encoder
from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.models import PairEmbedder, configuration_digest
from fgclip2.embedding import checkpoint_fingerprint, unit_vectors

from ..embedding.test_embedder import draw
from ..ranks import run_on_ranks

TEXTS = [f"{word}{number}" for number in range(6) for word in ("猫", "dog ")] * 2
BOXES = [[(0.0, 0.0, 40.0, 30.0)], [(5.0, 5.0, 20.5, 30.5), (0.0, 10.0, 48.0, 64.0)]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve images, the fourth of them broken and the sixth missing."""
    folder = tmp_path_factory.mktemp("图像")
    for index in range(12):
        draw(48, 64, index).save(folder / f"{index:02}.png")
    (folder / "03.png").write_bytes(b"broken")
    (folder / "05.png").unlink()
    return folder


def files(folder) -> list[ImageFile]:
    return [ImageFile(folder / f"{index:02}.png") for index in range(12)]


def boxes() -> list:
    return [BOXES[index % 2] for index in range(12)]


@pytest.fixture(scope="module")
def embedder() -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(device="cpu")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(encoding, "BLOCK_SIZE", 5)


def encoder(model, cache=None) -> Encoder:
    return Encoder(model, cache, show_progress_bar=False)


def test_images_come_in_order_without_those_that_cannot_be_read(embedder, folder):
    encoded = encoder(embedder).images(files(folder), 64)
    readable = [index for index in range(12) if index not in (3, 5)]
    expected = embedder.encode_images([folder / f"{index:02}.png" for index in readable], 64)
    np.testing.assert_allclose(encoded.vectors, expected, atol=1e-5)
    assert encoded.rows.tolist() == [int(index in readable) for index in range(12)]
    assert encoded.owners.tolist() == readable
    assert [problem.source for problem in encoded.problems] == [str(folder / name) for name in ("03.png", "05.png")]
    assert encoded.problems[0].reason == "6 bytes of no known image format"
    assert "05.png" in encoded.problems[1].reason


def test_regions_of_both_methods(embedder, folder):
    roi = encoder(embedder).regions(files(folder), boxes(), 64, "roi")
    crop = encoder(embedder).regions(files(folder), boxes(), 64, "crop")
    for encoded in (roi, crop):
        assert encoded.rows.tolist() == [0 if index in (3, 5) else 1 + index % 2 for index in range(12)]
        assert len(encoded.problems) == 2
    own = embedder.encode_regions([folder / "00.png", folder / "01.png"], BOXES, max_num_patches=64)
    np.testing.assert_allclose(roi.vectors[:3], np.concatenate(own), atol=1e-5)
    image = Image.open(folder / "01.png").convert("RGB")
    cropped = embedder.encode_images([image.crop((5, 5, 21, 31)), image.crop((0, 10, 48, 64))], 64)
    np.testing.assert_allclose(crop.vectors[1:3], cropped, atol=1e-5)


def test_a_box_that_no_model_takes_leaves_its_image_out(embedder, folder):
    wrong = [*BOXES, [(0.0, 0.0, 10.0, 10.0), (500.0, 0.0, 600.0, 10.0)]]
    encoded = encoder(embedder).regions(files(folder)[:3], wrong, 64, "roi")
    assert encoded.rows.tolist() == [1, 2, 0]
    assert "500" in encoded.problems[0].reason


def test_texts_are_encoded_once_each(embedder):
    calls = []
    model = PairEmbedder(lambda *_: [], lambda texts: calls.extend(texts) or [[1.0, len(text)] for text in texts], "x")
    vectors = encoder(model).texts(TEXTS, "caption")
    assert calls == TEXTS[:12]
    assert vectors.shape == (24, 2)
    np.testing.assert_array_equal(vectors[:12], vectors[12:])
    np.testing.assert_allclose(
        encoder(embedder).texts(TEXTS, "region_phrase"), embedder.encode_texts(TEXTS, "box"), atol=1e-5
    )


def test_a_model_without_region_features_is_told_to_crop(folder):
    model = PairEmbedder(lambda images, _: np.ones((len(images), 2)), lambda texts: [], "mine")
    with pytest.raises(ValueError, match="mine has no region features; take method='crop'"):
        encoder(model).regions(files(folder), boxes(), None, "roi")
    with pytest.raises(ValueError, match="method must be 'roi' or 'crop', got 'box'"):
        encoder(model).regions(files(folder), boxes(), None, "box")
    assert encoder(model).regions(files(folder), boxes(), None, "crop").vectors.shape == (14, 2)


def test_what_is_kept_is_not_encoded_again_and_is_the_same_to_the_bit(embedder, folder, tmp_path, monkeypatch):
    first = encoder(embedder, tmp_path).images(files(folder), 64)
    kept = sorted(tmp_path.rglob("*.safetensors"))
    assert len(kept) == 3
    kept[1].unlink()  # as if the run had been killed
    kept[2].write_bytes(kept[2].read_bytes()[:99])  # as if the disk had been full
    calls = []
    encode = FGClip2Embedder.encode_images
    monkeypatch.setattr(
        FGClip2Embedder,
        "encode_images",
        lambda self, images, *a, **k: calls.append(len(images)) or encode(self, images, *a, **k),
    )
    second = encoder(embedder, tmp_path).images(files(folder), 64)
    assert len(calls) == 2
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert first.problems == second.problems
    assert not list(tmp_path.rglob("*.unfinished"))


def test_other_settings_contents_or_weights_are_not_taken_from_the_cache(embedder, folder, tmp_path):
    first = encoder(embedder, tmp_path).images(files(folder)[:2], 64)
    other_budget = encoder(embedder, tmp_path).images(files(folder)[:2], 16)
    assert not np.allclose(first.vectors, other_budget.vectors)
    copies = [ImageFile(tmp_path / f"{index}.png") for index in range(2)]
    for index, copy in enumerate(copies):
        copy.path.write_bytes((folder / f"{index:02}.png").read_bytes())
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    encoder(embedder, tmp_path).images(copies, 64)  # the same contents elsewhere
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    draw(48, 64, 99).save(copies[0].path)
    assert not np.allclose(encoder(embedder, tmp_path).images(copies, 64).vectors, first.vectors)
    unknown = PairEmbedder(lambda images, _: np.ones((len(images), 2)), lambda texts: [], "mine")
    before = len(list(tmp_path.rglob("*.safetensors")))
    encoder(unknown, tmp_path).images(copies, 64)
    assert len(list(tmp_path.rglob("*.safetensors"))) == before


def encode_everything(folder: str) -> dict:
    from pathlib import Path

    encoding.BLOCK_SIZE = 5
    torch.set_num_threads(1)
    encoder = Encoder(FGClip2Embedder.from_pretrained(device="cpu"), None, show_progress_bar=False)
    images = encoder.images(files(Path(folder)), 64)
    regions = encoder.regions(files(Path(folder)), boxes(), 64, "roi")
    texts = encoder.texts(TEXTS, "region_phrase")
    return {
        "vectors": [torch.from_numpy(each) for each in (images.vectors, regions.vectors, texts)],
        "rows": regions.rows.tolist(),
        "problems": [str(problem) for problem in images.problems],
    }


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_processes_gives_the_same(folder, world_size):
    one = run_on_ranks(encode_everything, 1, str(folder))[0]
    for each in run_on_ranks(encode_everything, world_size, str(folder)):
        for ours, theirs in zip(each["vectors"], one["vectors"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        assert each["rows"] == one["rows"]
        assert each["problems"] == one["problems"]
        assert len(each["problems"]) == 2


def test_boxes_that_no_image_has_leave_it_out_of_both_methods(embedder, folder):
    wrong = [*BOXES, [(5000.0, 0.0, 5050.0, 40.0)], [(0.0, 0.0, 1.0, 1.0)], [(-30.0, -9.0, 600.0, 900.0)]]
    images = [files(folder)[index] for index in (0, 1, 2, 4, 6)]
    roi, crop = (encoder(embedder).regions(images, wrong, 64, method) for method in ("roi", "crop"))
    assert roi.rows.tolist() == crop.rows.tolist() == [1, 2, 0, 1, 1]
    assert roi.problems == crop.problems
    assert roi.problems[0].reason.startswith("boxes[0]=[5000.0, 0.0, 5050.0, 40.0] lies outside its image of 48 x 64")
    whole = embedder.encode_images([folder / "06.png"], 64)
    np.testing.assert_allclose(crop.vectors[-1:], whole, atol=1e-5)


def test_the_digest_of_a_configuration_does_not_depend_on_what_was_done(embedder, folder):
    before = configuration_digest(embedder)
    embedder.encode_texts(["一只猫", "a dog"], "long")
    embedder.encode_images([folder / "00.png"], 16)
    embedder.encode_texts(["一只猫"], "box")
    assert configuration_digest(embedder) == before == configuration_digest(FGClip2Embedder.from_pretrained())
    changed = FGClip2Embedder.from_pretrained(device="cpu")
    changed.processor.tokenizer.short_length = 32
    assert configuration_digest(changed) != before


def test_other_preprocessing_or_vocabulary_is_not_taken_from_the_cache(folder, tmp_path):
    first, second = (FGClip2Embedder.from_pretrained(device="cpu") for _ in range(2))
    before = encoder(first, tmp_path).images(files(folder)[:2], 64)
    second.processor.image_processor.image_mean = [0.4, 0.5, 0.6]
    assert second.fingerprint == first.fingerprint
    after = encoder(second, tmp_path).images(files(folder)[:2], 64)
    assert not np.allclose(before.vectors, after.vectors, atol=1e-4)


@pytest.mark.parametrize(
    ("crop_edges", "sizes"),
    [
        ("outward", [(7, 4), (8, 1), (1, 1)]),  # pixels 10 to 16 and 2 to 5, 1 to 8, and one
        ("whole-sides", [(5, 2), (7, 1), (1, 1)]),  # 10 to 14: int(10.7) and int(5.6), as the official box scripts cut
        ("whole-corners", [(6, 3), (7, 1), (1, 1)]),  # 10 to 15: int(10.7) and int(16.3), as the official FG-OVD script
    ],
)
def test_crops_have_the_pixels_that_a_script_takes(folder, crop_edges, sizes):
    x, width = 1.2, 7.0
    assert (x + width) - x < width  # the corners of a box have lost some of its width
    its_boxes = [(10.7, 2.5, 10.7 + 5.6, 2.5 + 2.9), (x, 4.0, x + width, 4.3), (20.25, 30.5, 20.75, 30.75)]
    seen = []
    model = PairEmbedder(lambda images, _: seen.extend(image.size for image in images) or np.ones((3, 2)), list, "mine")
    encoder(model).regions(files(folder)[:1], [its_boxes], None, "crop", crop_edges)
    assert seen == sizes


def test_crops_of_one_kind_are_not_taken_from_the_cache_for_another(embedder, folder, tmp_path):
    outward, whole = (
        encoder(embedder, tmp_path).regions(files(folder)[1:2], boxes()[1:2], 64, "crop", crop_edges)
        for crop_edges in ("outward", "whole-sides")
    )
    assert not np.allclose(outward.vectors, whole.vectors, atol=1e-4)


def test_flipped_bits_of_a_kept_block_are_noticed_and_cost_its_rows_alone(tmp_path, caplog):
    calls = []
    vectors = unit_vectors(torch.randn(10, 16, generator=torch.Generator().manual_seed(0)))
    model = PairEmbedder(list, lambda texts: calls.append(texts) or vectors[list(map(int, texts))], "一", None, "one")
    texts = [str(number) for number in range(10)]
    first = encoder(model, tmp_path).texts(texts, "caption")
    blocks = sorted(tmp_path.rglob("*.safetensors"))
    assert len(blocks) == 2
    random = np.random.default_rng(0)
    for flip in range(100):
        path = blocks[flip % 2]
        content = bytearray(path.read_bytes())
        bit = int(random.integers(8 * len(content)))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        calls.clear()
        caplog.clear()
        np.testing.assert_array_equal(encoder(model, tmp_path).texts(texts, "caption"), first)
        assert len(calls) == 1
        assert f"{path} is damaged" in caplog.text
    calls.clear()
    encoder(model, tmp_path).texts(texts, "caption")
    assert not calls


def test_blocks_of_an_earlier_release_are_encoded_again_and_the_log_says_why(folder, tmp_path, caplog):
    model = PairEmbedder(lambda images, _: np.ones((len(images), 2)), list, "mine", fingerprint="one")
    old = tmp_path / "ab" / "ab12.safetensors"
    old.parent.mkdir()
    save_file({"vectors": np.ones((1, 2), np.float32), "rows": np.ones(1, np.int64)}, old, metadata={"reasons": "{}"})
    encoder(model, tmp_path).images(files(folder), None)
    assert caplog.text.count("has embeddings that an earlier release kept") == 1
    assert "they are encoded again" in caplog.text
    caplog.clear()
    encoder(model, tmp_path).images(files(folder), None)
    assert not caplog.text


def test_one_function_makes_the_fingerprints_of_all_models(embedder):
    """What is kept is found by it, as an index is; a processor that is changed later changes it."""
    assert configuration_digest(embedder) == embedder.fingerprint
    assert embedder.fingerprint == checkpoint_fingerprint(
        embedder.weights_fingerprint, embedder.model.config, embedder.processor
    )
