"""The embedder with a made-up family: fixed squares, a softmax, captions only, and no class of this package."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BatchFeature

from fgclip2 import Embedder, FGClip2Embedder
from fgclip2.modeling.interface import DualEncoder, DualEncoderProcessor, RegionEncoder
from fgclip2.search import ImageIndex
from tests.checkpoints import official_folder, saved_folder

__all__ = ["official_folder", "saved_folder"]

SIDE, LENGTH = 8, 6


class ColourModel(torch.nn.Module):
    """Embeds an image by its mean colour, a text by how often it has the letters r, g and b."""

    score_function = "softmax"
    config = SimpleNamespace()
    embedding_size = 3

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(10.0))

    @property
    def device(self):
        return self.scale.device

    @property
    def dtype(self):
        return self.scale.dtype

    def get_score_scale_and_bias(self):
        return self.scale.item(), 0.0

    def get_image_features(self, pixel_values):
        return pixel_values.mean((2, 3))  # (B, 3, side, side) -> (B, 3)

    def get_role_features(self, role, input_ids):
        assert role == "caption"
        return torch.stack([(input_ids == ord(letter)).sum(1) for letter in "rgb"], 1).float()  # (B, 3)


class ColourProcessor:
    """Scales images to squares; a token is a letter."""

    text_roles = ("caption",)
    patch_budgets = None
    max_caption_tokens = LENGTH
    tokenizer = image_processor = None

    def text_length(self, role):
        return LENGTH

    def count_tokens(self, texts):
        return [len(text) for text in texts]

    def tokenize(self, texts, role):
        ids = [[ord(letter) for letter in text[:LENGTH].ljust(LENGTH)] for text in texts]
        return BatchFeature({"input_ids": torch.tensor(ids)})

    def prepare_image(self, image, max_num_patches=None):
        pixels = np.asarray(image.resize((SIDE, SIDE)), np.float32) / 255  # (side, side, 3)
        return {"pixel_values": pixels.transpose(2, 0, 1)}

    def collate_images(self, images):
        return BatchFeature({"pixel_values": torch.from_numpy(np.stack([image["pixel_values"] for image in images]))})

    def process_images(self, images, max_num_patches=None):
        return self.collate_images([self.prepare_image(image) for image in images])


@pytest.fixture
def embedder() -> Embedder:
    return Embedder(ColourModel(), ColourProcessor(), name="colours")


@pytest.fixture
def images() -> list[Image.Image]:
    return [Image.new("RGB", (30 + index, 20), color) for index, color in enumerate(["red", "lime", "blue"])]


def test_the_family_meets_the_protocols_without_naming_them():
    assert isinstance(ColourModel(), DualEncoder)
    assert not isinstance(ColourModel(), RegionEncoder)
    assert isinstance(ColourProcessor(), DualEncoderProcessor)


def test_images_and_texts_meet_in_one_space(embedder, images):
    np.testing.assert_allclose(embedder.encode_images(images), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(embedder.encode_texts(["r", "gg", "b"]), np.eye(3), atol=1e-6)
    assert embedder.encode_images(images[0]).shape == (3,)
    assert repr(embedder) == "Embedder('colours', ColourModel, D=3, cpu, float32)"


def test_values_that_are_not_finite_are_an_error(embedder, images, monkeypatch):
    monkeypatch.setattr(embedder.model, "get_image_features", lambda pixel_values: torch.full((3, 3), torch.inf))
    with pytest.raises(RuntimeError, match=r"images\[0\]: the model gave values that are not finite"):
        embedder.encode_images(images)
    monkeypatch.setattr(embedder.model, "get_role_features", lambda role, input_ids: torch.full((1, 3), torch.nan))
    with pytest.raises(RuntimeError, match=r"texts\[0\]: the model gave values that are not finite"):
        embedder.encode_texts("r")


def test_a_softmax_shares_one_among_the_labels(embedder, images):
    scores = embedder.classify(images, ["r", "g"])
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)
    high = np.exp(10) / (np.exp(10) + 1)
    np.testing.assert_allclose(scores, [[high, 1 - high], [1 - high, high], [0.5, 0.5]], atol=1e-6)


def test_long_captions_are_cut_where_there_is_no_head_for_them(embedder, caplog):
    np.testing.assert_array_equal(embedder.encode_texts("rrrrrrgggggg"), embedder.encode_texts("rrrrrr"))
    assert [record.getMessage() for record in caplog.records] == ["1 texts have more than 6 tokens and were cut"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda e, image: e.encode_regions(image, [[0, 0, 5, 5]]),
            "ColourModel has no regions, it embeds whole images",
        ),
        (lambda e, image: e.classify_regions(image, [[0, 0, 5, 5]], ["r"]), "ColourModel has no regions"),
        (lambda e, image: e.heatmap(image, "r"), "ColourModel has no dense features"),
        (lambda e, image: e.stream_heatmaps([image], np.eye(3)), "ColourModel has no dense features"),
        (
            lambda e, image: e.encode_images(image, "auto"),
            "ColourModel has no patch budgets.*leave out max_num_patches",
        ),
        (
            lambda e, image: e.encode_texts("r", role="region_phrase"),
            "role must be 'auto' or 'caption', got 'region_phr",
        ),
    ],
)
def test_errors_say_what_the_family_lacks(embedder, images, call, message):
    with pytest.raises(ValueError, match=message):
        call(embedder, images[0])


def test_folders_of_its_images_are_searched(embedder, images, tmp_path):
    for name, image in zip("rgb", images, strict=True):
        image.save(tmp_path / f"{name}.png")
    index = ImageIndex.build(tmp_path, embedder)
    assert [hit.path.stem for hit in index.search("g", embedder, top_k=1)] == ["g"]
    kind = {"backend": "torch", "precision": "float32", "images": "square"}
    assert index.settings == {"max_num_patches": None, **kind}


# Which family a folder has ------------------------------------------------------------------------------------------


def test_the_family_of_a_folder_is_found(saved_folder, images):
    neutral, own = Embedder.from_pretrained(saved_folder), FGClip2Embedder.from_pretrained(saved_folder)
    assert type(neutral) is Embedder
    np.testing.assert_array_equal(neutral.encode_images(images), own.encode_images(images))
    np.testing.assert_array_equal(
        neutral.encode_texts("猫", role="region_phrase"), own.encode_texts("猫", walk_type="box")
    )
    np.testing.assert_array_equal(own.encode_texts("猫", role="region_phrase"), own.encode_texts("猫", "box"))


@pytest.mark.parametrize("kind", [Embedder, FGClip2Embedder])
def test_a_folder_of_no_family_is_named_with_what_to_use(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    with pytest.raises(ValueError, match=r"model type 'siglip2', and this package has FG-CLIP 2 .*PairEmbedder"):
        kind.from_pretrained(tmp_path)


def test_a_folder_of_another_family_is_named(tmp_path, monkeypatch):
    from fgclip2.embedding import loading as module

    other = module.FAMILIES[0].__class__("Colours", "colours", SimpleNamespace, ColourModel, ColourProcessor)
    monkeypatch.setattr(module, "FAMILIES", (*module.FAMILIES, other))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "colours"}))
    with pytest.raises(ValueError, match=r"is a Colours checkpoint .*FGClip2Embedder can't run: use Embedder"):
        FGClip2Embedder.from_pretrained(tmp_path)
