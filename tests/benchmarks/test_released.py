"""Texts and names with their case, where the released scripts keep it."""

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from fgclip2 import FGClip2Embedder
from fgclip2.benchmarks.catalogue import find_benchmark
from fgclip2.benchmarks.encoding import Encoder
from fgclip2.benchmarks.labels import label_vectors
from fgclip2.benchmarks.models import PairEmbedder
from fgclip2.benchmarks.released import keep_case

from ..checkpoints import official_folder, saved_folder  # noqa: F401

TEXTS = ["一只猫 and a dog", "A BLACK Cat", "白色 iPhone 手机"]


@pytest.fixture(scope="module")
def embedder(saved_folder) -> FGClip2Embedder:  # noqa: F811
    return FGClip2Embedder.from_pretrained(saved_folder, device="cpu")


def test_ids_are_those_of_the_official_file_as_it_is(embedder, official_folder):  # noqa: F811
    raw = Tokenizer.from_file(str(official_folder / "tokenizer.json"))
    kept, lower = keep_case(embedder).processor.tokenizer, embedder.processor.tokenizer
    for walk_type, length in (("short", 64), ("long", 196), ("box", 64)):
        for text in TEXTS:
            ids = [token for token in raw.encode(text, add_special_tokens=False).ids] + [kept.eos_token_id]
            expected = ids + [kept.pad_token_id] * (length - len(ids))
            assert kept([text], walk_type=walk_type)["input_ids"] == [expected]
    assert kept(TEXTS[:1])["input_ids"] == lower(TEXTS[:1])["input_ids"]
    assert kept(TEXTS[1:])["input_ids"] != lower(TEXTS[1:])["input_ids"]


def test_only_texts_with_capitals_change_and_the_model_itself_does_not(embedder):
    before = embedder.encode_texts(TEXTS)
    kept = keep_case(embedder).encode_texts(TEXTS)
    np.testing.assert_allclose(kept[0], before[0], atol=1e-6)
    assert np.abs(kept[1:] - before[1:]).max(axis=1).min() > 1e-4
    np.testing.assert_array_equal(embedder.encode_texts(TEXTS), before)


def test_the_cache_tells_them_apart(embedder, tmp_path):
    encoder = Encoder(embedder, tmp_path, show_progress_bar=False)
    lower, kept = encoder.texts(TEXTS, "long_caption"), encoder.texts(TEXTS, "long_caption", lower_case=False)
    assert not np.allclose(lower, kept)
    np.testing.assert_array_equal(encoder.texts(TEXTS, "long_caption"), lower)


def test_other_models_stay_as_they_are():
    model = PairEmbedder(lambda images, _: [], lambda texts: [], "mine")
    assert keep_case(model) is model


def test_names_of_categories_keep_their_case_in_boxclass_cn(embedder):
    """As the official script reads them, in both presets; other names are lower-cased, as in training."""
    names, encoder = ["T恤", "帽子"], Encoder(embedder, show_progress_bar=False)
    kept, lower = (model.encode_texts(names, "box") for model in (keep_case(embedder), embedder))
    assert np.abs(kept[0] - lower[0]).max() > 1e-4
    for preset in ("paper", "released"):
        vectors = label_vectors(encoder, names, find_benchmark("boxclass-cn").settings(preset), "zh")
        np.testing.assert_allclose(vectors, kept, atol=1e-6)
    coco = replace(find_benchmark("coco-boxes").settings("released"), templates="none")
    np.testing.assert_allclose(label_vectors(encoder, names, coco, "zh"), lower, atol=1e-6)


def test_spellings_that_a_model_reads_alike_have_one_vector(embedder):
    """So that they tie to the bit, whatever batch they would be in."""
    encoder = Encoder(embedder, show_progress_bar=False)
    first, other, third = encoder.texts(["一只 CAT", "a dog", "一只 cat"], "caption")
    np.testing.assert_array_equal(first, third)
    assert np.abs(first - other).max() > 1e-3
    kept = encoder.texts(["一只 CAT", "一只 cat"], "caption", lower_case=False)
    assert np.abs(kept[0] - kept[1]).max() > 1e-4
