"""MTEB: its protocol gives the embedder's vectors, its evaluators the package's numbers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fgclip2 import FGClip2Embedder, metrics
from fgclip2.benchmarks.harnesses.mteb import MTEBModel
from fgclip2.benchmarks.models import PairEmbedder
from fgclip2.errors import UnreadableImageError
from fgclip2.hub import export_checkpoint

from .packages import import_or_skip
from .pictures import CLASSES, NAMES, captions, pictures

TEXTS = [text for texts in captions() for text in texts]
LABELS = [f"一张{name}的图, a picture of {name} color" for name in NAMES]
CONTEXT = {"task_metadata": None, "hf_split": "test", "hf_subset": "default", "batch_size": 5}


@pytest.fixture(scope="module")
def embedder() -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def model(embedder) -> MTEBModel:
    return MTEBModel(embedder)


class Loader(list):
    """Batches of five, as mteb's data loaders give them."""

    def __init__(self, **columns):
        count = len(next(iter(columns.values())))
        super().__init__(
            {name: values[start : start + 5] for name, values in columns.items()} for start in range(0, count, 5)
        )
        self.dataset = SimpleNamespace(features=dict.fromkeys(columns))


def test_what_is_encoded_are_the_embedders_vectors(model, embedder):
    images, texts = embedder.encode_images(pictures()), embedder.encode_texts(TEXTS)
    assert not np.allclose(texts, embedder.encode_texts(TEXTS, "short"), atol=1e-3)  # some take the head `long`
    np.testing.assert_allclose(model.encode(Loader(image=pictures()), **CONTEXT), images, atol=1e-6)
    np.testing.assert_allclose(model.encode(Loader(text=TEXTS), prompt_type="query", **CONTEXT), texts, atol=1e-6)
    both = model.encode(Loader(id=CLASSES, image=pictures(), text=TEXTS[: len(CLASSES)]), **CONTEXT)
    added = images + texts[: len(CLASSES)]
    np.testing.assert_allclose(both, added / np.linalg.norm(added, axis=1, keepdims=True), atol=1e-6)
    assert both.dtype == torch.float32
    np.testing.assert_allclose(both.norm(dim=1), 1, atol=1e-6)


def test_a_patch_budget_reaches_the_images(embedder):
    encoded = MTEBModel(embedder, 16).encode(Loader(image=pictures()), **CONTEXT)
    np.testing.assert_allclose(encoded, embedder.encode_images(pictures(), 16), atol=1e-6)
    assert not np.allclose(encoded, embedder.encode_images(pictures()), atol=1e-3)


def test_similarities_are_cosines_of_arrays_and_tensors(model):
    a, b = np.array([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    np.testing.assert_allclose(model.similarity(a, b), [[0.6, 0.8], [0.0, 1.0]], atol=1e-6)
    np.testing.assert_allclose(model.similarity(a[0], b[0]), [[0.6]], atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(a, b), [0.6, 1.0], atol=1e-6)


def test_any_model_of_the_benchmarks_will_do():
    def color(images, max_num_patches):
        return np.stack([np.asarray(image).reshape(-1, 3).mean(0) for image in images])

    def named(texts):
        return np.array([[255, 0, 0] if "红" in text or "red" in text else [0, 0, 255] for text in texts])

    model = MTEBModel(PairEmbedder(color, named, "mean colour"))
    scores = model.similarity(
        model.encode(Loader(image=[pictures()[0], pictures()[6]]), **CONTEXT),
        model.encode(Loader(text=["红色", "a blue picture"]), **CONTEXT),
    )
    assert scores.argmax(1).tolist() == [0, 1]


def test_bad_input_does_not_pass(model):
    with pytest.raises(ValueError, match=r"the data set has \['audio'\], but needs 'text', 'image' or both"):
        model.encode(Loader(audio=[1]), **CONTEXT)
    with pytest.raises(UnreadableImageError, match=r"images\[1\]"):
        model.encode(Loader(image=[pictures()[0], b"no image"]), **CONTEXT)
    with pytest.raises(ValueError, match="precision must be 'float32', got 'int8'"):
        model.encode(Loader(text=["猫"]), precision="int8", **CONTEXT)


# ---------------------------------------------------------------------------------------------------------------------
# With mteb
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def offline():
    import_or_skip("mteb")


def metadata(kind: str, score: str):
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name=f"Colors{kind}",
        description="Coloured pictures with Chinese and English texts.",
        type=kind,
        category="i2t",
        modalities=["image", "text"],
        main_score=score,
        dataset={"path": "in/memory", "revision": "1"},
        eval_splits=["test"],
        eval_langs=["eng-Latn", "zho-Hans"],
        reference=None,
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )


def score(model, task) -> dict:
    import mteb

    result = mteb.evaluate(model, task, cache=None, encode_kwargs={"batch_size": 5}, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


def ranks_of(embedder, texts, text_owner, images_first: bool):
    images = torch.from_numpy(embedder.encode_images(pictures()))
    owner, texts = torch.tensor(text_owner), torch.from_numpy(embedder.encode_texts(texts))
    image_owner = torch.tensor(CLASSES) if len(owner) == len(NAMES) else torch.arange(len(images))
    pairs = (images, image_owner), (texts, owner)
    (queries, query_owner), (candidates, candidate_owner) = pairs if images_first else pairs[::-1]
    return metrics.retrieval_ranks(queries, query_owner, candidates, candidate_owner)


@pytest.mark.usefixtures("offline")
def test_it_is_an_encoder_with_what_mteb_writes_down(model, embedder):
    from mteb.models import EncoderProtocol

    assert isinstance(model, EncoderProtocol)
    meta = model.mteb_model_meta
    assert (meta.name, meta.revision) == ("fgclip2/embedded", embedder.fingerprint)
    assert (meta.embed_dim, meta.max_tokens) == (embedder.embedding_size, 196)
    assert meta.languages == ["zho-Hans", "eng-Latn"]
    assert meta.n_parameters == sum(weight.numel() for weight in embedder.model.parameters())
    assert meta.to_dict()["modalities"] == ["image", "text"]
    assert MTEBModel(embedder, 64).mteb_model_meta.experiment_name != meta.experiment_name


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "expected"),
    [("owner/model", "owner/model"), ("mean colour", "fgclip2/mean colour"), ("/some/folder/模型", "fgclip2/模型")],
)
def test_names_have_an_owner(name, expected):
    meta = MTEBModel(PairEmbedder(lambda *_: [], lambda *_: [], name)).mteb_model_meta
    assert (meta.name, meta.revision) == (expected, "no_revision_available")


@pytest.mark.usefixtures("offline")
def test_their_own_wrapper_takes_an_exported_folder(embedder, tmp_path):
    from mteb.models import ModelMeta, SentenceTransformerEncoderWrapper

    folder = export_checkpoint(embedder.model, embedder.processor, tmp_path / "导出")
    # What mteb reads of a repository on the hub, to choose the wrapper and to know that there are images.
    names = ("config_sentence_transformers.json", "sentence_bert_config.json", "modules.json", "config.json")
    settings = [json.loads((folder / name).read_text(encoding="utf-8")) for name in names]
    loader, _, modalities = ModelMeta._resolve_loader("acme/exported", *settings)
    assert (loader, modalities) == (SentenceTransformerEncoderWrapper, ["image", "text"])

    wrapper = loader(str(folder), trust_remote_code=True, device="cpu")
    wrapper.mteb_model_meta = wrapper.mteb_model_meta.model_copy(update={"modalities": modalities})
    context = {**CONTEXT, "task_metadata": metadata("ZeroShotClassification", "accuracy")}
    images, texts = wrapper.encode(Loader(image=pictures()), **context), wrapper.encode(Loader(text=NAMES), **context)
    np.testing.assert_allclose(images, embedder.encode_images(pictures()), atol=1e-5)
    np.testing.assert_allclose(texts, embedder.encode_texts(NAMES), atol=1e-5)
    expected = embedder.similarity(embedder.encode_images(pictures()), embedder.encode_texts(NAMES))
    np.testing.assert_allclose(wrapper.similarity(images, texts), expected, atol=1e-5)


@pytest.mark.usefixtures("offline")
def test_their_zero_shot_classification_gives_our_numbers(model, embedder):
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

    class Task(AbsTaskZeroShotClassification):
        metadata = metadata("ZeroShotClassification", "accuracy")

        def load_data(self, **kwargs):
            self.dataset = DatasetDict(test=Dataset.from_dict({"image": pictures(), "label": CLASSES}))
            self.data_loaded = True

        def get_candidate_labels(self):
            return LABELS

    ours = metrics.topk_accuracy(ranks_of(embedder, LABELS, range(len(NAMES)), True), CLASSES)
    assert 1 / len(NAMES) < ours[1] < 1
    assert score(model, Task())["accuracy"] == pytest.approx(ours[1])


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("images_first", [True, False])
def test_their_retrieval_gives_our_numbers(model, embedder, images_first):
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    texts = [both[index % 2] for index, both in enumerate(captions())]  # Chinese and English in turn
    ids = [str(index) for index in range(len(texts))]
    columns = [{"id": ids, "image": pictures()}, {"id": ids, "text": texts}]
    queries, corpus = map(Dataset.from_dict, columns if images_first else columns[::-1])

    class Task(AbsTaskRetrieval):
        metadata = metadata("Any2AnyRetrieval", "hit_rate_at_5").model_copy(
            update={"category": "i2t" if images_first else "t2i"}
        )

        def load_data(self, **kwargs):
            relevant = {each: {each: 1} for each in ids}
            data = RetrievalSplitData(queries=queries, corpus=corpus, relevant_docs=relevant, top_ranked=None)
            self.dataset = {"default": {"test": data}}
            self.data_loaded = True

    scores = score(model, Task())
    ranks = ranks_of(embedder, texts, range(len(texts)), images_first)
    ours = metrics.recall_at_k(ranks)
    assert 0 < ours[1] < ours[5] < 1
    for k in (1, 5, 10):
        assert scores[f"recall_at_{k}"] == pytest.approx(ours[k], abs=1e-5)  # theirs have five digits
