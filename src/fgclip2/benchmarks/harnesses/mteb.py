"""A model in the tasks of MTEB 2 that have images, texts or both (MIEB).

The protocol is `mteb.models.EncoderProtocol`, as of mteb 2.26. mteb is imported only where it describes the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...embedding import Embedder, FGClip2Embedder
from ..models import BenchmarkModel

OWNER = "fgclip2"  # mteb's names have an owner; of models without one


class MTEBModel:
    """A model as `mteb.evaluate` takes it.

    Instructions of tasks are not used: the model was not trained with any. Batches are the model's own; mteb's
    `batch_size` says only how many inputs are loaded at once.

    mteb keeps results by name and revision of the model and shows the old ones again. The revision here is the
    fingerprint of the weights where there is none of the hub; a model that has neither needs a name of its own for
    every change, or `overwrite_strategy="always"`.

    Args:
        model: An [`Embedder`] or another [`BenchmarkModel`].
        max_num_patches: Patch budget of each image, see [`Embedder`]; results of a budget are kept apart.

    Example:
        >>> import mteb
        >>> from fgclip2 import FGClip2Embedder
        >>> model = MTEBModel(FGClip2Embedder.from_pretrained("qihoo360/fg-clip2-base"))
        >>> mteb.evaluate(model, mteb.get_tasks(tasks=["XM3600T2IRetrieval"], languages=["zho", "eng"]))
    """

    def __init__(self, model: BenchmarkModel, max_num_patches: int | str | None = None):
        self.model, self.max_num_patches = model, max_num_patches

    def encode(self, inputs: Any, *, precision: str | None = None, **kwargs: Any) -> Tensor:
        """Embed what a data set has: its texts, its images, or both of each item as one.

        Args:
            inputs: A data loader whose batches are dicts with lists `text`, `image` or both; `inputs.dataset.features`
                says which.
            precision: What mteb would call the results' dtype: `None` or `"float32"`.
            kwargs: What mteb passes besides: the task, split, subset, prompt type and settings. None of it is used.

        Returns:
            Float32 (N, D), L2-normalised, on the CPU. Text and image of one item are added and normalised again.

        Raises:
            ValueError: The data set has neither, or the precision is another.
        """
        if precision not in (None, "float32"):
            raise ValueError(f"precision must be 'float32', got {precision!r}")
        features = inputs.dataset.features
        if "text" in features and "image" in features:
            return self.get_fused_embeddings(inputs)
        if "text" in features:
            return self.get_text_embeddings(inputs)
        if "image" in features:
            return self.get_image_embeddings(inputs)
        raise ValueError(f"the data set has {sorted(features)}, but needs 'text', 'image' or both")

    def get_text_embeddings(self, texts: Iterable[Mapping[str, Any]], **kwargs: Any) -> Tensor:
        """Embed `text` of each batch as a caption, if it fits, else as a long one: float32 (N, D)."""
        return torch.from_numpy(self.model.encode_texts([text for batch in texts for text in batch["text"]]))

    def get_image_embeddings(self, images: Iterable[Mapping[str, Any]], **kwargs: Any) -> Tensor:
        """Embed `image` of each batch, read as the work proceeds: float32 (N, D).

        Raises:
            UnreadableImageError: An image can't be read.
        """
        several = (image for batch in images for image in batch["image"])
        return torch.from_numpy(self.model.encode_images(several, self.max_num_patches, on_error="raise"))

    def get_fused_embeddings(self, inputs: Iterable[Mapping[str, Any]], **kwargs: Any) -> Tensor:
        """Embed `text` and `image` of each item and add them up: float32 (N, D), L2-normalised."""
        return F.normalize(self.get_text_embeddings(inputs) + self.get_image_embeddings(inputs), dim=-1)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines of arrays or tensors (N, D) or (D,) and (M, D) or (D,): float32 (N, M)."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines of arrays or tensors (N, D), row by row: float32 (N,)."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)

    @cached_property
    def mteb_model_meta(self) -> Any:
        """`mteb.models.ModelMeta`: what mteb writes beside its results, and by what it finds them again.

        Raises:
            ModuleNotFoundError: mteb is not installed: `pip install mteb`.
        """
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        module = getattr(self.model, "model", None)
        # An id of the hub stays as it is; another name, or the last part of a path, goes under our own.
        name, parts = self.model.name, Path(self.model.name).parts
        is_id = len(parts) == 2 and name.count("/") == 1 and not Path(name).exists()
        known: dict[str, Any] = {
            "name": name if is_id else f"{OWNER}/{parts[-1]}",
            "revision": self.model.revision or self.model.fingerprint,
            "modalities": ["image", "text"],
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": False,
        }
        if self.max_num_patches is not None:
            known["experiment_kwargs"] = {"max_num_patches": self.max_num_patches}
        if module is not None:
            known["n_parameters"] = sum(weight.numel() for weight in module.parameters())
            known["framework"] = ["PyTorch"]
        if isinstance(self.model, Embedder):
            processor = self.model.processor
            known["embed_dim"] = self.model.embedding_size
            known["max_tokens"] = max(processor.text_length(role) for role in processor.text_roles)
        if isinstance(self.model, FGClip2Embedder):
            known["languages"] = ["zho-Hans", "eng-Latn"]
        return ModelMeta.create_empty({key: value for key, value in known.items() if value is not None})


def _unit(embeddings: Any) -> Tensor:
    return F.normalize(torch.atleast_2d(torch.as_tensor(embeddings)).float(), dim=-1)
