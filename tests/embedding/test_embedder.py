"""FGClip2Embedder on a tiny checkpoint: equal to the plain model, whatever the batch, the order and the device."""

import itertools
import logging
import pickle
import shutil
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fgclip2 import FGClip2Embedder, FGClip2Model, FGClip2Processor
from fgclip2.embedding import Skipped
from fgclip2.errors import UnreadableImageError
from tests.checkpoints import official_folder, saved_folder
from tests.interpreters import run_python

__all__ = ["official_folder", "saved_folder"]

LONG = "一只黑猫趴在窗台上, a black cat on the windowsill. " * 4
TEXTS = ["a black cat", "一只黑猫", LONG, "", "🐈 und 猫", LONG.upper(), "dog"]
SIZES = [(160, 120), (40, 300), (640, 480), (1, 1), (500, 37), (320, 320), (16, 16)]


def draw(width: int, height: int, seed: int) -> Image.Image:
    """A smooth random colour image."""
    colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(colors).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def embedder(saved_folder) -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(saved_folder, device="cpu")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [draw(*size, seed) for seed, size in enumerate(SIZES)]


@pytest.fixture
def files(images, tmp_path) -> list[Path]:
    """A readable, a missing, a truncated and a readable file."""
    good, truncated, last = tmp_path / "黑猫.png", tmp_path / "截断.jpg", tmp_path / "dog.png"
    images[0].save(good)
    images[2].save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:3000])
    images[1].save(last)
    return [good, tmp_path / "missing.jpg", truncated, last]


def normalised(features: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(features, dim=-1).numpy()


# Values -----------------------------------------------------------------------------------------------------------


def test_images_equal_the_plain_model(embedder, images):
    with torch.no_grad():
        inputs = [embedder.processor(images=image) for image in images]
        expected = np.concatenate([normalised(embedder.model.get_image_features(**each)) for each in inputs])
    vectors = embedder.encode_images(images)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(images), embedder.embedding_size)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_texts_equal_the_plain_model_and_long_ones_take_the_long_head(embedder):
    def plain(text: str, walk: str) -> np.ndarray:
        ids = embedder.processor.tokenizer([text], walk_type=walk, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return normalised(embedder.model.get_text_features(ids, walk_type=walk))[0]

    walks = ["long" if text.lower() == LONG.lower() else "short" for text in TEXTS]
    expected = np.stack([plain(text, walk) for text, walk in zip(TEXTS, walks, strict=True)])
    np.testing.assert_allclose(embedder.encode_texts(TEXTS), expected, atol=1e-5)
    boxed = np.stack([plain(text, "box") for text in TEXTS])
    np.testing.assert_allclose(embedder.encode_texts(TEXTS, walk_type="box"), boxed, atol=1e-5)


def test_texts_of_exactly_64_tokens_are_short(embedder):
    def tokens(text: str) -> int:
        return len(embedder.processor.tokenizer.encode(text))

    words = "猫"
    while tokens(words + "猫") <= 64:
        words += "猫"
    assert tokens(words) == 64
    np.testing.assert_array_equal(embedder.encode_texts(words), embedder.encode_texts(words, "short"))
    np.testing.assert_array_equal(embedder.encode_texts(words + "猫"), embedder.encode_texts(words + "猫", "long"))


def test_regions_equal_the_plain_model_in_both_box_formats(embedder, images):
    boxes = [[[10, 20, 100, 90], [0, 0, 160, 120]], [], [[-30, 400.5, 700, 480]]]
    chosen = images[:3]
    with torch.no_grad():
        inputs = [embedder.processor(images=[image], boxes=[each]) for image, each in zip(chosen, boxes, strict=True)]
        expected = [normalised(embedder.model.get_image_region_features(**each)[0]) for each in inputs]
    vectors = embedder.encode_regions(chosen, boxes)
    assert [len(each) for each in vectors] == [2, 0, 1]
    assert vectors[1].shape == (0, embedder.embedding_size)
    xywh = [[[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in each] for each in boxes]
    for ours, also, theirs in zip(vectors, embedder.encode_regions(chosen, xywh, "xywh"), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        np.testing.assert_allclose(also, ours, atol=1e-6)


def test_vectors_do_not_depend_on_batch_order_or_threads(embedder, images):
    alone = np.stack([embedder.encode_images(image) for image in images])
    for batch_size, order in itertools.product((1, 2, 64), ([3, 1, 6, 0, 2, 5, 4], range(len(images)))):
        order = list(order)
        together = embedder.encode_images([images[index] for index in order], batch_size=batch_size)
        np.testing.assert_allclose(together, alone[order], atol=1e-5)
    texts = np.stack([embedder.encode_texts(text) for text in TEXTS])
    np.testing.assert_allclose(embedder.encode_texts(TEXTS[::-1], batch_size=1), texts[::-1], atol=1e-5)
    boxes = [[[0, 0, 1, 1]] * count for count in (1, 3, 0, 1, 2, 1, 1)]
    regions = [embedder.encode_regions(image, each) for image, each in zip(images, boxes, strict=True)]
    for ours, single in zip(embedder.encode_regions(images, boxes), regions, strict=True):
        np.testing.assert_allclose(ours, single, atol=1e-5)


def test_two_replicas_share_the_work(saved_folder, embedder, images):
    pair = FGClip2Embedder.from_pretrained(saved_folder, device=["cpu", "cpu"])
    first, second = pair.replicas
    assert first is not second
    calls = []
    for name, replica in (("first", first), ("second", second)):
        replica.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        replica.vision_model.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    many = images * 6
    np.testing.assert_allclose(pair.encode_images(many, batch_size=1), embedder.encode_images(many), atol=1e-5)
    assert set(calls) == {"first", "second"}
    np.testing.assert_allclose(pair.encode_texts(TEXTS * 9, batch_size=1), embedder.encode_texts(TEXTS * 9), atol=1e-5)


def test_each_image_gets_its_own_budget_unless_told(embedder, images):
    fixed = embedder.encode_images(images, max_num_patches=64)
    with torch.no_grad():
        expected = embedder.model.get_image_features(**embedder.processor(images=images, max_num_patches=64))
    np.testing.assert_allclose(fixed, normalised(expected), atol=1e-5)
    assert np.abs(fixed - embedder.encode_images(images)).max() > 1e-4


def test_paths_arrays_and_repeated_lazy_images_agree(embedder, images, tmp_path):
    path = tmp_path / "图.png"
    images[0].save(path)
    array = np.array(images[0])
    lazy = Image.open(path)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    vectors = embedder.encode_images([path, str(path), path.read_bytes(), array, tensor, *[lazy] * 20])
    np.testing.assert_allclose(vectors, np.broadcast_to(vectors[0], vectors.shape), atol=1e-5)


# Shapes and long inputs -------------------------------------------------------------------------------------------


def test_single_inputs_drop_the_first_axis_and_empty_lists_keep_the_width(embedder, images):
    width = embedder.embedding_size
    assert embedder.encode_images(images[0]).shape == (width,)
    assert embedder.encode_images(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, width)
    assert embedder.encode_texts("猫").shape == (width,)
    assert embedder.encode_regions(images[0], [[0, 0, 9, 9]] * 3).shape == (3, width)
    assert embedder.encode_images([]).shape == embedder.encode_texts([]).shape == (0, width)
    assert embedder.encode_images([]).dtype == np.float32
    assert embedder.encode_regions([], []) == []
    assert embedder.encode_images([], on_error="skip")[1] == []


def test_iterables_are_read_while_the_work_proceeds(embedder, monkeypatch):
    """When the first batch runs, only what is under way has been taken from a long stream."""
    taken, taken_at_forward = [], []

    def stream():
        for index in range(300):
            taken.append(index)
            yield np.zeros((16, 16, 3), np.uint8)

    forward = embedder.model.get_image_features

    def watched(*args, **kwargs):
        taken_at_forward.append(len(taken))
        return forward(*args, **kwargs)

    monkeypatch.setattr(embedder.model, "get_image_features", watched)
    assert len(embedder.encode_images(stream(), batch_size=2, max_num_patches=64)) == 300
    assert taken_at_forward[0] < 40


def test_stream_gives_the_same_vectors_one_by_one(embedder, images, files):
    paths = [*files, *images]
    results = dict(embedder.stream_images(paths, batch_size=2, on_error="skip"))
    vectors, skipped = embedder.encode_images(paths, on_error="skip")
    assert [results.pop(index) for index, _ in skipped] == skipped
    np.testing.assert_allclose(np.stack([results[index] for index in sorted(results)]), vectors, atol=1e-5)


def test_progress_bar_only_on_request_or_for_many(embedder, images, capsys):
    embedder.encode_images(images[:2])
    embedder.encode_texts(TEXTS, show_progress_bar=False)
    assert capsys.readouterr().err == ""
    embedder.encode_images(images[:2], show_progress_bar=True)
    shown = capsys.readouterr()
    assert "2/2" in shown.err
    assert shown.out == ""


# Bad inputs -------------------------------------------------------------------------------------------------------


def test_unreadable_images_raise_by_name_or_are_skipped(embedder, files):
    with pytest.raises(UnreadableImageError, match=r"images\[1\].*missing\.jpg"):
        embedder.encode_images(files)
    with pytest.raises(UnreadableImageError, match=r"images\[0\].*截断\.jpg"):
        embedder.encode_images(files[2])
    vectors, skipped = embedder.encode_images(files, on_error="skip")
    assert [index for index, _ in skipped] == [1, 2]
    assert isinstance(skipped[0], Skipped)
    assert "missing.jpg" in skipped[0].reason
    assert "截断.jpg" in skipped[1].reason
    np.testing.assert_allclose(vectors, embedder.encode_images([files[0], files[3]]), atol=1e-5)
    scores, skipped = embedder.classify(files, ["猫", "dog"], on_error="skip")
    assert scores.shape == (2, 2)
    assert len(skipped) == 2
    nothing, skipped = embedder.encode_images(files[1:3], on_error="skip")
    assert nothing.shape == (0, embedder.embedding_size)
    with pytest.raises(UnreadableImageError, match=r"images\[0\]: 3 bytes of no known image format"):
        embedder.encode_images(b"abc")
    with pytest.raises(UnreadableImageError, match=r"images\[0\]:.*truncated"):
        embedder.encode_images(files[2].read_bytes())
    with pytest.raises(UnreadableImageError, match="needs a list"):
        embedder.encode_images(files[1], on_error="skip")


def test_a_decoder_that_raises_anything_is_an_unreadable_image(embedder, monkeypatch, images):
    def broken(image, max_pixels):
        raise KeyError("chunk")

    monkeypatch.setattr("fgclip2.embedding.inputs.load_image", broken)
    with pytest.raises(UnreadableImageError, match=r"images\[0\]: 猫\.png: KeyError"):
        embedder.encode_images(["猫.png"])
    assert embedder.encode_images(images[:2], on_error="skip")[1][1] == (1, "images[1]: KeyError: 'chunk'")


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([5, 5, 5, 50], "no area"),
        ([50, 50, 10, 90], "inverted.*xywh"),
        ([float("nan"), 0, 5, 5], "not finite"),
        ([0, 0, float("inf"), 5], "not finite"),
        ([200, 0, 300, 50], "outside"),
        ([1, 2, 3], "four numbers"),
        ([0, 0, 10**400, 5], "four numbers"),
        (7, "four numbers"),
    ],
)
def test_wrong_boxes_are_refused_or_skipped_with_their_image(embedder, images, box, message):
    boxes = [[[0, 0, 9, 9]], [[0, 0, 9, 9], box]]
    chosen = [images[2], images[0]]
    with pytest.raises(ValueError, match=rf"boxes\[1\]\[1\].*{message}"):
        embedder.encode_regions(chosen, boxes)
    vectors, skipped = embedder.encode_regions(chosen, boxes, on_error="skip")
    assert len(vectors) == 1
    assert skipped[0].index == 1


@pytest.mark.parametrize("box", [[5, 5, 0, 9], [5, 5, -3, 9], [5, 5, float("nan"), 9], [1, 2, 3], "abcd"])
def test_wrong_xywh_boxes_are_named_as_such(embedder, images, box):
    with pytest.raises(ValueError, match=r"boxes\[0\]\[0\].*\(x, y, width, height\)"):
        embedder.encode_regions(images[0], [box], box_format="xywh")


def test_boxes_may_be_iterators(embedder, images):
    boxes = [[0, 0, 9, 9], [3, 4, 20, 30]]
    expected = embedder.encode_regions(images[0], boxes)
    assert np.array_equal(embedder.encode_regions(images[0], iter(boxes)), expected)
    assert np.array_equal(embedder.encode_regions(images[0], [map(float, box) for box in boxes]), expected)


def test_doubtful_boxes_are_warned_of_in_one_line(embedder, images):
    boxes = [[[-20, 0, 80, 60], [0, 0, 160.4, 120.9]], [[0, 0, 60, 300], [0, 0, 40, 300]]]
    first = r"boxes\[0\]\[0\]=\[-20\.0, 0\.0, 80\.0, 60\.0\] in 160 x 120 pixels"
    with pytest.warns(UserWarning, match=rf"that reach outside their images .*: 2\. The first is {first}") as caught:
        regions = embedder.encode_regions(images[:2], boxes)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="boxes that reach outside"):
        embedder.processor(images=images[:2], boxes=boxes)
    with pytest.warns(UserWarning, match=r"that cover one pixel, as relative boxes of a whole image would.*: 1\."):
        embedder.encode_regions(images[0], [[0, 0, 1, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inside = embedder.encode_regions(images[:2], [boxes[0][1:], boxes[1][1:]])
    np.testing.assert_allclose(inside[0], regions[0][1:], atol=1e-5)


@pytest.mark.parametrize("boxes", [[[0.1, 0.2, 0.8, 0.9]], [[0, 0.5, 1, 1], [0, 0, 1, 1]]])
def test_relative_boxes_are_refused(embedder, images, boxes):
    message = r"relative, all from 0 to 1, but the image has 160 x 120 pixels: multiply x by 160 and y by 120"
    with pytest.raises(ValueError, match=message):
        embedder.encode_regions(images[0], boxes)
    with pytest.raises(ValueError, match=message):
        embedder.processor(images=images[:1], boxes=[boxes])
    assert len(embedder.encode_regions(images[0], [*boxes, [10, 10, 50, 50]])) == len(boxes) + 1


def test_a_batch_too_large_for_the_memory_is_halved(embedder, images, monkeypatch, caplog):
    """As on an accelerator; here the model says by itself that it can't hold more than two."""
    pictures, texts, sizes, limit = [images[0]] * 8, ["黑猫", "dog", "a cat", "狗"], [], 2
    expected_images, expected_texts = embedder.encode_images(pictures), embedder.encode_texts(texts)

    def limited(method):
        def features(*arguments, **inputs):
            sizes.append(len(next(iter(inputs.values()))))
            if sizes[-1] > limit:
                raise torch.OutOfMemoryError("out of memory")
            return method(*arguments, **inputs)

        return features

    for name in ("get_image_features", "get_role_features"):
        monkeypatch.setattr(embedder.model, name, limited(getattr(embedder.model, name)))
    # Two images of 256 patches are four of 128.
    np.testing.assert_allclose(embedder.encode_images(pictures, batch_size=2), expected_images, atol=1e-5)
    assert sizes == [4, 2, 2, 2, 2]
    (line,) = (record.message for record in caplog.records)
    assert line.startswith("4 inputs at once are too many for the memory of cpu: the batch is taken in halves")
    np.testing.assert_allclose(embedder.encode_texts(texts), expected_texts, atol=1e-5)
    assert sizes[5:] == [4, 2, 2]
    limit = 1
    with pytest.raises(torch.OutOfMemoryError):  # once only
        embedder.encode_texts(texts)
    assert sizes[8:] == [4, 2]


@pytest.mark.parametrize("budget", [0, -1, "many", True])
def test_a_wrong_budget_is_never_skipped(embedder, images, budget):
    with pytest.raises(ValueError, match=r"max_num_patches must be 'auto' or a positive integer, got"):
        embedder.encode_images(images, max_num_patches=budget, on_error="skip")


def test_the_automatic_head_keeps_to_the_limit_of_short_captions(saved_folder):
    texts = ["dog", "狗", "a black cat on the windowsill of a house", "一只黑猫趴在窗台上，旁边是一盆绿植。"]
    embedder = FGClip2Embedder.from_pretrained(saved_folder, device="cpu", max_caption_tokens=3)
    assert [count <= 3 for count in embedder.processor.count_tokens(texts)] == [True, True, False, False]
    expected = [embedder.encode_texts(texts[:2], "short"), embedder.encode_texts(texts[2:], "long")]
    np.testing.assert_allclose(embedder.encode_texts(texts), np.concatenate(expected), atol=1e-6)
    as_before = FGClip2Embedder.from_pretrained(saved_folder, device="cpu")
    np.testing.assert_allclose(as_before.encode_texts(texts), embedder.encode_texts(texts, "short"), atol=1e-6)
    assert as_before.fingerprint == embedder.fingerprint  # images and texts of each head have the same vectors
    with pytest.raises(ValueError, match=r"`max_caption_tokens` must be an integer from 0 to 64, got 65"):
        FGClip2Embedder.from_pretrained(saved_folder, device="cpu", max_caption_tokens=65)


def test_boxes_must_be_a_list_for_each_image(embedder, images):
    with pytest.raises(ValueError, match="boxes has 1 entries for 2 images"):
        embedder.encode_regions(images[:2], [[[0, 0, 1, 1]]])
    with pytest.raises(ValueError, match=r"boxes\[0\] must be a list of boxes, which may be empty, got None"):
        embedder.encode_regions(images[:1], [None])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode_texts(["猫", 3]), r"texts\[1\] must be a string"),
        (lambda e: e.encode_texts("bad \ud83d"), r"texts\[0\] has the lone surrogate"),
        (lambda e: e.encode_texts(None), "texts must be .*, got NoneType"),
        (lambda e: e.encode_texts("猫", "region"), "walk_type must be 'auto', .* or 'box', got 'region'"),
        (lambda e: e.encode_images(3), "images must be .*, got int"),
        (lambda e: e.encode_images([], batch_size=0), "batch_size must be a positive integer, got 0"),
        (lambda e: e.encode_images([], on_error="ignore"), "on_error must be 'raise' or 'skip', got 'ignore'"),
        (lambda e: e.encode_regions([], [], "cxcywh"), "box_format must be 'xyxy' or 'xywh', got 'cxcywh'"),
        (lambda e: e.classify([], "猫"), "labels must be a list .*, got '猫'"),
        (lambda e: e.classify([], []), r"labels must be a list of at least one label, got \[\]"),
        (
            lambda e: e.classify([], ["猫"], templates="一张照片"),
            r"templates must be .*where the label goes, got \['一张照片'\]",
        ),
        (lambda e: e.classify([], ["猫"], walk_type="box"), "classify_regions"),
        (
            lambda e: e.classify_regions([], [], ["猫"], walk_type="short"),
            "only with texts of walk_type='box', got 'short'",
        ),
        (lambda e: e.classify([], ["猫", 3]), r"labels\[1\] must be a string"),
        (lambda e: e.classify([], ["bad \ud83d"], ["{}", "一张{}"]), r"labels\[0\] has the lone surrogate"),
        (lambda e: e.classify([], ["猫"], ["{}", None]), r"templates\[1\] must be a string"),
        (lambda e: e.heatmap([], []), "text is an empty list"),
        (lambda e: e.heatmap([], None), "text must be .*, got NoneType"),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(embedder, call, message):
    with pytest.raises(ValueError, match=message):
        call(embedder)


def test_cut_texts_are_warned_of(embedder, caplog):
    with caplog.at_level(logging.WARNING):
        embedder.encode_texts(["猫", LONG])
        assert not caplog.records
        embedder.encode_texts(["猫", LONG], walk_type="short")
        embedder.encode_texts(["猫", "猫" * 10_000, "dog"])
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "1 texts have more than 64 tokens and were cut; 'auto' takes longer ones"
    assert messages[1] == "1 texts have more than 196 tokens and were cut"


@settings(max_examples=25)
@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80), max_size=6))
def test_any_texts_give_unit_vectors(embedder, texts):
    vectors = embedder.encode_texts(texts)
    assert vectors.shape == (len(texts), embedder.embedding_size)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


coordinates = st.floats(-1e4, 1e4) | st.sampled_from([float("nan"), float("inf"), -0.0])


@settings(max_examples=60)
@given(st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), min_size=1, max_size=4))
def test_any_boxes_give_finite_vectors_or_an_error(embedder, images, boxes):
    try:
        vectors = embedder.encode_regions(images[0], boxes)
    except ValueError as error:
        assert "boxes[0]" in str(error)  # noqa: PT017
    else:
        assert vectors.shape == (len(boxes), embedder.embedding_size)
        assert np.isfinite(vectors).all()


@settings(max_examples=20)
@given(st.integers(1, 1500), st.integers(1, 60), st.booleans())
def test_any_image_size_gives_a_unit_vector(embedder, long, short, upright):
    image = draw(*((short, long) if upright else (long, short)), seed=0)
    np.testing.assert_allclose(np.linalg.norm(embedder.encode_images(image)), 1, atol=1e-5)


# Comparing --------------------------------------------------------------------------------------------------------


def test_similarity_is_the_cosine_and_zero_vectors_give_zero(embedder):
    a = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    b = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, -4.0]], np.float32)
    np.testing.assert_allclose(embedder.similarity(a, b), [[0.6, 0.8, -1.0], [0, 0, 0]], atol=1e-6)
    assert embedder.similarity(a[0], b).shape == (3,)
    assert embedder.similarity(a[0], b[0]) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="length 2, b of length 3"):
        embedder.similarity(a, np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"`b` must be .*, got list"):
        embedder.similarity(a, [b])


def test_classify_gives_the_probabilities_of_the_model(embedder, images):
    labels = ["黑猫", "a dog", "{}"]
    inputs = embedder.processor(text=labels, images=images[0])
    with torch.no_grad():
        expected = embedder.model(**inputs).logits_per_image.sigmoid().numpy()
    scores = embedder.classify(images, labels)
    np.testing.assert_allclose(scores[:1], expected, rtol=1e-4)
    np.testing.assert_allclose(embedder.classify(images[0], labels), scores[0], atol=1e-6)


def test_templates_are_averaged(embedder, images):
    templates = ["a photo of {}", "一张{}的照片"]
    scores = embedder.classify(images[0], ["猫", "狗"], templates)
    vectors = embedder.encode_texts(["a photo of 猫", "一张猫的照片", "a photo of 狗", "一张狗的照片"])
    means = np.stack([vectors[:2].mean(0), vectors[2:].mean(0)])
    expected = embedder.probabilities(embedder.similarity(embedder.encode_images(images[0]), means))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_probabilities_stay_finite_at_extreme_logits(embedder, monkeypatch):
    monkeypatch.setattr(embedder, "score_scale_and_bias", (np.exp(9.0), embedder.logit_bias))
    values = embedder.probabilities(np.array([-1.0, 0.0, 1.0]))
    assert np.isfinite(values).all()
    assert values[0] == 0
    assert values[2] == 1


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_boxes_may_be_detections_or_have_scores(embedder, images, array):
    boxes = [[0.0, 0.0, 9.0, 9.0], [3.0, 2.0, 20.0, 15.0]]
    expected = embedder.encode_regions(images[0], boxes)
    detections = SimpleNamespace(xyxy=array(boxes))  # as supervision's and Ultralytics' are
    scored = array([[*box, 0.5] for box in boxes])
    np.testing.assert_array_equal(embedder.encode_regions(images[0], detections), expected)
    np.testing.assert_array_equal(embedder.encode_regions(images[0], scored), expected)
    both = embedder.classify_regions([images[0]] * 2, [detections, scored], ["猫", "dog"])
    np.testing.assert_array_equal(both[0], both[1])
    with pytest.raises(ValueError, match=r"boxes\[0\] are SimpleNamespace with corners .*: leave out `box_format`"):
        embedder.encode_regions(images[0], detections, box_format="xywh")
    with pytest.raises(ValueError, match=r"boxes\[0\]\[1\]=.* has a fifth number that is no score from 0 to 1"):
        embedder.encode_regions(images[0], [boxes[0], [*boxes[1], 16]])


def test_labels_and_shares_are_what_classify_regions_is_made_of(embedder, images):
    boxes, labels, templates = [[0, 0, 9, 9]], ["猫", "dog"], ["一张{}的照片", "a photo of {}"]
    vectors = embedder.encode_labels(labels, templates, role="region_phrase")
    shares = embedder.region_shares(embedder.similarity(embedder.encode_regions(images[0], boxes), vectors))
    np.testing.assert_array_equal(shares, embedder.classify_regions(images[0], boxes, labels, templates))


def test_classify_regions_compares_with_the_box_head(embedder, images):
    labels, boxes = ["猫", "a dog", "汽车"], [[0, 0, 80, 60], [20, 20, 150, 110]]
    scores = embedder.classify_regions(images[0], boxes, labels)
    regions = embedder.encode_regions(images[0], boxes)
    logits = 100 * regions @ embedder.encode_texts(labels, "box").T
    np.testing.assert_allclose(scores, torch.from_numpy(logits).softmax(-1).numpy(), atol=1e-5)
    both = embedder.classify_regions(images[:2], [boxes, []], labels)
    assert both[1].shape == (0, 3)
    np.testing.assert_allclose(both[0], scores, atol=1e-4)


# Heat maps --------------------------------------------------------------------------------------------------------


def test_heatmap_grid_has_the_cosines_of_the_dense_features(embedder, images):
    grid = embedder.heatmap(images[0], "黑猫", resize=False)
    inputs = embedder.processor(images=[images[0]])
    height, width = inputs["spatial_shapes"][0].tolist()
    with torch.no_grad():
        dense = normalised(embedder.model.get_image_dense_feature(**inputs))[0, : height * width]
    expected = (dense @ embedder.encode_texts("黑猫", "box")).reshape(height, width)
    np.testing.assert_allclose(grid, expected, atol=1e-5)


def test_heatmap_sizes(embedder, images):
    assert embedder.heatmap(images[0], "cat").shape == (120, 160)
    assert embedder.heatmap(images[0], ["cat", "黑猫"]).shape == (2, 120, 160)
    maps = embedder.heatmap(images[:4], "黑猫")
    assert [each.shape for each in maps] == [(height, width) for width, height in SIZES[:4]]
    fine = embedder.heatmap(images[0], "cat", resize=False, max_num_patches=1024)
    assert fine.size > embedder.heatmap(images[0], "cat", resize=False).size
    assert len(embedder.heatmap(["missing.png", images[0]], "猫", on_error="skip")[0]) == 1


def test_heatmaps_of_many_texts_are_enlarged_one_at_a_time(embedder, images, monkeypatch):
    texts, shapes = ["cat", "黑猫", "dog"], []
    grids = torch.from_numpy(embedder.heatmap(images[0], texts, resize=False))
    interpolate = torch.nn.functional.interpolate
    together = interpolate(grids[None], (120, 160), mode="bilinear", antialias=True)[0]

    def spy(maps, *rest, **how):
        shapes.append(maps.shape)
        return interpolate(maps, *rest, **how)

    monkeypatch.setattr(torch.nn.functional, "interpolate", spy)
    np.testing.assert_array_equal(embedder.heatmap(images[0], texts), together.numpy())
    assert {tuple(shape[:2]) for shape in shapes} == {(1, 1)}


def test_too_large_images_are_unreadable(embedder, images, tmp_path, monkeypatch):
    images[0].save(tmp_path / "大图.png")  # 160 x 120 pixels
    monkeypatch.setattr(embedder, "max_pixels", 160 * 120 - 1)
    with pytest.raises(UnreadableImageError, match=r"images\[0\]: .*大图\.png: .*more than max_pixels=19199"):
        embedder.encode_images(tmp_path / "大图.png")
    monkeypatch.setattr(embedder, "max_pixels", 160 * 120)
    assert embedder.encode_images(tmp_path / "大图.png").shape == (embedder.embedding_size,)


def test_heatmap_is_in_upright_coordinates(embedder, images, tmp_path):
    path, exif = tmp_path / "rotated.jpg", Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown rotated by 90 degrees
    images[0].save(path, exif=exif, quality=95)
    assert embedder.heatmap(path, "猫").shape == (160, 120)
    upright = np.rot90(np.asarray(Image.open(path)), -1)
    np.testing.assert_allclose(embedder.heatmap(path, "猫"), embedder.heatmap(upright, "猫"), atol=1e-5)


# Loading ----------------------------------------------------------------------------------------------------------


def test_half_precision_checkpoints_run_in_float32_on_the_cpu(saved_folder, embedder, images, tmp_path):
    model, processor = FGClip2Model.from_pretrained(saved_folder), FGClip2Processor.from_pretrained(saved_folder)
    model.half().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    upcast = FGClip2Embedder.from_pretrained(tmp_path, device="cpu")
    assert upcast.model.dtype == torch.float32
    np.testing.assert_allclose(upcast.encode_images(images), embedder.encode_images(images), atol=5e-3)
    narrow = FGClip2Embedder.from_pretrained(tmp_path, device="cpu", dtype="bfloat16")
    assert narrow.model.dtype == torch.bfloat16
    assert narrow.encode_images(images).dtype == np.float32
    assert narrow.fingerprint == upcast.fingerprint
    assert narrow.fingerprint != embedder.fingerprint
    assert narrow.logit_scale == upcast.logit_scale


def test_checkpoints_of_other_models_are_refused(saved_folder, tmp_path):
    model = FGClip2Model.from_pretrained(saved_folder)
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith("boxtext_head")}
    model.save_pretrained(tmp_path, state_dict=weights)
    FGClip2Processor.from_pretrained(saved_folder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks 2 weights, e\.g\. boxtext_head\.bias"):
        FGClip2Embedder.from_pretrained(tmp_path)


def test_a_foreign_vocabulary_is_refused(embedder):
    model = FGClip2Model.from_pretrained(Path(__file__).parents[1] / "golden" / "model")
    with pytest.raises(ValueError, match=r"tokenizer has 806 entries.*vocab_size is 512"):
        FGClip2Embedder(model, embedder.processor)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype='int8'.*'bfloat16'"),
        ({"dtype": "sloat"}, "dtype='sloat'"),
        ({"device": "quantum"}, "device='quantum'"),
        ({"device": []}, "empty list"),
    ],
)
def test_unknown_devices_and_dtypes_are_named(saved_folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        FGClip2Embedder.from_pretrained(saved_folder, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device exists here")
def test_devices_that_are_not_there_are_named(saved_folder):
    with pytest.raises(ValueError, match="device='cuda' can't be used here"):
        FGClip2Embedder.from_pretrained(saved_folder, device="cuda")


def test_without_a_name_the_checkpoint_inside_the_package_is_loaded(saved_folder, embedder, tmp_path, monkeypatch):
    monkeypatch.setattr("fgclip2.assets.resources.files", lambda _: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"lacks .*checkpoint"):
        FGClip2Embedder.from_pretrained()
    shutil.copytree(saved_folder, tmp_path / "checkpoint")
    embedded = FGClip2Embedder.from_pretrained()
    assert (embedded.name, embedded.fingerprint) == ("embedded", embedder.fingerprint)


def test_an_embedder_can_be_sent_to_another_process(embedder, images):
    again = pickle.loads(pickle.dumps(embedder))
    np.testing.assert_allclose(again.encode_images(images[0]), embedder.encode_images(images[0]), atol=1e-6)


def test_missing_checkpoints_raise(tmp_path):
    with pytest.raises(OSError, match=r"can't load the checkpoint .*nothing"):
        FGClip2Embedder.from_pretrained(tmp_path / "nothing", local_files_only=True)


# Moving and writing -----------------------------------------------------------------------------------------------


def test_the_repr_is_one_short_line(saved_folder, embedder):
    described = repr(embedder)
    assert described == f"FGClip2Embedder('{saved_folder}', FG-CLIP 2, D={embedder.embedding_size}, cpu, float32)"


def test_to_casts_and_copies(saved_folder, embedder, images):
    moved = FGClip2Embedder.from_pretrained(saved_folder, device="cpu")
    assert moved.to(dtype="bfloat16") is moved
    assert (moved.dtype, moved.device) == (torch.bfloat16, torch.device("cpu"))
    assert moved.to(["cpu", "cpu"]).dtype == torch.bfloat16
    assert len(moved.replicas) == 2
    assert "cpu, cpu, bfloat16" in repr(moved)
    np.testing.assert_allclose(moved.encode_images(images), embedder.encode_images(images), atol=5e-2)
    with pytest.raises(ValueError, match="device='quantum'"):
        moved.to("quantum")


def test_the_processor_may_be_used_beside_the_embedder(embedder):
    """Tokenizers of transformers keep the padding of the last call, which the other thread may have made."""
    vectors, lengths = [], []
    expected = embedder.encode_texts(TEXTS[:2], walk_type="short")
    threads = [
        threading.Thread(target=lambda: vectors.extend(embedder.encode_texts(TEXTS[:2], "short") for _ in range(40))),
        threading.Thread(
            target=lambda: lengths.extend(
                embedder.processor(text=TEXTS[:2], walk_type="long")["input_ids"].shape[1] for _ in range(200)
            )
        ),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.array(vectors), np.broadcast_to(expected, (40, *expected.shape)))
    assert lengths == [196] * 200


def test_what_is_written_loads_again_with_equal_vectors(embedder, images, tmp_path):
    folder = embedder.save_pretrained(tmp_path / "部署")
    again = FGClip2Embedder.from_pretrained(folder, device="cpu")
    assert again.fingerprint == embedder.fingerprint
    np.testing.assert_array_equal(again.encode_images(images), embedder.encode_images(images))
    np.testing.assert_array_equal(again.encode_texts(TEXTS), embedder.encode_texts(TEXTS))
    with pytest.raises(ValueError, match="not an empty folder"):
        embedder.save_pretrained(folder)


def test_the_old_path_has_every_name():
    code = (
        "from fgclip2.embedder import FGClip2Embedder, Skipped, default_device, resolve_devices, resolve_dtype, "
        "model_fingerprint, unit_vectors, fill_templates, average_templates, REGION_LOGIT_SCALE; "
        "import fgclip2; assert FGClip2Embedder is fgclip2.FGClip2Embedder; print(REGION_LOGIT_SCALE)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "100.0", done.stderr
