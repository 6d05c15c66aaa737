"""What a model family offers to the rest of the package: structural protocols, which no class has to name.

The embedder, the benchmarks, search and export speak to models through these, in text **roles** and in capabilities,
and so never learn which family they have. A family meets them by its own files in this folder and one row in `auto.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# What a text is to the model: a short description of an image, a long one, or a phrase about a region.
Role = Literal["caption", "long_caption", "region_phrase"]
ROLES: tuple[Role, ...] = ("caption", "long_caption", "region_phrase")


@runtime_checkable
class DualEncoder(Protocol):
    """A model whose image and text towers share one embedding space. Features come as (B, D), not normalised.

    Attributes:
        score_function: `"sigmoid"`: each pair of image and text has a probability of its own; `"softmax"`: the texts
            of an image share one.
        config, device, dtype: As of any model of transformers.
    """

    score_function: Any
    config: Any
    device: Any
    dtype: Any

    @property
    def embedding_size(self) -> int:
        """Length D of the embeddings."""

    def get_score_scale_and_bias(self) -> tuple[float, float]:
        """Scale and bias of `score_function(scale * cosine + bias)`."""

    def get_image_features(self, **images: Tensor) -> Tensor:
        """Embed images that the family's processor has prepared and collated."""

    def get_role_features(self, role: Role, **texts: Tensor) -> Tensor:
        """Embed texts that the family's processor has tokenized for the same role."""


@runtime_checkable
class RegionEncoder(DualEncoder, Protocol):
    """A dual encoder that also embeds regions and patches, to be compared with texts of the role `"region_phrase"`.

    Attributes:
        region_logit_scale: Factor of the cosines of regions and texts before a softmax over the texts.
    """

    region_logit_scale: Any

    def get_image_dense_feature(self, **images: Tensor) -> Tensor:
        """Embed patches: (B, N, D), row-major, with `spatial_shapes` of them real."""

    def get_image_region_features(
        self,
        *,
        image_sizes: Sequence[tuple[int, int]],
        region_infos: Sequence[Sequence[Sequence[float]]],
        **images: Tensor,
    ) -> list[Any]:
        """Embed the boxes (x1, y1, x2, y2), in pixels of its (height, width), of each image: a list of (R_i, D)."""


@runtime_checkable
class DualEncoderProcessor(Protocol):
    """The processor of a [`DualEncoder`]: images and texts into its inputs.

    Attributes:
        text_roles: The roles that the family has a head for.
        patch_budgets: Numbers of patches that an image may have, from which `"auto"` chooses by its size; `None`:
            every image becomes one square, and there is nothing to choose.
        tokenizer, image_processor: As of any processor of transformers.
    """

    text_roles: Any
    patch_budgets: Any
    tokenizer: Any
    image_processor: Any

    def text_length(self, role: Role) -> int:
        """Most tokens of a text of this role, special tokens included."""

    def tokenize(self, texts: Sequence[str], role: Role) -> dict[str, Tensor]:
        """Inputs of `get_role_features`."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is cut or padded, special tokens included."""

    def prepare_image(self, image: Image.Image, max_num_patches: int | str | None = None) -> dict[str, np.ndarray]:
        """One image, upright and RGB, as arrays without a batch axis; `spatial_shapes` (2,) is its grid of patches."""

    def collate_images(self, images: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        """Inputs of `get_image_features` for a batch of prepared images."""
