"""FG-CLIP 2 with a ranking stage: a cross encoder that compares the tokens of a text with the patches of an image."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_fgclip2 import FGClip2Config  # noqa: F401  # transformers 4 copies only what is named
from .configuration_matching_fgclip2 import FGClip2CrossConfig, FGClip2MatchingConfig
from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .layers import MLP, SelfAttention, attend, key_padding_mask
from .loading import CheckedPreTrainedModel  # noqa: F401  # transformers 4 copies only what is named
from .modeling_fgclip2 import TRAINING_SCALES, FGClip2Model, FGClip2PreTrainedModel
from .weights import find_weights  # noqa: F401  # transformers 4 copies only what is named


def without_padding(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cut off the rows (B, N, D) behind the last one that is not padding, and return a boolean mask (B, N) of these."""
    mask = (tokens != 0).any(-1)
    if torch.compiler.is_compiling():  # a graph can't have shapes that depend on the data
        return tokens, mask
    length = int(mask.any(0).nonzero().max()) + 1
    return tokens[:, :length], mask[:, :length]


class FGClip2IdentityLinear(nn.Linear):
    """A layer that starts as the identity."""


class FGClip2CrossAttention(SelfAttention):
    """Attention of texts to images, whose result is multiplied by the queries.

    Tokens and patches are of one embedding space, so it starts by looking for what is alike: queries, keys and values
    are the tokens as they are, and the sum of the products is the similarity of a token and what it has found (low-rank
    bilinear pooling, Kim et al., ICLR 2017).
    """

    def __init__(self, config: FGClip2CrossConfig):
        super().__init__(config)
        for name in ("q_proj", "k_proj", "v_proj"):
            setattr(self, name, FGClip2IdentityLinear(config.hidden_size, config.hidden_size))

    def forward(self, hidden_states: Tensor, image_tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from texts (B * K, T, width) to images (B, N, width), which K texts one after another share."""
        query = self.q_proj(hidden_states).unflatten(0, (len(image_tokens), -1)).flatten(1, 2)  # (B, K * T, width)
        found = attend(self, query, self.k_proj(image_tokens), self.v_proj(image_tokens), mask)
        return self.out_proj(query * found).view(hidden_states.shape)


class FGClip2CrossLayer(GradientCheckpointingLayer):
    """A pre-norm layer in which the tokens of a text attend to each other, then to the tokens of an image."""

    def __init__(self, config: FGClip2CrossConfig):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.self_attn = SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)
        self.cross_attn = FGClip2CrossAttention(config)
        self.layer_norm3 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(config)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, image_tokens: Tensor, image_mask: Tensor | None
    ) -> Tensor:
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states), mask)
        hidden_states = hidden_states + self.cross_attn(self.layer_norm2(hidden_states), image_tokens, image_mask)
        return hidden_states + self.mlp(self.layer_norm3(hidden_states))


class FGClip2SharedProjection(nn.Linear):
    """The projection of the embedding space to the width of the layers, which starts by keeping angles."""


class FGClip2MatchHead(nn.Linear):
    """The last layer, whose weights start at zero."""


class FGClip2CrossEncoder(FGClip2PreTrainedModel):
    """Layers over the tokens of a text, and a number for each pair: the mean over the tokens, 0 before any training."""

    config_class = FGClip2CrossConfig
    _no_split_modules = ["FGClip2CrossLayer"]

    def __init__(self, config: FGClip2CrossConfig, embedding_size: int):
        super().__init__(config)
        self.text_norm = nn.LayerNorm(embedding_size, eps=config.layer_norm_eps)
        self.image_norm = nn.LayerNorm(embedding_size, eps=config.layer_norm_eps)
        self.projection = FGClip2SharedProjection(embedding_size, config.hidden_size)  # of texts and images
        self.layers = nn.ModuleList([FGClip2CrossLayer(config) for _ in range(config.num_hidden_layers)])
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = FGClip2MatchHead(config.hidden_size, 1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (FGClip2MatchHead, FGClip2IdentityLinear, FGClip2SharedProjection)):
            nn.init.zeros_(module.bias)
        if isinstance(module, FGClip2MatchHead):
            nn.init.zeros_(module.weight)
        elif isinstance(module, FGClip2IdentityLinear):
            nn.init.eye_(module.weight)
        elif isinstance(module, FGClip2SharedProjection):
            nn.init.orthogonal_(module.weight)
        else:
            super()._init_weights(module)

    def forward(self, image_tokens: Tensor, text_tokens: Tensor) -> Tensor:
        """Compare images (B, N, D) with texts (B * K, T, D), K for each image; rows of zeros are padding.

        Returns:
            Shape (B * K,).
        """
        (image_tokens, image_mask), (text_tokens, text_mask) = (
            without_padding(image_tokens),
            without_padding(text_tokens),
        )
        implementation = self.config._attn_implementation
        of_image, of_text = (key_padding_mask(mask, implementation) for mask in (image_mask, text_mask))
        image_tokens = self.projection(self.image_norm(image_tokens))  # (B, N, width)
        hidden_states = self.projection(self.text_norm(text_tokens))  # (B * K, T, width)
        for layer in self.layers:
            hidden_states = layer(hidden_states, of_text, image_tokens, of_image)
        scores = self.head(self.final_layer_norm(hidden_states))[..., 0]  # (B * K, T)
        counts = text_mask.to(scores.dtype)
        return (scores * counts).sum(1) / counts.sum(1)


class FGClip2ForImageTextMatching(FGClip2Model):
    """[`FGClip2Model`] with a ranking stage, which compares an image and a text token by token.

    Rank everything by cosines first; then [`rank_scores`] of the best pairs, which costs a cross encoder for each,
    orders these anew. The cross encoder adds to the logit that the dual encoder gives a pair. Its last layer starts at
    zero, so that an untrained stage changes no probability and no order.

    A folder has the whole dual encoder beside the stage, so that no other one can be taken for it. It opens as
    [`FGClip2Model`] too, which leaves the stage out.

    Example:
        >>> from fgclip2 import FGClip2ForImageTextMatching, FGClip2Model
        >>> sizes = {"hidden_size": 768, "num_hidden_layers": 4}
        >>> model = FGClip2ForImageTextMatching.from_dual_encoder(FGClip2Model.from_pretrained(path), sizes)
        >>> image_tokens = model.get_image_tokens(**processor(images=[image]))  # (1, 1 + N, D)
        >>> text_tokens = model.get_text_tokens(**processor(text=["a red apple"]))  # (1, 1 + T, D)
        >>> model.match_probability(image_tokens, text_tokens)  # (1,)
    """

    config_class = FGClip2MatchingConfig  # type: ignore[assignment]
    _keys_to_ignore_on_load_unexpected = [r"position_ids$", *(rf"^{name}$" for name in TRAINING_SCALES)]
    _never_made: ClassVar[tuple[str, ...]] = ("cross_encoder.head.weight",)

    def __init__(self, config: FGClip2MatchingConfig):
        super().__init__(config)
        self.cross_encoder = FGClip2CrossEncoder._from_config(config.cross_config, embedding_size=self.embedding_size)
        self.post_init()

    @classmethod
    def from_dual_encoder(
        cls, model: FGClip2Model, cross_config: FGClip2CrossConfig | dict[str, Any] | None = None
    ) -> Any:
        """Add an untrained stage to a dual encoder, whose parameters are shared, not copied.

        Args:
            model: The dual encoder.
            cross_config: As in [`FGClip2MatchingConfig`]: sizes of the stage.
        """
        towers = {name: getattr(model.config, name).to_dict() for name in ("text_config", "vision_config")}
        config = FGClip2MatchingConfig(
            **towers, cross_config=cross_config, initializer_factor=model.config.initializer_factor
        )
        config._attn_implementation = model.config._attn_implementation
        matching = cls(config).to(model.device, model.dtype)  # type: ignore[arg-type]
        matching.load_state_dict(model.state_dict(keep_vars=True), strict=False, assign=True)
        return matching.train(model.training)

    @property
    def scores_pairs(self) -> bool:
        """Return that pairs can be compared, as always: the ranking stage is what this class is for."""
        return True

    def get_image_tokens(
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
    ) -> Tensor:
        """Return what the stage takes of images. Arguments are as in [`get_image_features`].

        Returns:
            Shape (B, 1 + N, D): the image's embedding, then its dense features; padded patches are rows of zeros.
        """
        return self.get_image_features_and_tokens(pixel_values, pixel_attention_mask, spatial_shapes)[1]

    def get_image_features_and_tokens(
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return [`get_image_features`] and [`get_image_tokens`] of images that run through the vision tower once."""
        pixel_values, pixel_attention_mask, spatial_shapes = self.vision_model.prepare_patches(
            pixel_values, pixel_attention_mask, spatial_shapes
        )
        image, dense = self.get_image_and_dense_features(pixel_values, pixel_attention_mask, spatial_shapes)
        patches: Tensor = dense
        if pixel_attention_mask is not None:
            patches = dense * pixel_attention_mask[..., None].to(dense.dtype)  # (B, N, D)
        return image, torch.cat([image[:, None], patches], 1)

    def get_text_tokens(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, walk_type: str | None = None
    ) -> Tensor:
        """Return what the stage takes of texts. Arguments are as in [`get_text_features`].

        Returns:
            Shape (B, 1 + T, D): the text's embedding, then the state of each of its tokens through the same head;
            padding is rows of zeros.

        Raises:
            ValueError: As [`get_text_features`].
        """
        walk_type = self.text_model.resolve_walk_type(input_ids, walk_type)
        states = self.text_model(input_ids, attention_mask, "box" if walk_type == "short" else walk_type)
        heads = {"short": self.text_model.head, "long": self.longtext_head, "box": self.boxtext_head}
        tokens = heads[walk_type](states.last_hidden_state)  # (B, T, D)
        is_token = input_ids != self.config.text_config.pad_token_id
        return torch.cat([tokens[:, -1:], tokens * is_token[..., None].to(tokens.dtype)], 1)

    def match(self, image_tokens: Tensor, text_tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Compare pairs of an image and a text token by token.

        Args:
            image_tokens: Shape (pairs, 1 + N, D), from [`get_image_tokens`]; rows of zeros are padding.
            text_tokens: Shape (pairs, 1 + T, D), from [`get_text_tokens`]; likewise.
            attention_mask: Shape (pairs, 1 + T), 1 for rows of `text_tokens` that count; `None`: those not all zero.

        Returns:
            Shape (pairs,), float32: the logits of a match, that of the dual encoder and that of the stage added up.

        Raises:
            ValueError: There are not as many images as texts, or the mask is not that of the texts.
        """
        if len(image_tokens) != len(text_tokens):
            raise ValueError(
                f"image_tokens has {len(image_tokens)} rows and text_tokens {len(text_tokens)}; allowed: as many, row "
                "i of both being pair i"
            )
        if attention_mask is not None:
            if attention_mask.shape != text_tokens.shape[:2]:
                raise ValueError(
                    f"attention_mask has shape {tuple(attention_mask.shape)}, and the texts of text_tokens "
                    f"{tuple(text_tokens.shape[:2])}; allowed: the same"
                )
            text_tokens = text_tokens * attention_mask[..., None].to(text_tokens.dtype)
        cosines = F.cosine_similarity(image_tokens[:, 0].float(), text_tokens[:, 0].float(), dim=-1)
        return (
            self.logit_scale.exp() * cosines + self.logit_bias + self.cross_encoder(image_tokens, text_tokens).float()
        )

    def match_probability(
        self, image_tokens: Tensor, text_tokens: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Compute how likely an image and a text match. Arguments and errors are those of [`match`].

        Returns:
            Shape (pairs,), float32, from 0 to 1.
        """
        return self.match(image_tokens, text_tokens, attention_mask).sigmoid()

    def rank_scores(self, image_tokens: Tensor, text_tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Score pairs for ranking: the logits of [`match`], whose arguments and errors these are.

        Returns:
            Shape (pairs,), float32.
        """
        return self.match(image_tokens, text_tokens, attention_mask)


__all__ = ["FGClip2CrossEncoder", "FGClip2ForImageTextMatching"]
