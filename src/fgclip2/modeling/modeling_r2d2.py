"""The R2D2 model: two towers for ranking by cosines, and two cross encoders that compare the pairs worth it."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput

from .configuration_r2d2 import R2D2Config, R2D2CrossConfig, R2D2TextConfig, R2D2VisionConfig
from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .layers import (
    Encoder,
    EncoderLayer,
    ImageEmbeddings,
    activation_of,
    attend,
    check_heads,
    key_padding_mask,
)
from .loading import CheckedPreTrainedModel
from .weights import find_weights  # noqa: F401  # transformers 4 copies only what is named

# Parts that only a model with cross encoders has.
CROSS_MODULES = ("text_joint_layer", "img_joint_layer", "img_joint_proj", "itm_head", "itm_head_i")


def mean_probabilities(text_joint_logits: Tensor, img_joint_logits: Tensor) -> Tensor:
    """Return the mean of both heads' probabilities, float32, shape (P, 2), of logits of that shape."""
    return torch.stack([logits.float().softmax(-1) for logits in (text_joint_logits, img_joint_logits)]).mean(0)


@dataclass
class R2D2Output(ModelOutput):
    """Output of [`R2D2Model`].

    Args:
        logits_per_image: Shape (images, texts); `cosine / temp`.
        logits_per_text: The transpose, shape (texts, images).
        text_embeds: Shape (texts, D), L2-normalised.
        image_embeds: Shape (images, D), L2-normalised.
        text_tokens: Shape (texts, T, text width), what the cross encoders take of the texts.
        image_tokens: Shape (images, 1 + N, vision width), what the cross encoders take of the images.
    """

    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    text_tokens: Tensor | None = None
    image_tokens: Tensor | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Layers: the modules are nested and named as in the official weights
# ---------------------------------------------------------------------------------------------------------------------


class R2D2VisionLayer(EncoderLayer):
    """A layer of the vision tower."""


class R2D2VisionEmbeddings(ImageEmbeddings):
    """A class token and patches, plus the position table."""


class R2D2TextEmbeddings(nn.Module):
    """Embeddings of tokens and positions, and of the first token type; integer (B, T) in, (B, T, D) out.

    The cross encoders have one without token types, whose weights are in the official files and never used.
    """

    def __init__(self, config: R2D2TextConfig, width: int, layer_norm_eps: float, has_token_types: bool):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        if has_token_types:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = self.position_embeddings(torch.arange(input_ids.shape[1], device=input_ids.device))  # (T, D)
        types = self.token_type_embeddings(torch.zeros_like(input_ids))  # (B, T, D)
        return self.dropout(self.LayerNorm(self.word_embeddings(input_ids) + types + positions))


class R2D2AttentionHeads(nn.Module):
    """Projections and attention, without what follows them."""

    is_causal = False

    def __init__(self, config: Any, key_width: int):
        super().__init__()
        check_heads(config.hidden_size, config.num_attention_heads)
        self.config = config
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(key_width, config.hidden_size)
        self.value = nn.Linear(key_width, config.hidden_size)

    def forward(self, hidden_states: Tensor, others: Tensor, mask: Tensor | None) -> Tensor:
        return attend(self, self.query(hidden_states), self.key(others), self.value(others), mask)


class R2D2AddAndNorm(nn.Module):
    """A projection, added to what went into the block, and the norm behind it."""

    def __init__(self, config: Any, width: int):
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, values: Tensor, hidden_states: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(values)) + hidden_states)


class R2D2Attention(nn.Module):
    """Attention of (B, Q, D) to (B, N, key width), with its residual and norm; (B, Q, D) out."""

    def __init__(self, config: Any, key_width: int):
        super().__init__()
        self.self = R2D2AttentionHeads(config, key_width)
        self.output = R2D2AddAndNorm(config, config.hidden_size)

    def forward(self, hidden_states: Tensor, others: Tensor, mask: Tensor | None) -> Tensor:
        return self.output(self.self(hidden_states, others, mask), hidden_states)


class R2D2Intermediate(nn.Module):
    """The first half of an MLP."""

    def __init__(self, config: Any):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation_fn = activation_of(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.activation_fn(self.dense(hidden_states))


class R2D2Layer(GradientCheckpointingLayer):
    """A post-norm layer of the text tower or, with a `key_width`, of a cross encoder, which attends to others too."""

    def __init__(self, config: Any, key_width: int | None = None):
        super().__init__()
        self.attention = R2D2Attention(config, config.hidden_size)
        if key_width is not None:
            self.crossattention = R2D2Attention(config, key_width)
        self.intermediate = R2D2Intermediate(config)
        self.output = R2D2AddAndNorm(config, config.intermediate_size)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        others: Tensor | None = None,
        others_mask: Tensor | None = None,
    ) -> Tensor:
        hidden_states = self.attention(hidden_states, hidden_states, mask)
        if others is not None:
            hidden_states = self.crossattention(hidden_states, others, others_mask)
        return self.output(self.intermediate(hidden_states), hidden_states)


class R2D2Encoder(nn.Module):
    """A stack of layers; (B, Q, D) in, (B, Q, D) and, if asked for, every hidden state out."""

    def __init__(self, config: Any, key_width: int | None = None):
        super().__init__()
        self.layer = nn.ModuleList([R2D2Layer(config, key_width) for _ in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False

    def forward(
        self, hidden_states: Tensor, *masks_and_others: Tensor | None, output_hidden_states: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        all_hidden_states = [hidden_states]
        for layer in self.layer:
            hidden_states = layer(hidden_states, *masks_and_others)
            if output_hidden_states:
                all_hidden_states.append(hidden_states)
        return hidden_states, tuple(all_hidden_states) if output_hidden_states else None


class R2D2Pooler(nn.Module):
    """Weights of the official files that nothing uses."""

    def __init__(self, config: R2D2TextConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)


# ---------------------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------------------


class R2D2PreTrainedModel(CheckedPreTrainedModel):
    """Loading, saving and initialisation shared by the models."""

    config_class: type[PretrainedConfig] = R2D2Config
    base_model_prefix = "r2d2"
    supports_gradient_checkpointing = True
    _no_split_modules = ["R2D2TextEmbeddings", "R2D2VisionEmbeddings", "R2D2Layer", "R2D2VisionLayer"]
    _supports_sdpa = True
    _supports_flash_attn = False  # its kernels unpad queries and keys by one mask, and here they are of two lengths
    _supports_flex_attn = False
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Only nn.init functions: transformers 5 patches these, and no others, to leave loaded weights alone.
        std = getattr(self.config, "initializer_range", 0.02)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.Embedding, nn.Conv2d)):
            nn.init.normal_(module.weight, std=std)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, R2D2VisionEmbeddings):
            nn.init.normal_(module.class_embedding, std=std)
        elif isinstance(module, R2D2Model):
            nn.init.constant_(module.temp, module.config.temp_init)


class R2D2VisionModel(R2D2PreTrainedModel):
    """The vision tower.

    Loads from its own checkpoints and from those of the full [`R2D2Model`].
    """

    config_class = R2D2VisionConfig
    base_model_prefix = "visual_encoder"
    main_input_name = "pixel_values"
    _keys_to_ignore_on_load_unexpected = [
        r"^text_encoder\.",
        rf"^({'|'.join(CROSS_MODULES)})\.",
        r"position_ids$",
        r"^(text|vision)_proj\.",
        r"^temp$",
    ]

    def __init__(self, config: R2D2VisionConfig):
        super().__init__(config)
        self.embeddings = R2D2VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # spelt as in CLIP's weights
        self.encoder = Encoder(config, R2D2VisionLayer)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # in CLIP's weights, unused
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embedding

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool = False, return_dict: bool = True
    ) -> BaseModelOutputWithPooling:
        """Encode images.

        Args:
            pixel_values: Shape (B, 3, S, S), S being `config.image_size`.
            output_hidden_states: Also return every layer's output, that of the first norm before them.
            return_dict: `False` returns a plain tuple, as for any model of transformers.

        Returns:
            `last_hidden_state` (B, 1 + N, D), not normalised; `pooler_output` (B, D), its first row.
        """
        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values))  # (B, 1 + N, D)
        hidden_states, all_hidden_states = self.encoder(hidden_states, None, output_hidden_states)
        outputs = BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=hidden_states[:, 0], hidden_states=all_hidden_states
        )
        return outputs if return_dict else outputs.to_tuple()  # type: ignore[return-value]  # annotated as what comes by default


class R2D2TextModel(R2D2PreTrainedModel):
    """The text tower.

    Loads from its own checkpoints and from those of the full [`R2D2Model`].
    """

    config_class = R2D2TextConfig
    base_model_prefix = "text_encoder"
    main_input_name = "input_ids"
    _keys_to_ignore_on_load_unexpected = [
        r"^visual_encoder\.",
        rf"^({'|'.join(CROSS_MODULES)})\.",
        r"position_ids$",
        r"^(text|vision)_proj\.",
        r"^temp$",
    ]

    def __init__(self, config: R2D2TextConfig):
        super().__init__(config)
        self.embeddings = R2D2TextEmbeddings(config, config.hidden_size, config.layer_norm_eps, has_token_types=True)
        self.encoder = R2D2Encoder(config)
        self.pooler = R2D2Pooler(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutputWithPooling:
        """Encode texts.

        Args:
            input_ids: Integer, shape (B, T), with the start token first.
            attention_mask: Shape (B, T), 1 for tokens and 0 for padding; `None`: nothing is padding.
            output_hidden_states: Also return every layer's output, that of the embeddings before them.

        Returns:
            `last_hidden_state` (B, T, D); `pooler_output` (B, D), its first row.

        Raises:
            ValueError: The ids have another number of dimensions, there are more than positions, or the mask has
                another shape than they.
        """
        most = self.config.max_position_embeddings
        if input_ids.ndim != 2 or not 1 <= input_ids.shape[1] <= most:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)}; allowed: (texts, 1 to {most} tokens), the tokenizer "
                "truncates"
            )
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)} and input_ids {tuple(input_ids.shape)}; "
                "allowed: the same"
            )
        mask = key_padding_mask(attention_mask, self.config._attn_implementation)
        hidden_states, all_hidden_states = self.encoder(
            self.embeddings(input_ids), mask, output_hidden_states=output_hidden_states
        )
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=hidden_states[:, 0], hidden_states=all_hidden_states
        )


class R2D2CrossEncoder(R2D2PreTrainedModel):
    """Layers in which tokens of one kind attend to themselves and to tokens of the other kind."""

    config_class = R2D2CrossConfig

    def __init__(self, config: R2D2CrossConfig, text_config: R2D2TextConfig, key_width: int):
        super().__init__(config)
        # In the official weights, and never used: what comes in are the tokens of a tower.
        self.embeddings = R2D2TextEmbeddings(text_config, config.hidden_size, config.layer_norm_eps, False)
        self.encoder = R2D2Encoder(config, key_width)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        others: Tensor,
        others_mask: Tensor | None,
        output_hidden_states: bool = False,
    ) -> BaseModelOutputWithPooling:
        """Encode tokens (B, Q, D) in the light of others (B, N, key width); the masks are (B, Q) and (B, N).

        Returns:
            `last_hidden_state` (B, Q, D); `pooler_output` (B, D), its first row.
        """
        masks = [key_padding_mask(mask, self.config._attn_implementation) for mask in (attention_mask, others_mask)]
        hidden_states, all_hidden_states = self.encoder(
            hidden_states, masks[0], others, masks[1], output_hidden_states=output_hidden_states
        )
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=hidden_states[:, 0], hidden_states=all_hidden_states
        )


class R2D2Model(R2D2PreTrainedModel):
    """R2D2: images and texts in one embedding space, and the probability that an image and a text match.

    Rank everything by cosines first; then [`rank_scores`] of the best pairs, which costs two cross encoders for each,
    orders these anew. A model without cross encoders (PRD2) has the first stage only.

    Example:
        >>> import torch
        >>> from fgclip2 import R2D2Model, R2D2Processor
        >>> model, processor = R2D2Model.from_pretrained(path).eval(), R2D2Processor.from_pretrained(path)
        >>> inputs = processor(text=["一只猫", "一只狗"], images=[image, image])
        >>> with torch.no_grad():
        ...     image_tokens = model.get_image_tokens(inputs["pixel_values"])
        ...     text_tokens = model.get_text_tokens(inputs["input_ids"], inputs["attention_mask"])
        ...     scores = model.rank_scores(image_tokens, text_tokens, inputs["attention_mask"])  # (2,)
    """

    config_class = R2D2Config
    main_input_name = "pixel_values"
    _keys_to_ignore_on_load_unexpected = [r"position_ids$"]
    _never_made = ("vision_proj.weight", "text_proj.weight")

    # How the package's other parts, which know no family by name, compare the embeddings of this one.
    score_function = "softmax"

    def __init__(self, config: R2D2Config):
        super().__init__(config)
        vision_config, text_config, cross_config = config.vision_config, config.text_config, config.cross_config
        # _from_config lets attn_implementation reach the towers.
        self.visual_encoder = R2D2VisionModel._from_config(vision_config)
        self.text_encoder = R2D2TextModel._from_config(text_config)
        self.vision_proj = nn.Linear(vision_config.hidden_size, config.embed_dim)
        self.text_proj = nn.Linear(text_config.hidden_size, config.embed_dim)
        self.temp = nn.Parameter(torch.empty(()))
        if config.has_cross_encoders:
            width = cross_config.hidden_size
            of_text = {"text_config": text_config, "key_width": vision_config.hidden_size}
            of_image = {"text_config": text_config, "key_width": text_config.hidden_size}
            self.text_joint_layer = R2D2CrossEncoder._from_config(cross_config, **of_text)
            self.img_joint_layer = R2D2CrossEncoder._from_config(cross_config, **of_image)
            self.img_joint_proj = nn.Linear(vision_config.hidden_size, width)
            self.itm_head = nn.Linear(width, 2)
            self.itm_head_i = nn.Linear(width, 2)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.text_encoder.set_input_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Change the number of tokens; arguments and result are those of transformers.

        The tables of the cross encoders, which nothing reads, get as many rows, as loading expects it.
        """
        table = super().resize_token_embeddings(*args, **kwargs)
        if self.config.has_cross_encoders:
            for encoder in (self.text_joint_layer, self.img_joint_layer):
                unused = encoder.embeddings.word_embeddings
                more = table.num_embeddings - unused.num_embeddings  # negative: fewer
                weight = F.pad(unused.weight.detach(), (0, 0, 0, more))
                unused.weight = nn.Parameter(weight, requires_grad=unused.weight.requires_grad)
                unused.num_embeddings = table.num_embeddings
        return table

    @property
    def embedding_size(self) -> int:
        """Length D of the embeddings."""
        return self.config.embed_dim

    @property
    def scores_pairs(self) -> bool:
        """Return whether there are cross encoders, which [`match`] needs."""
        return self.config.has_cross_encoders

    def get_score_scale_and_bias(self) -> tuple[float, float]:
        """Return what `score_function` takes: scale * cosine + bias."""
        return 1 / self.temp.item(), 0.0

    def get_role_features(
        self, role: str, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> torch.FloatTensor:
        """Embed texts, which have one role, `"caption"`; see [`get_text_features`]."""
        return self.get_text_features(input_ids, attention_mask)

    def get_image_tokens(self, pixel_values: Tensor) -> torch.FloatTensor:
        """Encode images into what [`match`] takes, and what [`get_image_features`] projects.

        Args:
            pixel_values: Shape (B, 3, S, S), from the image processor.

        Returns:
            Shape (B, 1 + N, vision width): the class token first, then the patches, row-major.

        Raises:
            ValueError: The images are of another size.
        """
        return self.visual_encoder(pixel_values).last_hidden_state

    def get_text_tokens(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> torch.FloatTensor:
        """Encode texts into what [`match`] takes, and what [`get_text_features`] projects.

        Args:
            input_ids: Integer, shape (B, T), padded to any length up to the model's positions, 512 as published.
            attention_mask: Shape (B, T), 1 for tokens and 0 for padding; `None`: nothing is padding.

        Returns:
            Shape (B, T, text width): the start token first.

        Raises:
            ValueError: There are more tokens than positions.
        """
        return self.text_encoder(input_ids, attention_mask).last_hidden_state

    def get_image_features(self, pixel_values: Tensor, return_dict: bool = False) -> torch.FloatTensor:
        """Embed images.

        Args:
            pixel_values: As in [`get_image_tokens`].
            return_dict: Return transformers' output class, with the features as `pooler_output`.

        Returns:
            Shape (B, D), not normalised.

        Raises:
            ValueError: The images are of another size.
        """
        outputs = self.visual_encoder(pixel_values)
        outputs.pooler_output = self.vision_proj(outputs.pooler_output)
        # Annotated as what comes by default: other libraries read the annotation.
        return outputs if return_dict else outputs.pooler_output

    def get_image_features_and_tokens(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return [`get_image_features`] and [`get_image_tokens`], which images run through the vision tower once for.

        Args:
            pixel_values: As in [`get_image_tokens`].

        Returns:
            Shapes (B, D), not normalised, and (B, 1 + N, vision width).

        Raises:
            ValueError: The images are of another size.
        """
        tokens = self.get_image_tokens(pixel_values)
        return self.vision_proj(tokens[:, 0]), tokens

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, return_dict: bool = False
    ) -> torch.FloatTensor:
        """Embed texts.

        Args:
            input_ids, attention_mask: As in [`get_text_tokens`].
            return_dict: Return transformers' output class, with the features as `pooler_output`.

        Returns:
            Shape (B, D), not normalised.

        Raises:
            ValueError: There are more tokens than positions.
        """
        outputs = self.text_encoder(input_ids, attention_mask)
        outputs.pooler_output = self.text_proj(outputs.pooler_output)
        return outputs if return_dict else outputs.pooler_output

    def match(
        self, image_tokens: Tensor, text_tokens: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """Compare pairs of an image and a text token by token.

        Args:
            image_tokens: Shape (pairs, 1 + N, vision width), from [`get_image_tokens`].
            text_tokens: Shape (pairs, T, text width), from [`get_text_tokens`].
            attention_mask: Shape (pairs, T), that of the texts.

        Returns:
            Logits of two cross encoders, each of shape (pairs, 2): that in which the text attends to the image, and
            that in which the image attends to the text. Their softmax has the probability that both match second;
            [`match_probability`] is the mean of both.

        Raises:
            ValueError: The model has no cross encoders, there are not as many images as texts, or the mask is not
                that of the texts.
        """
        of_text, of_image = self.get_joint_tokens(image_tokens, text_tokens, attention_mask)
        return self.itm_head(of_text[:, 0]), self.itm_head_i(of_image[:, 0])

    def get_joint_tokens(
        self, image_tokens: Tensor, text_tokens: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """Encode the tokens of each side of a pair in the light of the other side; [`match`] takes the first of each.

        Arguments and errors are those of [`match`].

        Returns:
            Tokens of the texts, shape (pairs, T, text width), and of the images, shape (pairs, 1 + N, text width).
        """
        self._check_pairs(image_tokens, text_tokens, attention_mask)
        of_text = self.text_joint_layer(text_tokens, attention_mask, image_tokens, None)
        of_image = self.img_joint_layer(self.img_joint_proj(image_tokens), None, text_tokens, attention_mask)
        return of_text.last_hidden_state, of_image.last_hidden_state

    def match_probability(
        self, image_tokens: Tensor, text_tokens: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Compute how likely an image and a text match: the mean of both cross encoders' probabilities.

        Arguments and errors are those of [`match`].

        Returns:
            Shape (pairs,), float32, from 0 to 1.
        """
        return mean_probabilities(*self.match(image_tokens, text_tokens, attention_mask))[:, 1]

    def rank_scores(self, image_tokens: Tensor, text_tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Score pairs for ranking: [`match_probability`], plus the cosine of the embeddings.

        Arguments and errors are those of [`match`].

        Returns:
            Shape (pairs,), float32, from -1 to 2.
        """
        probability = self.match_probability(image_tokens, text_tokens, attention_mask)
        images, texts = self.vision_proj(image_tokens[:, 0]), self.text_proj(text_tokens[:, 0])  # (pairs, D)
        return probability + F.cosine_similarity(images.float(), texts.float(), dim=-1)

    def _check_pairs(self, image_tokens: Tensor, text_tokens: Tensor, attention_mask: Tensor | None) -> None:
        """Raise a `ValueError` unless there are cross encoders, as many images as texts, and the mask of the texts."""
        if not self.config.has_cross_encoders:
            raise ValueError(
                "this model has no cross encoders (PRD2 ranks by cosines alone): compare get_image_features with "
                "get_text_features"
            )
        if len(image_tokens) != len(text_tokens):
            raise ValueError(
                f"image_tokens has {len(image_tokens)} rows and text_tokens {len(text_tokens)}; allowed: as many, row "
                "i of both being pair i"
            )
        if attention_mask is not None and attention_mask.shape != text_tokens.shape[:2]:
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}, and the texts of text_tokens "
                f"{tuple(text_tokens.shape[:2])}; allowed: the same"
            )

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> R2D2Output:
        """Embed images, texts or both; with both, compare every image with every text by the cosines of the towers.

        Arguments are those of [`get_text_features`] and [`get_image_features`].

        Raises:
            ValueError: Neither images nor texts are given.
        """
        if input_ids is None and pixel_values is None:
            raise ValueError("pass input_ids, pixel_values or both")
        image_tokens = text_tokens = image_embeds = text_embeds = logits = None
        if pixel_values is not None:
            image_tokens = self.get_image_tokens(pixel_values)
            image_embeds = F.normalize(self.vision_proj(image_tokens[:, 0]), dim=-1)
        if input_ids is not None:
            text_tokens = self.get_text_tokens(input_ids, attention_mask)
            text_embeds = F.normalize(self.text_proj(text_tokens[:, 0]), dim=-1)
        if image_embeds is not None and text_embeds is not None:
            cosines = image_embeds @ text_embeds.T.to(image_embeds.device)  # (images, texts)
            logits = cosines / self.temp.to(cosines.device)
        # All at once: a field set later is an attribute of a ModelOutput, but not one of its items.
        return R2D2Output(
            logits_per_image=logits,
            logits_per_text=None if logits is None else logits.T,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_tokens=text_tokens,
            image_tokens=image_tokens,
        )


__all__ = ["R2D2Model", "R2D2Output", "R2D2PreTrainedModel", "R2D2TextModel", "R2D2VisionModel"]
