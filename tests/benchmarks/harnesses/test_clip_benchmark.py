"""CLIP_benchmark: packed images and texts give the embedder's vectors, its evaluators the package's numbers."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from fgclip2 import FGClip2Embedder, metrics
from fgclip2.assets import embedded_checkpoint
from fgclip2.benchmarks.harnesses.clip_benchmark import ClipBenchmarkModel, load_clip, pack_image, unpack_images
from fgclip2.embedding import average_templates, fill_templates

from .packages import import_or_skip
from .pictures import CLASSES, NAMES, TEMPLATES, captions, pictures

TEXTS = [text for texts in captions() for text in texts]
OWNERS = torch.arange(len(CLASSES)).repeat_interleave(2)


@pytest.fixture(scope="module")
def embedder() -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def model(embedder) -> ClipBenchmarkModel:
    return ClipBenchmarkModel(embedder, 64)


@pytest.fixture(scope="module")
def vectors(embedder) -> torch.Tensor:
    return torch.from_numpy(embedder.encode_images(pictures(), 64))


@pytest.mark.parametrize(("budget", "rows"), [("auto", 1024), (None, 36), (64, 64)])  # 36: the checkpoint's own
def test_packed_images_of_many_sizes_give_the_embedders_vectors(embedder, budget, rows):
    model = ClipBenchmarkModel(embedder, budget).eval()
    images = [*pictures()[:4], pictures()[0].resize((640, 360)).convert("L")]
    packed = default_collate([model.transform(image) for image in images])
    assert packed.shape == (5, 1, 1 + rows, 768)
    with torch.autocast("cpu"):  # `amp` of the evaluators
        encoded = model.encode_image(packed)
    assert encoded.dtype == torch.float32
    np.testing.assert_allclose(encoded, embedder.encode_images(images, budget), atol=1e-5)
    np.testing.assert_allclose(encoded.norm(dim=1), 1, atol=1e-6)


def test_unpacking_gives_the_processors_own_values(embedder):
    processor = embedder.processor.image_processor
    expected = processor(pictures()[:3], max_num_patches=64, return_tensors="pt")
    unpacked = unpack_images(torch.stack([pack_image(image, embedder.processor, 64) for image in pictures()[:3]]))
    longest = int(expected["pixel_attention_mask"].sum(1).max())
    assert unpacked["pixel_values"].equal(expected["pixel_values"][:, :longest])
    assert unpacked["pixel_attention_mask"].equal(expected["pixel_attention_mask"][:, :longest])
    assert unpacked["spatial_shapes"].equal(expected["spatial_shapes"])


def test_texts_go_through_the_head_of_their_own_length(model, embedder):
    tokens = model.tokenizer(TEXTS).to("cpu")
    with torch.autocast("cpu"):
        encoded = model.encode_text(tokens)
    np.testing.assert_allclose(encoded, embedder.encode_texts(TEXTS), atol=1e-6)
    assert not np.allclose(encoded, embedder.encode_texts(TEXTS, "short"), atol=1e-3)
    np.testing.assert_allclose(
        model.encode_text(model.tokenizer("一只猫")), embedder.encode_texts(["一只猫"]), atol=1e-6
    )


def test_workers_of_a_data_loader_get_the_transform(model):
    image = pictures()[0]
    assert pickle.loads(pickle.dumps(model.transform))(image).equal(model.transform(image))


def test_the_loader_has_the_signature_of_theirs(embedder):
    model, transform, tokenizer = load_clip(
        model_name=str(embedded_checkpoint()), pretrained="main", cache_dir=None, device="cpu"
    )
    assert model.embedder.fingerprint == embedder.fingerprint
    assert transform(pictures()[0]).equal(model.transform(pictures()[0]))
    assert tokenizer(["猫", "cat"]) == ["猫", "cat"]


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (
            torch.zeros(2, 3, 32, 32),
            r"images has shape \(2, 3, 32, 32\); it must be what the model's own transform",
        ),
        (torch.zeros(1, 1, 5, 768), r"images have grids \[\[0, 0\]\]"),
        (torch.full((1, 1, 5, 768), 3.0), r"images have grids \[\[3, 3\]\]"),
    ],
)
def test_images_of_another_transform_are_refused(model, images, match):
    with pytest.raises(ValueError, match=match):
        model.encode_image(images)


class Pictures(torch.utils.data.Dataset):
    """As the data sets of CLIP_benchmark: (transformed image, target), and `classes`."""

    classes = NAMES

    def __init__(self, transform, targets):
        self.items = list(zip(map(transform, pictures()), targets, strict=True))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def stack_and_list(batch):
    """As theirs for captions."""
    images, texts = zip(*batch, strict=True)
    return default_collate(images), texts


def test_their_classification_gives_our_numbers(model, embedder, vectors):
    # clip-benchmark 1.6.2 itself fails beside numpy 2.4, which makes no number of an array of one element.
    theirs = import_or_skip("clip_benchmark.metrics.zeroshot_classification")
    loader = DataLoader(Pictures(model.transform, CLASSES), batch_size=5)
    result = theirs.evaluate(model, loader, model.tokenizer, NAMES, TEMPLATES, "cpu", amp=False)
    prompts = fill_templates(NAMES, [template.replace("{c}", "{}") for template in TEMPLATES])
    labels = torch.from_numpy(average_templates(embedder.encode_texts(prompts), len(NAMES)))
    ranks = metrics.retrieval_ranks(vectors, torch.tensor(CLASSES), labels, torch.arange(len(NAMES)))
    ours = metrics.topk_accuracy(ranks, CLASSES)
    assert 1 / len(NAMES) < ours[1] < 1
    assert (result["acc1"], result["acc5"]) == pytest.approx((ours[1], ours[5]))
    assert result["mean_per_class_recall"] == pytest.approx(metrics.topk_accuracy(ranks, CLASSES, [1], "macro")[1])


@pytest.mark.parametrize("amp", [False, True])
def test_their_retrieval_gives_our_numbers(model, embedder, vectors, amp):
    theirs = import_or_skip("clip_benchmark.metrics.zeroshot_retrieval")

    loader = DataLoader(Pictures(model.transform, captions()), batch_size=5, collate_fn=stack_and_list)
    result = theirs.evaluate(model, loader, model.tokenizer, "cpu", amp=amp, recall_k_list=[1, 5])
    texts = torch.from_numpy(embedder.encode_texts(TEXTS))
    by_text = metrics.recall_at_k(metrics.retrieval_ranks(texts, OWNERS, vectors, torch.arange(len(vectors))), [1, 5])
    by_image = metrics.recall_at_k(metrics.retrieval_ranks(vectors, torch.arange(len(vectors)), texts, OWNERS), [1, 5])
    assert 0 < by_text[1] < by_text[5] < 1
    for k in (1, 5):
        assert result[f"image_retrieval_recall@{k}"] == pytest.approx(by_text[k])
        assert result[f"text_retrieval_recall@{k}"] == pytest.approx(by_image[k])


def test_their_caption_selection_gives_our_numbers(model, embedder, vectors):
    theirs = import_or_skip("clip_benchmark.metrics.image_caption_selection")
    packed = torch.stack([model.transform(image) for image in pictures()])
    texts = [f"一张{NAMES[index]}的图, a picture of {NAMES[index]} color" for index in CLASSES]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))  # pairs of two colours, mostly
    pairs = [(packed[two], [texts[index] for index in two]) for two in order.split(2)]
    result = theirs.evaluate(model, DataLoader(pairs, batch_size=3, collate_fn=stack_and_list), model.tokenizer, "cpu")
    scores = vectors @ torch.from_numpy(embedder.encode_texts(texts)).T
    expected = [metrics.hard_negative_wins([scores[i, [i, j]], scores[j, [j, i]]]).all() for i, j in order.split(2)]
    different = [CLASSES[i] != CLASSES[j] for i, j in order.split(2)]
    assert 0 < np.mean(expected) < 1
    assert all(different)
    assert result["text_acc"] == pytest.approx(np.mean(expected))
