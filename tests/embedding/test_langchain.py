"""LangChainEmbeddings gives the embedder's vectors by the names that LangChain calls; tests/libraries has LangChain."""

import asyncio

import pytest
from PIL import Image

from fgclip2 import Embedder
from fgclip2.embedding.langchain import LangChainEmbeddings

TEXTS = ["a black cat", "一只黑猫趴在窗台上, a black cat on the windowsill. " * 4]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.from_pretrained(device="cpu")


@pytest.fixture
def embeddings(embedder) -> LangChainEmbeddings:
    return LangChainEmbeddings(embedder)


def test_texts_are_lists_of_floats(embeddings, embedder):
    vectors = embeddings.embed_documents(TEXTS)
    assert vectors == embedder.encode_texts(TEXTS).tolist()
    assert type(vectors[0][0]) is float
    assert embeddings.embed_documents([]) == []
    assert embeddings.embed_query(TEXTS[1]) == pytest.approx(vectors[1], abs=1e-6)


def test_asynchronous_methods_do_the_same(embeddings):
    async def both() -> tuple[list[list[float]], list[float]]:
        return await asyncio.gather(embeddings.aembed_documents(TEXTS), embeddings.aembed_query(TEXTS[0]))

    vectors, vector = asyncio.run(both())
    assert vectors == embeddings.embed_documents(TEXTS)
    assert vector == embeddings.embed_query(TEXTS[0])


def test_images_have_a_patch_budget(embeddings, embedder, tmp_path):
    path = tmp_path / "苹果.png"
    Image.linear_gradient("L").resize((160, 96)).save(path)
    assert embeddings.embed_image([str(path)]) == embedder.encode_images([path]).tolist()
    of_16_patches = LangChainEmbeddings(embedder, 16).embed_image([str(path)])
    assert of_16_patches == embedder.encode_images([path], 16).tolist()
    assert of_16_patches != embeddings.embed_image([str(path)])


def test_documents_of_a_subclass_may_be_images(embedder):
    class ImageEmbeddings(LangChainEmbeddings):
        embed_documents = LangChainEmbeddings.embed_image

    embeddings, picture = ImageEmbeddings(embedder), Image.linear_gradient("L")
    assert asyncio.run(embeddings.aembed_documents([picture])) == embedder.encode_images([picture]).tolist()
    assert embeddings.embed_query("cat") == embedder.encode_texts(["cat"])[0].tolist()


def test_one_input_is_no_list_and_a_list_is_no_query(embeddings):
    with pytest.raises(ValueError, match="texts must be a list of strings, got the string 'cat': use embed_query"):
        embeddings.embed_documents("cat")
    with pytest.raises(ValueError, match="uris must be a list of images, got a single str: put it into a list"):
        embeddings.embed_image("cat.png")
    with pytest.raises(ValueError, match=r"texts\[0\] must be a string"):
        embeddings.embed_query(["cat"])
