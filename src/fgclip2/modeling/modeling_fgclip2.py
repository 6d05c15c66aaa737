"""The FG-CLIP 2 model: two SigLIP-2-style towers, dense features, and region features pooled from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging
from transformers.utils.generic import ModelOutput

from .configuration_fgclip2 import (
    WALK_OF_ROLE,
    FGClip2Config,
    FGClip2TextConfig,
    FGClip2VisionConfig,
)
from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .layers import (
    MLP,
    Encoder,
    EncoderLayer,
    TextEmbeddings,
    attend,
    boxes_in_patches,
    check_heads,
    choose_walk,
    key_padding_mask,
    normalized_pooler_output,
    pool_regions,
)
from .loading import CheckedPreTrainedModel
from .weights import find_weights  # noqa: F401  # transformers 4 copies only what is named

logger = logging.get_logger(__name__)

# How the official checkpoints spell their class: folders that name it have processor files of other models.
_OFFICIAL_ARCHITECTURES = ["Fgclip2Model"]

# Log-scales of the region losses, as the official training checkpoints spell them. A training checkpoint has them; a
# model to use has no use for them.
TRAINING_SCALES = ("logit_scale_finegraind", "logit_scale_hardneg")
SCALES = ("logit_scale", "logit_bias", *TRAINING_SCALES)
_IGNORED_SCALES = [rf"^{name}$" for name in TRAINING_SCALES]
# The ranking stage of a folder that has one, which neither the dual encoder nor its towers need.
_RANKING_STAGE = r"^cross_encoder\."


@dataclass
class FGClip2Output(ModelOutput):
    """Output of [`FGClip2Model`].

    Args:
        loss: Shape (1,); the sigmoid loss of the batch, with `return_loss=True`.
        logits_per_image: Shape (images, texts); `exp(logit_scale) * cosine + logit_bias`.
        logits_per_text: The transpose, shape (texts, images).
        text_embeds: Shape (texts, D), L2-normalised.
        image_embeds: Shape (images, D), L2-normalised.
        text_model_output, vision_model_output: Outputs of the towers.
    """

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Layers
# ---------------------------------------------------------------------------------------------------------------------


class FGClip2PoolingAttention(nn.Module):
    """Attention of the pooling heads, with the parameter names of `nn.MultiheadAttention`.

    Not that class itself: its `out_proj` is never called, so adapters put on it would train nothing.
    """

    is_causal = False

    def __init__(self, config: FGClip2VisionConfig):
        super().__init__()
        width = config.hidden_size
        check_heads(width, config.num_attention_heads)
        self.config = config
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, query: Tensor, hidden_states: Tensor, mask: Tensor | None = None) -> Tensor:
        width = query.shape[-1]
        query = F.linear(query, self.in_proj_weight[:width], self.in_proj_bias[:width])
        key, value = F.linear(hidden_states, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        return self.out_proj(attend(self, query, key, value, mask))


class FGClip2EncoderLayer(EncoderLayer):
    """A layer of either tower."""


# ---------------------------------------------------------------------------------------------------------------------
# Position grids of the vision tower
# ---------------------------------------------------------------------------------------------------------------------


def antialiased_weights(index: Tensor, size: Tensor, source_size: int) -> Tensor:
    """Weights of antialiased bilinear resizing along one axis, as `F.interpolate(antialias=True)` has them.

    Args:
        index: Integer positions on the resized axis, shape (...).
        size: Length of the resized axis, broadcasts with `index`.
        source_size: Length of the source axis.

    Returns:
        Float32, shape (..., source_size); each row sums to 1.
    """
    scale = source_size / size.float()
    support = scale.clamp(min=1)
    source = torch.arange(source_size, device=index.device) + 0.5
    distance = (source - ((index + 0.5) * scale)[..., None]).abs()
    weights = (1 - distance / support[..., None]).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)


def resize_position_grid(table: Tensor, height: int, width: int) -> Tensor:
    """Resize a square position table to one grid.

    Args:
        table: Float32, shape (G, G, D).
        height, width: Size of the grid in patches.

    Returns:
        Shape (height * width, D), row-major.
    """
    if width == 1:
        # On such a grid the interpolation that the checkpoints were trained with is not separable.
        grid = F.interpolate(table.permute(2, 0, 1)[None], (height, width), mode="bilinear", antialias=True)
        return grid[0].flatten(1).T
    rows, columns = (
        antialiased_weights(
            torch.arange(size, device=table.device), torch.tensor(size, device=table.device), len(table)
        )
        for size in (height, width)
    )
    return torch.einsum("hi,wj,ijd->hwd", rows, columns, table).flatten(0, 1)


def position_grids(table: Tensor, spatial_shapes: Tensor, num_patches: int, places: Tensor | None = None) -> Tensor:
    """Resize a position table to the grid of each image, once per distinct grid.

    Args:
        table: Float32, shape (G, G, D).
        spatial_shapes: Integer, shape (B, 2), (height, width) of each grid in patches.
        num_patches: Patch slots N per image; slots past the grid get the position of its first patch.
        places: Integer, shape (B, N), the place in its grid of each patch; `None`: they are all there, in order.

    Returns:
        Shape (B, N, D).

    Raises:
        ValueError: A grid is empty or does not fit into `num_patches`.
    """
    if places is not None:
        num_patches = int(spatial_shapes.prod(dim=1).max())
    distinct, inverse = torch.unique(spatial_shapes.cpu(), dim=0, return_inverse=True)
    grids = []
    for height, width in distinct.tolist():
        if not 1 <= height * width <= num_patches:
            raise ValueError(
                f"spatial_shapes has the grid ({height}, {width}), but pixel_values has {num_patches} patches per image"
            )
        grid = resize_position_grid(table, height, width)
        grids.append(torch.cat([grid, grid[:1].expand(num_patches - height * width, -1)]))
    positions, inverse = torch.stack(grids), inverse.to(table.device)  # (distinct, N, D), (B,)
    # Both indices at once, so that no positions are made of patches that are not there.
    return positions[inverse] if places is None else positions[inverse[:, None], places]


def position_grids_traceable(
    table: Tensor, spatial_shapes: Tensor, num_patches: int, places: Tensor | None = None
) -> Tensor:
    """[`position_grids`] without data-dependent shapes, for `torch.compile`, `torch.export` and ONNX.

    Equal within 1e-6, but for grids one patch wide (see [`resize_position_grid`]).
    """
    height, width = spatial_shapes[:, :1], spatial_shapes[:, 1:]  # (B, 1)
    index = torch.arange(num_patches, device=table.device)[None] if places is None else places
    index = torch.where(index < height * width, index, 0)  # (B, N)
    rows = antialiased_weights(index // width, height, table.shape[0])  # (B, N, G)
    columns = antialiased_weights(index % width, width, table.shape[1])
    return (rows[..., :, None] * columns[..., None, :]).flatten(2) @ table.flatten(0, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Embeddings and heads
# ---------------------------------------------------------------------------------------------------------------------


class FGClip2TextEmbeddings(TextEmbeddings):
    """Token embeddings plus the position table of the walk."""


class FGClip2VisionEmbeddings(nn.Module):
    """A linear layer on flattened patches plus the position grid resized to each image."""

    def __init__(self, config: FGClip2VisionConfig):
        super().__init__()
        self.grid_size = math.isqrt(config.num_patches)
        if self.grid_size**2 != config.num_patches:
            raise ValueError(f"num_patches={config.num_patches} is not a square number")
        self.patch_embedding = nn.Linear(config.num_channels * config.patch_size**2, config.hidden_size)
        self.position_embedding = nn.Embedding(config.num_patches, config.hidden_size)

    def forward(self, pixel_values: Tensor, spatial_shapes: Tensor, places: Tensor | None = None) -> Tensor:
        weight = self.patch_embedding.weight
        embeddings = self.patch_embedding(pixel_values.to(weight.dtype))  # (B, N, D)
        # Called, not read: where weights are offloaded, the call fetches them. Interpolation stays in float32.
        table = self.position_embedding(torch.arange(self.grid_size**2, device=pixel_values.device))
        table = table.float().unflatten(0, (self.grid_size, self.grid_size))
        resize = position_grids_traceable if torch.compiler.is_compiling() else position_grids
        return embeddings + resize(table, spatial_shapes, pixel_values.shape[1], places).to(embeddings.dtype)


class FGClip2PoolingHead(nn.Module):
    """Attention pooling: one learned query over the valid patches; (B, N, D) -> (B, D)."""

    def __init__(self, config: FGClip2VisionConfig):
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.attention = FGClip2PoolingAttention(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def attend_and_mix(self, query: Tensor, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        attended = self.attention(query, hidden_states, mask)
        return attended + self.mlp(self.layernorm(attended))

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> Tensor:
        query = self.probe.expand(hidden_states.shape[0], -1, -1)
        return self.attend_and_mix(query, hidden_states, mask)[:, 0]


class FGClip2DenseFeatureHead(FGClip2PoolingHead):
    """The pooling head with every patch as its own query; (B, N, D) -> (B, N, D). Its `probe` is never used."""

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.attend_and_mix(hidden_states, hidden_states, mask)


# ---------------------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------------------


class FGClip2PreTrainedModel(CheckedPreTrainedModel):
    """Loading, saving and initialisation shared by the models."""

    config_class: type[PretrainedConfig] = FGClip2Config
    base_model_prefix = "fgclip2"
    supports_gradient_checkpointing = True
    _no_split_modules = [
        "FGClip2TextEmbeddings",
        "FGClip2VisionEmbeddings",
        "FGClip2EncoderLayer",
        "FGClip2PoolingHead",
        "FGClip2DenseFeatureHead",
    ]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = False
    _supports_attention_backend = True

    @classmethod
    def _advise(cls, model: PreTrainedModel, source: object) -> None:
        if model.config.architectures == _OFFICIAL_ARCHITECTURES:
            logger.warning_once(
                f"{source} is in the official layout. Its weights load as they should, but "
                "AutoProcessor, AutoTokenizer and AutoImageProcessor give classes of other models on it, silently "
                "wrong ones: use FGClip2Processor.from_pretrained, or rewrite the folder once with "
                "`fgclip2 convert FOLDER OUTPUT`"
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Only nn.init functions: transformers 5 patches these, and no others, to leave loaded weights alone.
        factor = getattr(self.config, "initializer_factor", 1.0)
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=factor * module.embedding_dim**-0.5)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, FGClip2PoolingAttention):
            nn.init.xavier_uniform_(module.in_proj_weight)
            nn.init.zeros_(module.in_proj_bias)
        elif isinstance(module, FGClip2PoolingHead):
            nn.init.xavier_uniform_(module.probe)
        elif isinstance(module, FGClip2Model):
            # SigLIP, section 3.1: a temperature of 10 and a bias of -10 start the loss near zero for the negatives.
            nn.init.constant_(module.logit_scale, math.log(10.0))
            nn.init.constant_(module.logit_bias, -10.0)


class FGClip2TextModel(FGClip2PreTrainedModel):
    """The text tower.

    Loads from its own checkpoints and from those of the full [`FGClip2Model`].
    """

    config_class = FGClip2TextConfig
    base_model_prefix = "text_model"
    main_input_name = "input_ids"
    _keys_to_ignore_on_load_unexpected = [
        r"^vision_model\.",
        r"^dense_feature_head\.",
        r"^(longtext|boxtext)_head\.",
        r"^logit_(scale|bias)$",
        _RANKING_STAGE,
        *_IGNORED_SCALES,
    ]

    def __init__(self, config: FGClip2TextConfig):
        super().__init__(config)
        self.embeddings = FGClip2TextEmbeddings(config)
        self.encoder = Encoder(config, FGClip2EncoderLayer)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.projection_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.token_embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.token_embedding = value

    def resolve_walk_type(self, input_ids: Tensor, walk_type: str | None) -> str:
        """Check ids against the walk; `None` means `long` for more tokens than `short` has positions, else `short`.

        Shorter texts than `short` has positions are warned of once.

        Raises:
            ValueError: The walk is unknown, or does not take so many tokens.
        """
        short, long = self.config.max_position_embeddings, self.config.longtext_len
        walk_type, length = choose_walk(input_ids, walk_type, short), input_ids.shape[1]
        if walk_type == "long" and length != long:
            raise ValueError(
                f"input_ids has {length} tokens per text, but walk_type='long' takes exactly {long}: "
                f"pad and truncate with padding='max_length', max_length={long}, truncation=True"
            )
        if walk_type != "long" and not 1 <= length <= short:
            raise ValueError(
                f"input_ids has {length} tokens per text, but walk_type={walk_type!r} takes 1 to {short}: "
                f"truncate to max_length={short}, or use walk_type='long' with {long} tokens"
            )
        if walk_type != "long" and length < short:
            # Padding is not masked, so it is part of what was trained on; other tokenizers' padding=True leaves it out.
            logger.warning_once(
                f"input_ids has texts of less than {short} tokens, whose vectors are others than those of texts padded "
                f"to {short} as in training: pad with padding='max_length', max_length={short}, truncation=True"
            )
        return walk_type

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        walk_type: str | None = None,
        output_hidden_states: bool = False,
    ) -> BaseModelOutputWithPooling:
        """Encode texts.

        Args:
            input_ids: Integer, shape (B, T); T at most 64 for `short` and `box`, exactly 196 for `long`.
            attention_mask: Shape (B, T), 1 for tokens to attend to. Checkpoints were trained without, pads attended.
            walk_type: `"short"`, `"long"`, `"box"`, or `None` (see [`resolve_walk_type`]).
            output_hidden_states: Also return every layer's output.

        Returns:
            `last_hidden_state` (B, T, D); `pooler_output`: the last position, which for `short` has been through the
            tower's head, shape (B, projection_size), and for `long` and `box` has not, shape (B, D): their heads
            belong to [`FGClip2Model`].
        """
        walk_type = self.resolve_walk_type(input_ids, walk_type)
        hidden_states = self.embeddings(input_ids, walk_type)
        mask = key_padding_mask(attention_mask, self.config._attn_implementation)
        hidden_states, all_hidden_states = self.encoder(hidden_states, mask, output_hidden_states)
        last_hidden_state = self.final_layer_norm(hidden_states)
        pooled = last_hidden_state[:, -1]  # (B, D)
        return BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state,
            pooler_output=self.head(pooled) if walk_type == "short" else pooled,
            hidden_states=all_hidden_states,
        )


def patchify(pixel_values: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Cut square images into flattened patches, as the image processor does for NaFlex inputs.

    Args:
        pixel_values: Shape (B, C, H, W), H and W multiples of `patch_size`.
        patch_size: Side of a patch in pixels.

    Returns:
        Patches (B, N, patch_size * patch_size * C), row-major, and the grids (B, 2).

    Raises:
        ValueError: H or W is no multiple of `patch_size`.
    """
    batch, _, height, width = pixel_values.shape
    if height % patch_size or width % patch_size or not height or not width:
        raise ValueError(f"pixel_values has images of {height}x{width}; sides must be multiples of {patch_size}")
    grid = (height // patch_size, width // patch_size)
    patches = pixel_values.unflatten(3, (grid[1], patch_size)).unflatten(2, (grid[0], patch_size))  # (B, C, h, p, w, p)
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return patches, torch.tensor([grid], device=pixel_values.device).expand(batch, -1)


class FGClip2VisionModel(FGClip2PreTrainedModel):
    """The vision tower.

    Loads from its own checkpoints and from those of the full [`FGClip2Model`].
    """

    config_class = FGClip2VisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    _keys_to_ignore_on_load_unexpected = [
        r"^text_model\.",
        r"^dense_feature_head\.",
        r"^(longtext|boxtext)_head\.",
        r"^logit_(scale|bias)$",
        _RANKING_STAGE,
        *_IGNORED_SCALES,
    ]

    def __init__(self, config: FGClip2VisionConfig):
        super().__init__(config)
        self.embeddings = FGClip2VisionEmbeddings(config)
        self.encoder = Encoder(config, FGClip2EncoderLayer)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = FGClip2PoolingHead(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embedding

    def prepare_patches(
        self, pixel_values: Tensor, pixel_attention_mask: Tensor | None, spatial_shapes: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Accept patches (B, N, P) with their grids, or plain images (B, C, H, W), and return patches, mask and grids.

        Raises:
            ValueError: The shapes do not fit each other.
        """
        if pixel_values.ndim == 4:
            pixel_values, spatial_shapes = patchify(pixel_values, self.config.patch_size)
            return pixel_values, None, spatial_shapes
        if pixel_values.ndim != 3:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; allowed: patches (images, patches, values) or "
                "plain images (images, channels, height, width)"
            )
        if spatial_shapes is None:
            raise ValueError("spatial_shapes is missing: pass what the image processor returned beside pixel_values")
        if tuple(spatial_shapes.shape) != (pixel_values.shape[0], 2):
            raise ValueError(
                f"spatial_shapes has shape {tuple(spatial_shapes.shape)}; allowed: {(pixel_values.shape[0], 2)}"
            )
        return pixel_values, pixel_attention_mask, spatial_shapes

    def forward(
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> BaseModelOutputWithPooling:
        """Encode images.

        Args:
            pixel_values: Patches (B, N, 768) of the image processor, or plain images (B, 3, H, W).
            pixel_attention_mask: Shape (B, N), 1 for real patches.
            spatial_shapes: Integer, shape (B, 2), (height, width) of each grid in patches.
            output_hidden_states: Also return every layer's output, that of the embeddings before them.
            return_dict: `False` returns a plain tuple, as for any model of transformers.

        Returns:
            `last_hidden_state` (B, N, D), `pooler_output` (B, D) not normalised.
        """
        pixel_values, pixel_attention_mask, spatial_shapes = self.prepare_patches(
            pixel_values, pixel_attention_mask, spatial_shapes
        )
        hidden_states = self.embeddings(pixel_values, spatial_shapes)
        mask = key_padding_mask(pixel_attention_mask, self.config._attn_implementation)
        hidden_states, all_hidden_states = self.encoder(hidden_states, mask, output_hidden_states)
        last_hidden_state = self.post_layernorm(hidden_states)
        outputs = BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state,
            pooler_output=self.head(last_hidden_state, mask),
            hidden_states=all_hidden_states,
        )
        return outputs if return_dict else outputs.to_tuple()  # type: ignore[return-value]  # annotated as what comes by default


class FGClip2Model(FGClip2PreTrainedModel):
    """FG-CLIP 2: image, text, dense and region features in one embedding space.

    Official checkpoints load as they are. Load their processor by `FGClip2Processor.from_pretrained`, or rewrite the
    folder once with `fgclip2 convert`: on an official folder transformers' `AutoProcessor`, `AutoTokenizer` and
    `AutoImageProcessor` give classes of other models, whose results are silently wrong.

    Example:
        >>> import torch
        >>> from fgclip2 import FGClip2Model, FGClip2Processor
        >>> model, processor = FGClip2Model.from_pretrained(path), FGClip2Processor.from_pretrained(path)
        >>> inputs = processor(text=["a red apple", "一只狗"], images=[image], return_tensors="pt")
        >>> with torch.no_grad():
        ...     logits = model(**inputs).logits_per_image  # (1, 2)
        >>> probabilities = logits.sigmoid()
    """

    config_class = FGClip2Config
    main_input_name = "pixel_values"
    _keys_to_ignore_on_load_unexpected = [r"position_ids$", _RANKING_STAGE, *_IGNORED_SCALES]

    # How the package's other parts, which know no family by name, compare the embeddings of this one.
    score_function = "sigmoid"
    region_logit_scale = 100.0  # the released code compares regions with texts by a softmax at this scale

    def __init__(self, config: FGClip2Config):
        super().__init__(config)
        text_config, vision_config = config.text_config, config.vision_config
        if text_config.projection_size != vision_config.hidden_size:
            raise ValueError(
                f"text_config.projection_size={text_config.projection_size} must equal "
                f"vision_config.hidden_size={vision_config.hidden_size}, the width of the embedding space"
            )
        # _from_config lets attn_implementation reach the towers.
        self.text_model = FGClip2TextModel._from_config(text_config)
        self.vision_model = FGClip2VisionModel._from_config(vision_config)
        self.dense_feature_head = FGClip2DenseFeatureHead(self.vision_model.config)
        self.longtext_head = nn.Linear(text_config.hidden_size, text_config.projection_size)
        self.boxtext_head = nn.Linear(text_config.hidden_size, text_config.projection_size)
        self.logit_scale = nn.Parameter(torch.empty(1))
        self.logit_bias = nn.Parameter(torch.empty(1))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.text_model.set_input_embeddings(value)

    @property
    def embedding_size(self) -> int:
        """Length D of the embeddings."""
        return self.config.vision_config.hidden_size

    def get_score_scale_and_bias(self) -> tuple[float, float]:
        """Return what `score_function` takes: scale * cosine + bias."""
        return math.exp(self.logit_scale.item()), self.logit_bias.item()

    def get_role_features(self, role: str, input_ids: Tensor) -> torch.FloatTensor:
        """Embed texts by what they are to the model: `"caption"`, `"long_caption"` or `"region_phrase"`.

        Args:
            role: Decides the walk, and with it how many tokens each text has.
            input_ids: Integer, shape (B, T), from `FGClip2Processor.tokenize` with the same role.

        Returns:
            Shape (B, projection_size), not normalised.
        """
        return self.get_text_features(input_ids, None, WALK_OF_ROLE[role])

    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        walk_type: str | None = None,
        return_dict: bool = False,
    ) -> torch.FloatTensor:
        """Embed texts.

        Args:
            input_ids: Integer, shape (B, T), from the tokenizer with the same `walk_type`.
            attention_mask: Shape (B, T); leave it out, as in training, unless you know why not.
            walk_type: `"short"` (64 tokens), `"long"` (196), `"box"` (64, for region phrases); `None`: by length.
            return_dict: Return transformers' output class, with the features as `pooler_output`.

        Returns:
            Shape (B, projection_size), not normalised.

        Raises:
            ValueError: The walk is unknown, or does not take so many tokens.
        """
        outputs = self._encode_texts(input_ids, attention_mask, walk_type)
        # Annotated as what comes by default: other libraries read the annotation.
        return outputs if return_dict else outputs.pooler_output  # type: ignore[return-value]

    def _encode_texts(
        self, input_ids: Tensor, attention_mask: Tensor | None, walk_type: str | None
    ) -> BaseModelOutputWithPooling:
        """The text tower's output with `pooler_output` through the head of the walk."""
        walk_type = self.text_model.resolve_walk_type(input_ids, walk_type)
        outputs = self.text_model(input_ids, attention_mask, walk_type)
        if walk_type == "long":
            outputs.pooler_output = self.longtext_head(outputs.pooler_output)
        elif walk_type == "box":
            outputs.pooler_output = self.boxtext_head(outputs.pooler_output)
        return outputs

    def get_image_features(
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        return_dict: bool = False,
    ) -> torch.FloatTensor:
        """Embed images.

        Args:
            pixel_values: Patches (B, N, 768) of the image processor, or plain images (B, 3, H, W).
            pixel_attention_mask: Shape (B, N), 1 for real patches.
            spatial_shapes: Integer, shape (B, 2), (height, width) of each grid in patches.
            return_dict: Return transformers' output class, with the features as `pooler_output`.

        Returns:
            Shape (B, D), not normalised.
        """
        outputs = self.vision_model(pixel_values, pixel_attention_mask, spatial_shapes)
        return outputs if return_dict else outputs.pooler_output

    def get_image_dense_feature(
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
    ) -> torch.FloatTensor:
        """Embed every patch; compare with texts of the walk `box`. Arguments as in [`get_image_features`].

        Returns:
            Shape (B, N, D), not normalised; rows of padded slots have no meaning.
        """
        return self.get_image_and_dense_features(pixel_values, pixel_attention_mask, spatial_shapes)[1]

    def get_image_and_dense_features(
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """Embed images and every patch of them in one pass. Arguments as in [`get_image_features`].

        Returns:
            What [`get_image_features`] and [`get_image_dense_feature`] return: (B, D) and (B, N, D).
        """
        pixel_values, pixel_attention_mask, spatial_shapes = self.vision_model.prepare_patches(
            pixel_values, pixel_attention_mask, spatial_shapes
        )
        outputs = self.vision_model(pixel_values, pixel_attention_mask, spatial_shapes)
        mask = key_padding_mask(pixel_attention_mask, self.vision_model.config._attn_implementation)
        return outputs.pooler_output, self.dense_feature_head(outputs.last_hidden_state, mask)

    def get_patch_grids(
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
    ) -> Tensor:
        """Return the grids of patches that images are: integers (B, 2), (height, width) of each.

        The arguments are those of [`get_image_features`].
        """
        return self.vision_model.prepare_patches(pixel_values, pixel_attention_mask, spatial_shapes)[2]

    def get_image_region_features(
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        region_infos: Sequence[Sequence[Sequence[float]]] | None = None,
    ) -> list[torch.FloatTensor]:
        """Embed regions; compare with texts of the walk `box`. The first arguments are as in [`get_image_features`].

        Args:
            image_sizes: (height, width) in pixels of each source image, in which its boxes are given.
            region_infos: For each image its boxes, (x1, y1, x2, y2) in pixels; may be empty.

        Returns:
            For each image (R_i, D), not normalised: RoIAlign (1 x 1, aligned) on the dense features. Parts of a box
            outside the image count as zero as RoIAlign has it; a box of no area gives zeros.

        Raises:
            ValueError: `image_sizes` or `region_infos` do not fit the images.
        """
        pixel_values, pixel_attention_mask, spatial_shapes = self.vision_model.prepare_patches(
            pixel_values, pixel_attention_mask, spatial_shapes
        )
        if region_infos is None or image_sizes is None:
            raise ValueError("pass region_infos (boxes of each image) and image_sizes ((height, width) of each image)")
        boxes = boxes_in_patches(region_infos, image_sizes, spatial_shapes)
        dense_features = self.get_image_dense_feature(pixel_values, pixel_attention_mask, spatial_shapes)
        regions = pool_regions(dense_features, spatial_shapes, boxes)  # (B, R, D)
        return [features[: len(image_boxes)] for features, image_boxes in zip(regions, region_infos, strict=True)]

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        attention_mask: Tensor | None = None,
        walk_type: str | None = None,
        return_loss: bool | None = None,
    ) -> FGClip2Output:
        """Embed images, texts or both; with both, compare every image with every text.

        Arguments are those of [`get_text_features`] and [`get_image_features`].

        Args:
            return_loss: Also return the sigmoid loss of the batch, image i belonging to text i.

        Raises:
            ValueError: Neither images nor texts are given, or `return_loss` with unequal numbers of them.
        """
        if input_ids is None and pixel_values is None:
            raise ValueError("pass input_ids, pixel_values or both")
        vision_outputs: BaseModelOutputWithPooling | None = None
        text_outputs: BaseModelOutputWithPooling | None = None
        image_embeds = text_embeds = logits = None
        if pixel_values is not None:
            vision_outputs = self.vision_model(pixel_values, pixel_attention_mask, spatial_shapes)
            image_embeds = normalized_pooler_output(vision_outputs)
        if input_ids is not None:
            text_outputs = self._encode_texts(input_ids, attention_mask, walk_type)
            text_embeds = normalized_pooler_output(text_outputs)
        if image_embeds is not None and text_embeds is not None:
            cosines = text_embeds @ image_embeds.T.to(text_embeds.device)  # (texts, images)
            logits = cosines * self.logit_scale.exp().to(cosines.device) + self.logit_bias.to(cosines.device)
        # All at once: a field set later is an attribute of a ModelOutput, but not one of its items.
        return FGClip2Output(
            loss=_pairwise_sigmoid_loss(logits) if return_loss else None,
            logits_per_image=None if logits is None else logits.T,
            logits_per_text=logits,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=text_outputs,
            vision_model_output=vision_outputs,
        )


def _pairwise_sigmoid_loss(logits: Tensor | None) -> Tensor:
    """Equation 1 of SigLIP for logits (B, B): the sum over all pairs divided by B."""
    if logits is None or logits.shape[0] != logits.shape[1]:
        shape = None if logits is None else tuple(logits.shape)
        raise ValueError(f"return_loss=True needs as many texts as images, but (texts, images) is {shape}")
    signs = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1
    return -F.logsigmoid(signs * logits).sum(-1).mean()


__all__ = [
    "FGClip2Model",
    "FGClip2Output",
    "FGClip2PreTrainedModel",
    "FGClip2TextModel",
    "FGClip2VisionModel",
    "pool_regions",
]
