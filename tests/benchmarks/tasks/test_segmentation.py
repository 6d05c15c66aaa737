"""Segmentation by names of classes: areas by hand, maps that are not kept, masks that can't be used."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fgclip2 import FGClip2Embedder
from fgclip2.benchmarks import encoding
from fgclip2.benchmarks.catalogue import find_benchmark
from fgclip2.benchmarks.checking import check
from fgclip2.benchmarks.encoding import Encoder
from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.models import PairEmbedder
from fgclip2.benchmarks.runner import run
from fgclip2.benchmarks.tasks import SegmentationData, SegmentationSettings, as_dict, change, segmentation
from fgclip2.benchmarks.tasks.segmentation import predict
from fgclip2.embedding import Skipped, unit_vectors

from ...data.samples import write_json
from ...embedding.test_embedder import draw
from ...ranks import run_on_ranks
from .colors import COLORS, mean_colors, named_colors

NAMES = {"en": ["red", "green", "blue"], "zh": ["红", "绿", "蓝"]}
PLAIN = SegmentationSettings(templates="none")


class ColorMaps(PairEmbedder):
    """Dense features are the colours of every eighth pixel; the last image comes first, as it may."""

    def __init__(self):
        super().__init__(mean_colors, named_colors, "colours")

    def stream_heatmaps(self, contents, vectors, max_num_patches, show_progress_bar, on_error):
        for index in reversed(range(len(contents))):
            try:
                image = encoding.load_input(index, contents[index])
            except ValueError as error:
                yield index, Skipped(index, str(error))
                continue
            pixels = torch.from_numpy(np.asarray(image)[4::8, 4::8].astype(np.float32))  # (height, width, 3)
            grid = unit_vectors(pixels.flatten(0, 1)).reshape(*pixels.shape)
            yield index, np.moveaxis(grid @ vectors.T, -1, 0)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(ColorMaps(), show_progress_bar=False)


@pytest.fixture
def picture(tmp_path):
    """Make an image of 32 x 16 pixels, of a left and a right half."""

    def make(name: str, left: str, right: str) -> ImageFile:
        image = Image.new("RGB", (32, 16), COLORS[left])
        image.paste(COLORS[right], (16, 0, 32, 16))
        path = tmp_path / "images" / name
        path.parent.mkdir(exist_ok=True)
        image.save(path)
        return ImageFile(path)

    return make


@pytest.fixture
def mask(tmp_path):
    """Make a mask of bands eight pixels wide."""

    def make(name: str, *values: int) -> ImageFile:
        path = tmp_path / "masks" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.tile(np.repeat(np.array(values, dtype=np.uint8), 8), (16, 1))).save(path)
        return ImageFile(path)

    return make


@pytest.mark.parametrize("language", ["en", "zh"])
def test_areas_by_hand(encoder, picture, mask, language):
    images = [picture("a.png", "red", "green"), picture("b.png", "blue", "blue")]
    masks = [mask("a.png", 0, 0, 1, 255), mask("b.png", 2, 2, 1, 0)]
    scores = segmentation.evaluate(SegmentationData(images, masks, NAMES), encoder, PLAIN, language)
    # Bands: red 2 of 3 (one is in b), green 1 of 2, blue 2 of 4.
    assert scores.metrics["miou"].value == pytest.approx((2 / 3 + 1 / 2 + 2 / 4) / 3)
    assert scores.metrics["miou"].count == 2
    # Of the influence of a on red and green, of b on red and green (as much less) and blue, which is in b alone.
    value = scores.metrics["miou"].value
    a = (2 - 2 / 3 * 2) / 3 * 2**0.5 / 3 + (1 - 1 / 2) / 2 * 2**0.5 / 3
    spread = 2 * a - (2 - value * 4) / 4 / 3
    assert scores.metrics["miou"].interval() == pytest.approx((value - spread, 1))  # value + spread is above
    assert scores.per_item["pixel_accuracy"].tolist() == [1, 0.5]
    everything = SegmentationData(images, [mask("a.png", 0, 0, 1, 1), masks[1]], NAMES, ignored=None)
    got = segmentation.evaluate(everything, encoder, PLAIN, language)
    assert got.metrics["miou"].value == pytest.approx((2 / 3 + 2 / 3 + 2 / 4) / 3)


def test_below_the_threshold_is_background(encoder, picture, mask):
    names = {"zh": ["蓝", "红"]}  # the first serves as background
    data = SegmentationData([picture("a.png", "黄", "红")], [mask("a.png", 0, 0, 1, 1)], names)
    # Yellow has a cosine of 0.707 with red.
    for threshold, right in (("-1", 0.5), ("0.7", 0.5), ("0.8", 1)):
        scores = segmentation.evaluate(data, encoder, change(PLAIN, {"background_threshold": threshold}), "zh")
        got = scores.per_item["pixel_accuracy"][0]
        assert got == pytest.approx(right, abs=0.1)  # the threshold is crossed somewhere between two patches


def test_many_classes_are_compared_some_at_a_time():
    cosines = torch.randn(45, 5, 7, generator=torch.Generator().manual_seed(0))
    for size in ((60, 50), (3, 4)):
        whole = F.interpolate(cosines[None], size, mode="bilinear", antialias=True)[0]
        np.testing.assert_array_equal(predict(cosines.numpy(), size), whole.argmax(0))
        highest = whole.max(0).values
        expected = torch.where(highest < 1.5, 0, whole.argmax(0))
        np.testing.assert_array_equal(predict(cosines.numpy(), size, 1.5), expected)
    equal = np.ones((40, 2, 2), np.float32)
    assert predict(equal, (2, 2)).tolist() == [[0, 0], [0, 0]]


def test_a_folder_is_checked_and_measured(picture, mask, tmp_path):
    for name, masks in (("a.png", (0, 0, 1, 1)), ("好.png", (0, 0, 0, 0)), ("wrong.png", (0, 0, 9, 0))):
        picture(name, "red", "green")
        mask(name, *masks)
    picture("small.png", "red", "red")
    mask("small.png", 0)
    mask("broken.png", 0, 0, 0, 0)
    (tmp_path / "images" / "broken.png").write_bytes(b"broken")
    write_json(tmp_path / "classes.json", NAMES)
    benchmark = find_benchmark("segmentation")
    found = check(benchmark, tmp_path)
    reasons = {each.source.rpartition("/")[2]: each.reason for each in found.problems}
    assert found.counts["images"] == (2, None)
    assert "has the value 9; values must be 0 to 2, or 255" in reasons["wrong.png"]
    assert "has 8 x 16 pixels, but " in reasons["small.png"]
    assert "broken.png" in reasons
    options = {"changes": {"templates": "none"}, "with_items": True, "show_progress_bar": False}
    result = run(benchmark, tmp_path, ColorMaps(), language="zh", **options)
    assert result["metrics"]["miou"]["value"] == pytest.approx((4 / 6 + 2 / 4) / 2)  # bands of red, of green
    assert result["per_item"]["pixel_accuracy"] == [1, 0.5]
    assert result["counts"]["problems"] == 3


@pytest.fixture(scope="module")
def embedder() -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(device="cpu")


def drawn(folder) -> SegmentationData:
    """Five images with masks of stripes; the fourth image is broken."""
    images, masks = [], []
    for index in range(5):
        size = (64, 48) if index % 2 else (40, 56)
        draw(*size, index).save(folder / f"{index}.png")
        values = np.arange(size[0] * size[1]).reshape(size[1], size[0]) // 100 % 3
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{index}-mask.png")
        images.append(ImageFile(folder / f"{index}.png"))
        masks.append(ImageFile(folder / f"{index}-mask.png"))
    (folder / "3.png").write_bytes(b"broken")
    return SegmentationData(images, masks, NAMES)


SMALL = change(PLAIN, {"max_num_patches": "64"})


def test_the_embedded_checkpoint_sees_what_its_heat_maps_show(embedder, tmp_path):
    data = drawn(tmp_path)
    scores = segmentation.evaluate(data, Encoder(embedder, show_progress_bar=False), SMALL, "zh")
    expected = []
    for index in (0, 1, 2, 4):
        maps = embedder.heatmap(tmp_path / f"{index}.png", NAMES["zh"], max_num_patches=64)
        truth = np.asarray(Image.open(tmp_path / f"{index}-mask.png"))
        expected.append((maps.argmax(0) == truth).mean())
    assert scores.per_item["pixel_accuracy"][[0, 1, 2, 4]] == pytest.approx(expected, abs=0.002)
    assert np.isnan(scores.per_item["pixel_accuracy"][3])
    assert [each.source for each in scores.left_out] == [str(data.images[3])]


def test_streamed_heat_maps_are_those_of_texts(embedder, tmp_path):
    data = drawn(tmp_path)
    paths = [image.path for image in data.images]
    vectors = embedder.encode_texts(["黑猫", "a dog"], "box")
    streamed = dict(embedder.stream_heatmaps(paths, vectors, 64, on_error="skip"))
    assert isinstance(streamed[3], Skipped)
    expected = embedder.heatmap(paths[0], ["黑猫", "a dog"], resize=False, max_num_patches=64)
    np.testing.assert_allclose(streamed[0], expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"vectors must be \(M, 192\), got \(2, 3\)"):
        embedder.stream_heatmaps(paths, np.zeros((2, 3), np.float32))


def test_heat_maps_within_a_training_runs_autocast(embedder, tmp_path):
    data = drawn(tmp_path)
    vectors = embedder.encode_texts(["黑猫", "a dog"], "box")
    paths = [data.images[0].path]
    expected = dict(embedder.stream_heatmaps(paths, vectors, 64))[0]
    with torch.autocast("cpu", torch.bfloat16):
        ours = dict(embedder.stream_heatmaps(paths, vectors, 64))[0]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=0.05)


def test_areas_are_kept_and_maps_are_not(embedder, tmp_path, monkeypatch):
    data, cache = drawn(tmp_path), tmp_path / "cache"
    encoder = Encoder(embedder, cache, show_progress_bar=False)
    first = segmentation.evaluate(data, encoder, SMALL, "zh")
    assert max(path.stat().st_size for path in cache.rglob("*.safetensors")) < 10_000
    calls = []
    stream = FGClip2Embedder.stream_heatmaps
    monkeypatch.setattr(
        FGClip2Embedder, "stream_heatmaps", lambda self, *a, **k: calls.append(a) or stream(self, *a, **k)
    )
    second = segmentation.evaluate(data, encoder, SMALL, "zh")
    assert calls == []
    assert second.metrics == first.metrics
    assert second.metrics["miou"].interval() == first.metrics["miou"].interval()
    segmentation.evaluate(data, encoder, change(SMALL, {"background_threshold": "0.9"}), "zh")
    segmentation.evaluate(data, encoder, SMALL, "en")
    Image.open(data.masks[0].path).transpose(Image.Transpose.ROTATE_180).save(data.masks[0].path)
    segmentation.evaluate(data, encoder, SMALL, "zh")
    assert len(calls) == 3


def areas_on_a_rank(folder):
    encoding.BLOCK_SIZE = 3
    images = [ImageFile(folder / f"{index}.png") for index in range(2)]
    masks = [ImageFile(folder / f"{index}-mask.png") for index in range(2)]
    encoder = Encoder(ColorMaps(), show_progress_bar=False)
    scores = segmentation.evaluate(SegmentationData(images, masks, NAMES), encoder, PLAIN, "zh")
    return scores.metrics["miou"].value


@pytest.mark.slow
def test_a_process_without_a_block_has_the_same_result(tmp_path):
    drawn(tmp_path)
    alone = areas_on_a_rank(tmp_path)
    assert run_on_ranks(areas_on_a_rank, 2, tmp_path) == [alone, alone]


def test_mistakes_are_named(encoder, picture, mask, tmp_path):
    image, good = picture("a.png", "red", "red"), mask("a.png", 0, 0, 0, 0)

    def evaluate(images=(image,), masks=(good,), encoder=encoder):
        segmentation.evaluate(SegmentationData(list(images), list(masks), NAMES), encoder, PLAIN, "zh")

    with pytest.raises(ValueError, match="mine has no dense features, for which a model needs stream_heatmaps"):
        evaluate(encoder=Encoder(PairEmbedder(mean_colors, named_colors, "mine"), show_progress_bar=False))
    with pytest.raises(ValueError, match="no image can be used; 1 can't be read"):
        evaluate(images=[ImageFile(tmp_path / "无.png")])
    with pytest.raises(ValueError, match="every pixel of the masks is 255, which does not count"):
        evaluate(masks=[mask("b.png", 255, 255, 255, 255)])
    with pytest.raises(ValueError, match=r"c\.png: the mask has the value 7; values must be 0 to 2, or 255"):
        evaluate(masks=[mask("c.png", 0, 7, 0, 0)])
    with pytest.raises(ValueError, match=r"无\.png"):
        evaluate(masks=[ImageFile(tmp_path / "无.png")])


def test_settings():
    assert as_dict(PLAIN)["walk_type"] == "box"
    with pytest.raises(ValueError, match=r"background_threshold must be a number from -1 to 1, got 2\.0"):
        change(PLAIN, {"background_threshold": "2"})
    with pytest.raises(ValueError, match="background_threshold must be a number from -1 to 1, got 'off'"):
        change(PLAIN, {"background_threshold": "off"})
