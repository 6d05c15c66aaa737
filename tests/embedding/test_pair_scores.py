"""Scores of pairs by a model's ranking stage: those of the released R2D2 code, whatever the batches are."""

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip2 import Embedder, R2D2Model
from fgclip2.errors import UnreadableImageError
from fgclip2.modeling.interface import PairScorer
from tests import golden_of_r2d2
from tests.embedding.test_families import ColourModel, ColourProcessor
from tests.golden_of_r2d2 import EMBEDDINGS

OUTPUTS, CAPTIONS = golden_of_r2d2.tensors("outputs"), golden_of_r2d2.results()["captions"]
NUM_IMAGES, NUM_TEXTS = OUTPUTS["cosine"].shape
PROBABILITIES, COSINES = (OUTPUTS[name].numpy() for name in ("matching_probability", "cosine"))
IMAGES = [golden_of_r2d2.image(number) for number in range(NUM_IMAGES)]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return golden_of_r2d2.embedder()


def test_texts_are_tokenized_as_the_golden_ones(embedder):
    inputs = golden_of_r2d2.tensors("inputs")
    tokens = embedder.processor.tokenize(CAPTIONS, "caption")
    length = tokens["input_ids"].shape[1]
    assert torch.equal(tokens["input_ids"], inputs["input_ids"][:, :length])
    assert torch.equal(tokens["attention_mask"], inputs["attention_mask"][:, :length])


@pytest.mark.parametrize("batch_size", [3, 32])
def test_scores_are_the_released_ones_for_any_batch(embedder, batch_size):
    texts = [[CAPTIONS[(image + place) % NUM_TEXTS] for place in range(image)] for image in range(NUM_IMAGES)]
    for score, expected in (("match", PROBABILITIES), ("rank", PROBABILITIES + COSINES)):
        found = dict(embedder.stream_pair_scores(IMAGES, texts, score=score, batch_size=batch_size))
        assert sorted(found) == list(range(NUM_IMAGES))
        for image, (scores, vector) in found.items():
            row = [expected[image, (image + place) % NUM_TEXTS] for place in range(image)]
            np.testing.assert_allclose(scores, np.array(row, np.float32), **EMBEDDINGS)
            np.testing.assert_allclose(vector, OUTPUTS["image_embeds"][image], **EMBEDDINGS)


def test_each_image_runs_once_and_memory_has_a_bound(embedder, monkeypatch):
    """However many images and pairs there are, as many tokens are together as one batch has."""
    encoded, pairs = [], []
    encode, rank = embedder.model.get_image_features_and_tokens, embedder.model.rank_scores
    monkeypatch.setattr(embedder.model, "get_image_features", None)
    monkeypatch.setattr(
        embedder.model,
        "get_image_features_and_tokens",
        lambda **x: encoded.append(len(x["pixel_values"])) or encode(**x),
    )
    monkeypatch.setattr(embedder.model, "rank_scores", lambda *x: pairs.append([len(one) for one in x]) or rank(*x))
    for _ in embedder.stream_pair_scores(IMAGES, [CAPTIONS[:8]] * NUM_IMAGES, batch_size=5):
        pass
    assert (sum(encoded), max(encoded)) == (NUM_IMAGES, 5)
    assert sum(count for count, *_ in pairs) == NUM_IMAGES * 8
    assert max(max(counts) for counts in pairs) == 5


def test_hits_are_in_the_released_order(embedder, tmp_path):
    top_k = golden_of_r2d2.results()["top_k"]
    for text in (0, 7, 19):
        near = OUTPUTS["dual_order_t2i"][text].tolist()
        hits = embedder.rerank(CAPTIONS[text], [IMAGES[number] for number in near], by="model")
        assert [near[hit.index] for hit in hits] == OUTPUTS["order_t2i"][text, :top_k].tolist()
        for hit in hits:
            assert hit.score == pytest.approx(COSINES[near[hit.index], text], abs=2e-6)
            assert hit.reranked == pytest.approx(hit.score + PROBABILITIES[near[hit.index], text], abs=4e-6)
            assert hit.phrases == []
    (tmp_path / "坏.png").write_bytes(b"no image")
    candidates = [IMAGES[3], tmp_path / "坏.png"]
    hits, skipped = embedder.rerank(CAPTIONS[0], candidates, by="model", on_error="skip")
    assert ([hit.index for hit in hits], [one.index for one in skipped]) == ([0], [1])
    with pytest.raises(UnreadableImageError, match=r"images\[1\]: .*坏.png"):
        embedder.rerank(CAPTIONS[0], candidates, by="model")
    assert embedder.rerank(CAPTIONS[0], [], by="model") == []


class MaskedModel(ColourModel):
    """Scores by how much of a text's letters an image has, from patches of which the last ones are padding."""

    scores_pairs = True

    def get_image_tokens(self, pixel_values):
        tokens = pixel_values.mean((2, 3))[:, None].repeat(1, 3, 1)  # (B, 3, 3)
        for image, its_tokens in zip(pixel_values, tokens, strict=True):
            its_tokens[1 + int(image.mean() > 0.4) :] = 0  # one or two are no padding
        return tokens

    def get_image_features_and_tokens(self, pixel_values):
        return self.get_image_features(pixel_values), self.get_image_tokens(pixel_values)

    def get_text_tokens(self, input_ids):
        return self.get_role_features("caption", input_ids)[:, None]  # (B, 1, 3)

    def match_probability(self, image_tokens, text_tokens, attention_mask=None):
        assert attention_mask is None  # as this processor gives none
        return (image_tokens.sum(1) * text_tokens[:, 0]).sum(1)

    rank_scores = match_probability


def test_pairs_of_any_family_are_scored_with_the_padding_of_their_images():
    model = MaskedModel()
    assert isinstance(model, PairScorer)
    assert isinstance(golden_of_r2d2.model(), PairScorer)
    embedder = Embedder(model, ColourProcessor(), name="colours")
    images = [Image.new("RGB", (20, 30), color) for color in ("red", "white", "black", "yellow")]
    found = dict(embedder.stream_pair_scores(images, [["r", "gg"]] * 4))
    assert [found[image].scores.tolist() for image in range(4)] == [[1, 0], [2, 4], [0, 0], [2, 4]]


def test_values_that_are_not_finite_are_an_error(embedder, monkeypatch):
    monkeypatch.setattr(embedder.model, "rank_scores", lambda tokens, *_: torch.full((len(tokens),), torch.nan))
    with pytest.raises(RuntimeError, match=r"images\[0\]: the model gave values that are not finite"):
        embedder.rerank("红猫", IMAGES[:1], by="model")


def test_errors_say_what_is_wrong(embedder):
    with pytest.raises(ValueError, match="by must be 'phrases' or 'model', got 'words'"):
        embedder.rerank("红猫", IMAGES, by="words")
    with pytest.raises(ValueError, match="R2D2 has no dense features"):
        embedder.rerank("红猫", IMAGES)
    for wrong in ({"weight": 1.0}, {"split": str.split}):
        with pytest.raises(ValueError, match="split and weight are of phrases, which by='model' has none of"):
            embedder.rerank("红猫", IMAGES, by="model", **wrong)
    with pytest.raises(ValueError, match="query must be a text that is not blank"):
        embedder.rerank(" ", IMAGES, by="model")
    with pytest.raises(ValueError, match="score must be 'rank' or 'match', got 'cosine'"):
        embedder.stream_pair_scores(IMAGES[:1], [["红猫"]], score="cosine")
    with pytest.raises(ValueError, match="texts has 1 entries for 2 images: pass one list of texts for each"):
        embedder.stream_pair_scores(IMAGES[:2], [["红猫"]])
    for wrong, message in (
        (["a dog", "cat"], r"texts\[0\] must be a list of strings, got str 'a dog'"),
        ([["红猫"], None], r"texts\[1\] must be a list of strings, got NoneType None"),
        ([["红猫"], ["红", ["猫"]]], r"texts\[1\]\[1\] must be a string, got list"),
    ):
        with pytest.raises(ValueError, match=message):
            embedder.stream_pair_scores(IMAGES[:2], wrong)
    for count, message in ((1, "texts has 2 entries for 1 images"), (3, "texts has 2 entries for more images")):
        with pytest.raises(ValueError, match=f"{message}: pass one list of texts for each"):
            list(embedder.stream_pair_scores(iter(IMAGES[:count]), [["红猫"], ["红"]]))
    with pytest.raises(ValueError, match="compares whole images with captions: leave out role"):
        embedder.stream_pair_scores(IMAGES[:1], [["红猫"]], role="region_phrase")
    without = R2D2Model(golden_of_r2d2.config(cross_config={"num_hidden_layers": 0}))
    with pytest.raises(ValueError, match="R2D2 has no pair scores, as this checkpoint has no cross encoders"):
        Embedder(without, embedder.processor).rerank("红猫", IMAGES, by="model")
    with pytest.raises(ValueError, match="ColourModel has no pair scores, it compares vectors only"):
        Embedder(ColourModel(), ColourProcessor()).rerank("r", IMAGES, by="model")
