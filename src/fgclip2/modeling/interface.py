"""Capabilities that a model family offers to the rest of the package: structural protocols, which no class has to name.

The embedder, the benchmarks, search and export speak to models through these, in text **roles** and in capabilities,
and so never learn which family they have. A family meets them by its own files in this folder and one row in `auto.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

# What a text is to the model: a short description of an image, a long one, or a phrase about a region.
Role = Literal["caption", "long_caption", "region_phrase"]
ROLES: tuple[Role, ...] = ("caption", "long_caption", "region_phrase")


@runtime_checkable
class DualEncoder(Protocol):
    """A `torch.nn.Module` whose image and text towers share one embedding space.

    Features come as (B, D), not normalised.

    Attributes:
        score_function: `"sigmoid"`: each pair of image and text has a probability of its own; `"softmax"`: the texts
            of an image share one.
        config, device, dtype: As of any model of transformers.
    """

    score_function: Any
    config: Any

    @property
    def device(self) -> Any: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def embedding_size(self) -> int:
        """Return the length D of the embeddings."""

    def get_score_scale_and_bias(self) -> tuple[float, float]:
        """Return scale and bias of `score_function(scale * cosine + bias)`."""

    def get_image_features(self, *args: Any, **images: Any) -> Tensor:
        """Embed images that the family's processor has prepared and collated."""

    def get_role_features(self, role: Any, *args: Any, **texts: Any) -> Tensor:
        """Embed texts that the family's processor has tokenized for the same role."""


@runtime_checkable
class RegionEncoder(DualEncoder, Protocol):
    """A dual encoder that also embeds regions and patches, to be compared with texts of the role `"region_phrase"`.

    Attributes:
        region_logit_scale: Factor of the cosines of regions and texts before a softmax over the texts.
    """

    region_logit_scale: Any

    def get_image_dense_feature(self, *args: Any, **images: Any) -> Tensor:
        """Embed patches: (B, N, D), row-major; those of the grid come first, and what follows them is padding."""

    def get_image_and_dense_features(self, *args: Any, **images: Any) -> tuple[Tensor, Tensor]:
        """Return `get_image_features` and `get_image_dense_feature` of images that run through the model once."""

    def get_patch_grids(self, *args: Any, **images: Any) -> Tensor:
        """Return the grids of patches that images are: integers (B, 2), (height, width) of each."""

    def get_image_region_features(self, *args: Any, **images_and_boxes: Any) -> list[Any]:
        """Embed boxes: a list of (R_i, D).

        Besides those of images, the arguments are `image_sizes`, (height, width) of each image in pixels, and
        `region_infos`, for each image its boxes (x1, y1, x2, y2) in pixels.
        """


@runtime_checkable
class PairScorer(DualEncoder, Protocol):
    """A dual encoder that also compares the tokens of an image with those of a text, one pair at a time.

    Image tokens are (B, N, image width), text tokens (B, T, text width). Images of a batch that have fewer tokens than
    others are padded with rows of zeros, which change no score. The mask of texts is the `attention_mask` of the
    processor, or `None` where it gives none.
    """

    @property
    def scores_pairs(self) -> bool:
        """Return whether this model has what compares pairs; some checkpoints of a family may come without."""

    def get_image_tokens(self, *args: Any, **images: Any) -> Tensor:
        """Encode images, whose arguments are those of `get_image_features`, into tokens."""

    def get_image_features_and_tokens(self, *args: Any, **images: Any) -> tuple[Tensor, Tensor]:
        """Return `get_image_features` and `get_image_tokens` of images that run through the model once."""

    def get_text_tokens(self, *args: Any, **texts: Any) -> Tensor:
        """Encode texts that the processor has tokenized, in any role of captions, into tokens."""

    def match_probability(self, image_tokens: Any, text_tokens: Any, attention_mask: Any = None) -> Tensor:
        """Return how likely the image and the text of each pair match, float32 (pairs,), from 0 to 1."""

    def rank_scores(self, image_tokens: Any, text_tokens: Any, attention_mask: Any = None) -> Tensor:
        """Return what orders the candidates of a query, float32 (pairs,); higher is better."""


@runtime_checkable
class DualEncoderProcessor(Protocol):
    """The processor of a [`DualEncoder`]: images and texts into its inputs. Threads may call it at the same time.

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

    @property
    def max_caption_tokens(self) -> int:
        """Return how many tokens a text has at most that is a short caption where the role is chosen by length."""

    def text_length(self, role: Any) -> int:
        """Return the most tokens that a text of this role may have, special tokens included."""

    def tokenize(self, texts: Sequence[str], role: Any) -> Any:
        """Return the inputs of `get_role_features`, as transformers' `BatchEncoding` or `BatchFeature`."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text before it is cut or padded, special tokens included.

        Of a text that is far longer than any head takes, it may be less, but more than a head takes.
        """

    def prepare_image(self, image: Image.Image, max_num_patches: int | str | None = None) -> dict[str, np.ndarray]:
        """Return an upright RGB image as arrays without a batch axis.

        With patch budgets `pixel_values` is (budget, ...), else one square of the size that all images have.
        """

    def collate_images(self, images: Sequence[dict[str, np.ndarray]]) -> Any:
        """Return the inputs of `get_image_features` for a batch of prepared images, as a `BatchFeature`."""

    def process_images(
        self, images: Sequence[Image.Image], max_num_patches: int | str | None = None, normalized: bool = True
    ) -> Any:
        """Return the inputs of `get_image_features` for a batch of images at once, as a `BatchFeature` of tensors.

        Training asks for `normalized=False`, by which `pixel_values` stay as they are in the images, uint8:
        `image_processor.value_table()`, float32 (3, 256), has the normalised value of each of a channel.
        """
