"""LangChainEmbeddings: an embedder with the methods of LangChain's `Embeddings`, which needs no LangChain itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ..modeling.inputs import is_image
from .embedder import BaseEmbedder
from .inputs import ImageInput


class LangChainEmbeddings:
    """Embed texts and images by the methods that LangChain's vector stores and retrievers call.

    These are the methods of `langchain_core.embeddings.Embeddings` (langchain-core 1.8), and `embed_image` as
    LangChain's own class for OpenCLIP has it. `Embeddings` is no base class, so that LangChain need not be installed.
    Most of LangChain only calls the methods; for what asks by `isinstance`, say
    `Embeddings.register(LangChainEmbeddings)` once.

    Vectors are lists of floats, L2-normalised. Each text takes the head of captions or, if it is long, that of long
    captions, as [`BaseEmbedder.encode_texts`] chooses. All methods may be called from several threads.

    Args:
        embedder: Embeds; of this package, or `OnnxEmbedder` of fgclip2-onnx.
        max_num_patches: Patch budget of each image, see [`BaseEmbedder`]; `None`: the processor's setting.

    Example:
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> from fgclip2 import Embedder
        >>> from fgclip2.embedding.langchain import LangChainEmbeddings
        >>> store = InMemoryVectorStore(LangChainEmbeddings(Embedder.from_pretrained()))
        >>> store.add_texts(["a red apple", "一只狗"])
        >>> store.similarity_search("苹果", k=1)
    """

    def __init__(self, embedder: BaseEmbedder, max_num_patches: int | str | None = None):
        self.embedder, self.max_num_patches = embedder, max_num_patches

    def embed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """Embed texts: a list of D floats for each.

        Raises:
            ValueError: `texts` is a single string, or one of them is no string or has no UTF-8 form.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list of strings, got the string {texts!r}: use embed_query for one text")
        return self.embedder.encode_texts(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """Embed one text, by the same head as a document: D floats.

        Raises:
            ValueError: `text` is no string or has no UTF-8 form.
        """
        # Not by embed_documents, which a subclass may give another meaning: see docs/libraries/langchain.md.
        return self.embedder.encode_texts([text])[0].tolist()

    async def aembed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """Do what [`embed_documents`] does, in a thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Do what [`embed_query`] does, in a thread."""
        return await asyncio.to_thread(self.embed_query, text)

    def embed_image(self, uris: Iterable[ImageInput]) -> list[list[float]]:
        """Embed images: a list of D floats for each.

        Args:
            uris: Paths, as LangChain calls them, or PIL images, arrays or encoded images; nothing is fetched from URLs.

        Raises:
            ValueError: `uris` is a single image.
            UnreadableImageError: An image can't be read.
        """
        if is_image(uris):
            raise ValueError(f"uris must be a list of images, got a single {type(uris).__name__}: put it into a list")
        return self.embedder.encode_images(uris, self.max_num_patches).tolist()
