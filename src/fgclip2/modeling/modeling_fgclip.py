"""The FG-CLIP model: CLIP's two towers with a second head for long texts, dense features, and regions of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput

from .configuration_fgclip import WALK_OF_ROLE, FGClipConfig, FGClipTextConfig, FGClipVisionConfig
from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .layers import (
    Encoder,
    EncoderLayer,
    ImageEmbeddings,
    TextEmbeddings,
    boxes_in_patches,
    choose_walk,
    key_padding_mask,
    normalized_pooler_output,
    pool_regions,
)
from .loading import CheckedPreTrainedModel
from .weights import find_weights  # noqa: F401  # transformers 4 copies only what is named

# Log-scales of images and texts, of regions, and of hard negatives, as the official checkpoints spell them.
SCALES = ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg")


@dataclass
class FGClipOutput(ModelOutput):
    """Output of [`FGClipModel`].

    Args:
        loss: Scalar; the symmetric contrastive loss of the batch, with `return_loss=True`.
        logits_per_image: Shape (images, texts); `exp(logit_scale) * cosine`.
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


class FGClipEncoderLayer(EncoderLayer):
    """A layer of either tower."""

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None, mixes_positions: bool = True) -> Tensor:
        """Return (B, N, D) of (B, N, D); without `mixes_positions` each position attends to itself alone."""
        if mixes_positions:
            return super().forward(hidden_states, mask)
        values = self.self_attn.v_proj(self.layer_norm1(hidden_states))
        hidden_states = hidden_states + self.self_attn.out_proj(values)
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class FGClipTextEmbeddings(TextEmbeddings):
    """Token embeddings plus the position table of the walk."""


class FGClipVisionEmbeddings(ImageEmbeddings):
    """A class token and patches, plus the position table."""

    remedy = f"{ImageEmbeddings.remedy}, or pass interpolate_pos_encoding=True"


# ---------------------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------------------


class FGClipPreTrainedModel(CheckedPreTrainedModel):
    """Loading, saving and initialisation shared by the models."""

    config_class: type[PretrainedConfig] = FGClipConfig
    base_model_prefix = "fgclip"
    supports_gradient_checkpointing = True
    _no_split_modules = ["FGClipTextEmbeddings", "FGClipVisionEmbeddings", "FGClipEncoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = False
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Only nn.init functions: transformers 5 patches these, and no others, to leave loaded weights alone.
        factor = getattr(self.config, "initializer_factor", 1.0)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=factor * module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.Embedding, nn.Conv2d)):
            nn.init.normal_(module.weight, std=factor * 0.02)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, FGClipVisionEmbeddings):
            nn.init.normal_(module.class_embedding, std=factor * len(module.class_embedding) ** -0.5)
        elif isinstance(module, FGClipModel):
            for name in SCALES:
                nn.init.constant_(getattr(module, name), module.config.logit_scale_init_value)


class FGClipTextModel(FGClipPreTrainedModel):
    """The text tower.

    Loads from its own checkpoints and from those of the full [`FGClipModel`].
    """

    config_class = FGClipTextConfig
    base_model_prefix = "text_model"
    main_input_name = "input_ids"
    _keys_to_ignore_on_load_unexpected = [
        r"^vision_model\.",
        r"position_ids$",
        r"^(text|text_filip|visual)_projection\.",
        r"^logit_scale",
    ]
    _never_made = ("embeddings.position_embedding_res.weight",)  # which stock CLIP lacks

    def __init__(self, config: FGClipTextConfig):
        super().__init__(config)
        self.embeddings = FGClipTextEmbeddings(config)
        self.encoder = Encoder(config, FGClipEncoderLayer, is_causal=True)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.token_embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.token_embedding = value

    def resolve_walk_type(self, input_ids: Tensor, walk_type: str | None) -> str:
        """Check ids against the walk; `None` means `long` for more tokens than `short` has positions, else `short`.

        Raises:
            ValueError: The walk is unknown, or does not take so many tokens.
        """
        short, long = self.config.max_position_embeddings, self.config.longtext_len
        walk_type, length = choose_walk(input_ids, walk_type, short), input_ids.shape[1]
        most = long if walk_type == "long" else short
        if not 1 <= length <= most:
            remedy = f"truncate to max_length={most}" + (
                f", or use walk_type='long' with up to {long} tokens" if walk_type != "long" else ""
            )
            raise ValueError(
                f"input_ids has {length} tokens per text, but walk_type={walk_type!r} takes 1 to {most}: {remedy}"
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
            input_ids: Integer, shape (B, T); T at most 77 for `short` and `box`, 248 for `long`. What follows the first
                end token changes nothing, so texts need no padding but to equal lengths.
            attention_mask: Shape (B, T), 1 for tokens to attend to. Padding behind the end token needs none.
            walk_type: `"short"`, `"long"`, `"box"` (the same as `"short"`), or `None` (see [`resolve_walk_type`]).
            output_hidden_states: Also return every layer's output.

        Returns:
            `last_hidden_state` (B, T, D); `pooler_output` (B, D): the position of the first end token, or the first
            position if there is none. The heads belong to [`FGClipModel`].
        """
        walk_type = self.resolve_walk_type(input_ids, walk_type)
        hidden_states = self.embeddings(input_ids, walk_type)
        mask = key_padding_mask(attention_mask, self.config._attn_implementation, is_causal=True)
        hidden_states, all_hidden_states = self.encoder(hidden_states, mask, output_hidden_states)
        last_hidden_state = self.final_layer_norm(hidden_states)
        end = (input_ids == self.config.eos_token_id).int().argmax(-1)  # (B,), the first of them
        return BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state,
            pooler_output=last_hidden_state[torch.arange(len(end), device=end.device), end],  # (B, D)
            hidden_states=all_hidden_states,
        )


class FGClipVisionModel(FGClipPreTrainedModel):
    """The vision tower.

    Loads from its own checkpoints and from those of the full [`FGClipModel`].
    """

    config_class = FGClipVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    _keys_to_ignore_on_load_unexpected = [
        r"^text_model\.",
        r"position_ids$",
        r"^(text|text_filip|visual)_projection\.",
        r"^logit_scale",
    ]

    def __init__(self, config: FGClipVisionConfig):
        super().__init__(config)
        self.embeddings = FGClipVisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # spelt as in CLIP's weights
        self.encoder = Encoder(config, FGClipEncoderLayer)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embedding

    def forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> BaseModelOutputWithPooling:
        """Encode images.

        Args:
            pixel_values: Shape (B, 3, S, S), S being `config.image_size`.
            interpolate_pos_encoding: Take images of other sizes too, with the position table resized to their grid.
            output_hidden_states: Also return every layer's output, that of the first norm before them.
            return_dict: `False` returns a plain tuple, as for any model of transformers.

        Returns:
            `last_hidden_state` (B, 1 + N, D), not normalised; `pooler_output` (B, D): the normalised class token.
        """
        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values, interpolate_pos_encoding))
        hidden_states, all_hidden_states = self.encoder(hidden_states, None, output_hidden_states)
        outputs = BaseModelOutputWithPooling(
            last_hidden_state=hidden_states,
            pooler_output=self.post_layernorm(hidden_states[:, 0]),
            hidden_states=all_hidden_states,
        )
        return outputs if return_dict else outputs.to_tuple()  # type: ignore[return-value]  # annotated as what comes by default

    def encode_patches(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """Encode images patch by patch: in the last layer, each attends to itself alone. Arguments as in [`forward`].

        Returns:
            Shape (B, N, D), row-major, through the last norm.
        """
        return self.finish_patches(self._before_the_last_layer(pixel_values, interpolate_pos_encoding))

    def encode_images_and_patches(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return `pooler_output` of [`forward`], (B, D), and what [`encode_patches`] returns, (B, N, D), in one pass.

        From the last layer on, images and their patches go different ways.
        """
        hidden_states = self._before_the_last_layer(pixel_values, interpolate_pos_encoding)
        pooled = self.post_layernorm(self.encoder.layers[-1](hidden_states)[:, 0])  # (B, D)
        return pooled, self.finish_patches(hidden_states)

    def _before_the_last_layer(self, pixel_values: Tensor, interpolate_pos_encoding: bool) -> Tensor:
        """Return what the last layer takes, (B, 1 + N, D)."""
        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values, interpolate_pos_encoding))
        for layer in self.encoder.layers[:-1]:
            hidden_states = layer(hidden_states)
        return hidden_states

    def finish_patches(self, hidden_states: Tensor) -> Tensor:
        """Encode images patch by patch from what the last layer takes, (B, 1 + N, D); returns (B, N, D)."""
        hidden_states = self.encoder.layers[-1](hidden_states, mixes_positions=False)
        return self.post_layernorm(hidden_states[:, 1:])  # (B, 1 + N, D) -> (B, N, D)


class FGClipModel(FGClipPreTrainedModel):
    """FG-CLIP, the first version: image, text, dense and region features in one embedding space.

    Official checkpoints load as they are, together with [`FGClipProcessor`]. Images become squares, whatever their
    aspect ratio.

    Example:
        >>> import torch
        >>> from fgclip2 import FGClipModel, FGClipProcessor
        >>> model, processor = FGClipModel.from_pretrained(path), FGClipProcessor.from_pretrained(path)
        >>> inputs = processor(text=["a photo of a cat", "a photo of a dog"], images=[image])
        >>> with torch.no_grad():
        ...     logits = model(**inputs).logits_per_image  # (1, 2)
        >>> probabilities = logits.softmax(-1)
    """

    config_class = FGClipConfig
    main_input_name = "pixel_values"
    _keys_to_ignore_on_load_unexpected = [r"position_ids$"]
    _never_made = ("text_filip_projection.weight",)  # which stock CLIP lacks

    # How the package's other parts, which know no family by name, compare the embeddings of this one.
    score_function = "softmax"
    region_logit_scale = 100.0  # the released code compares regions with texts by a softmax at this scale

    def __init__(self, config: FGClipConfig):
        super().__init__(config)
        text_config, vision_config = config.text_config, config.vision_config
        # _from_config lets attn_implementation reach the towers.
        self.text_model = FGClipTextModel._from_config(text_config)
        self.vision_model = FGClipVisionModel._from_config(vision_config)
        self.visual_projection = nn.Linear(vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
        self.text_filip_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_scale_finegraind = nn.Parameter(torch.empty(()))
        self.logit_scale_hardneg = nn.Parameter(torch.empty(()))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.text_model.set_input_embeddings(value)

    @property
    def embedding_size(self) -> int:
        """Length D of the embeddings."""
        return self.config.projection_dim

    def get_score_scale_and_bias(self) -> tuple[float, float]:
        """Return what `score_function` takes: scale * cosine + bias."""
        return math.exp(self.logit_scale.item()), 0.0

    def get_role_features(self, role: str, input_ids: Tensor) -> torch.FloatTensor:
        """Embed texts by what they are to the model: `"caption"`, `"long_caption"` or `"region_phrase"`.

        Args:
            role: Decides the walk.
            input_ids: Integer, shape (B, T), from `FGClipProcessor.tokenize` with the same role.

        Returns:
            Shape (B, D), not normalised.
        """
        return self.get_text_features(input_ids, None, WALK_OF_ROLE[role])

    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        walk_type: str | None = None,
        walk_short_pos: bool | None = None,
        use_bbox: bool = False,
        return_dict: bool = False,
    ) -> torch.FloatTensor:
        """Embed texts.

        Args:
            input_ids: Integer, shape (B, T), padded or not: what follows a text's end token changes nothing.
            attention_mask: Shape (B, T); padding behind the end token needs none.
            walk_type: `"short"` (up to 77 tokens), `"long"` (up to 248), `"box"` (for region phrases, the same as
                `"short"`); `None`: `"long"` for more than 77 tokens, else `"short"`. A text of fewer that is meant for
                the head of long texts needs `"long"`.
            walk_short_pos, use_bbox: The official code's arguments in place of `walk_type`: `walk_short_pos=False` is
                `"long"`, `True` is `"short"`; with `use_bbox=True` positions are those of short texts in either case.
            return_dict: Return transformers' output class, with the features as `pooler_output`.

        Returns:
            Shape (B, D), not normalised.

        Raises:
            ValueError: The walk is unknown, does not take so many tokens, or is given in both ways.
        """
        if walk_type is not None and (walk_short_pos is not None or use_bbox):
            raise ValueError(
                f"pass walk_type={walk_type!r}, or walk_short_pos and use_bbox as in the official code, but not both"
            )
        head = walk_type
        if walk_short_pos is not None or use_bbox:
            head = "long" if walk_short_pos is False else "short"
            walk_type = "box" if use_bbox else head
        outputs = self._encode_texts(input_ids, attention_mask, walk_type, head)
        # Annotated as what comes by default: other libraries read the annotation.
        return outputs if return_dict else outputs.pooler_output  # type: ignore[return-value]

    def _encode_texts(
        self, input_ids: Tensor, attention_mask: Tensor | None, walk_type: str | None, head: str | None
    ) -> BaseModelOutputWithPooling:
        """Return the text tower's output with `pooler_output` through a head; `None`: that of the walk."""
        walk_type = self.text_model.resolve_walk_type(input_ids, walk_type)
        outputs = self.text_model(input_ids, attention_mask, walk_type)
        project = self.text_filip_projection if (head or walk_type) == "long" else self.text_projection
        outputs.pooler_output = project(outputs.pooler_output)
        return outputs

    def get_image_features(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, return_dict: bool = False
    ) -> torch.FloatTensor:
        """Embed images.

        Args:
            pixel_values: Shape (B, 3, S, S), from the image processor.
            interpolate_pos_encoding: Take images of other sizes too, with the position table resized to their grid.
            return_dict: Return transformers' output class, with the features as `pooler_output`.

        Returns:
            Shape (B, D), not normalised.

        Raises:
            ValueError: The model does not take images of this size.
        """
        outputs = self._encode_images(pixel_values, interpolate_pos_encoding)
        return outputs if return_dict else outputs.pooler_output  # type: ignore[return-value]

    def _encode_images(self, pixel_values: Tensor, interpolate_pos_encoding: bool) -> BaseModelOutputWithPooling:
        """Return the vision tower's output with `pooler_output` through the head."""
        outputs = self.vision_model(pixel_values, interpolate_pos_encoding)
        outputs.pooler_output = self.visual_projection(outputs.pooler_output)
        return outputs

    def get_image_dense_feature(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False
    ) -> torch.FloatTensor:
        """Embed every patch; compare with texts of the walk `box`. Arguments as in [`get_image_features`].

        Returns:
            Shape (B, N, D), row-major, not normalised.
        """
        return self.visual_projection(self.vision_model.encode_patches(pixel_values, interpolate_pos_encoding))

    def get_image_and_dense_features(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """Embed images and every patch of them in one pass. Arguments as in [`get_image_features`].

        Returns:
            What [`get_image_features`] and [`get_image_dense_feature`] return: (B, D) and (B, N, D).
        """
        pooled, patches = self.vision_model.encode_images_and_patches(pixel_values, interpolate_pos_encoding)
        return self.visual_projection(pooled), self.visual_projection(patches)

    def get_image_dense_features(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, box_info: Any = None
    ) -> torch.FloatTensor:
        """Call [`get_image_dense_feature`] by the official code's name; `box_info` means nothing, there and here."""
        return self.get_image_dense_feature(pixel_values, interpolate_pos_encoding)

    def get_image_region_features(
        self,
        pixel_values: Tensor,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        region_infos: Sequence[Sequence[Sequence[float]]] | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> list[torch.FloatTensor]:
        """Embed regions; compare with texts of the walk `box`. The other arguments are those of [`get_image_features`].

        Args:
            image_sizes: (height, width) in pixels of each source image, in which its boxes are given.
            region_infos: For each image its boxes, (x1, y1, x2, y2) in pixels; may be empty.

        Returns:
            For each image (R_i, D), float32, not normalised: RoIAlign (1 x 1, aligned) on the dense features. Parts of
            a box outside the image count as zero as RoIAlign has it; a box of no area gives zeros.

        Raises:
            ValueError: `image_sizes` or `region_infos` do not fit the images.
        """
        if region_infos is None or image_sizes is None:
            raise ValueError("pass region_infos (boxes of each image) and image_sizes ((height, width) of each image)")
        boxes = boxes_in_patches(region_infos, image_sizes, self.get_patch_grids(pixel_values))
        regions = self._pool(pixel_values, boxes, interpolate_pos_encoding)  # (B, R, D)
        return [features[: len(image_boxes)] for features, image_boxes in zip(regions, region_infos, strict=True)]

    def get_image_box_roi_features(self, pixel_values: Tensor, box_info: Tensor | Sequence[Tensor]) -> Tensor:
        """Embed regions as the official code does, by boxes in units of patches.

        Args:
            pixel_values: As in [`get_image_features`].
            box_info: For each image a tensor (R_i, 4) of (x1, y1, x2, y2), or one tensor (K, 5) whose rows begin with
                the index of their image.

        Returns:
            Shape (K, D), float32, not normalised, in the order of the boxes.

        Raises:
            ValueError: `box_info` is neither, or names an image that there is not.
        """
        images, boxes = _rows_of_boxes(box_info, len(pixel_values))
        images, boxes = images.to(pixel_values.device), boxes.to(pixel_values.device, torch.float32)
        # How many boxes of the same image come before each: its place among them.
        of_image = F.one_hot(images, len(pixel_values)).cumsum(0)  # (K, B)
        place = of_image.gather(1, images[:, None])[:, 0] - 1  # (K,)
        slots = boxes.new_zeros(len(pixel_values), int(place.max()) + 1 if len(place) else 0, 4)  # (B, R, 4)
        slots[images, place] = boxes
        return self._pool(pixel_values, slots, False)[images, place]

    def get_patch_grids(self, pixel_values: Tensor) -> Tensor:
        """Return the grids of patches that images are: integers (B, 2), (height, width) of each."""
        size = self.config.vision_config.patch_size
        grid = [side // size for side in pixel_values.shape[-2:]]
        return torch.tensor([grid], device=pixel_values.device).expand(len(pixel_values), -1)

    def _pool(self, pixel_values: Tensor, boxes: Tensor, interpolate_pos_encoding: bool) -> Tensor:
        """Pool boxes (B, R, 4), in patches, from the dense features, in float32: (B, R, D)."""
        dense_features = self.get_image_dense_feature(pixel_values, interpolate_pos_encoding)
        return pool_regions(dense_features.float(), self.get_patch_grids(pixel_values), boxes)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        walk_type: str | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> FGClipOutput:
        """Embed images, texts or both; with both, compare every image with every text.

        Arguments are those of [`get_text_features`] and [`get_image_features`].

        Args:
            walk_type: `"short"`, `"long"` or `"box"`. `None` is `"short"` for up to 77 tokens; more have, as in the
                official code, positions of long texts and the head of short ones, which were never trained together.
            return_loss: Also return the symmetric contrastive loss of the batch, image i belonging to text i.

        Raises:
            ValueError: Neither images nor texts are given, or `return_loss` with unequal numbers of them.
        """
        if input_ids is None and pixel_values is None:
            raise ValueError("pass input_ids, pixel_values or both")
        vision_outputs: BaseModelOutputWithPooling | None = None
        text_outputs: BaseModelOutputWithPooling | None = None
        image_embeds = text_embeds = logits = None
        if pixel_values is not None:
            vision_outputs = self._encode_images(pixel_values, interpolate_pos_encoding)
            image_embeds = normalized_pooler_output(vision_outputs)
        if input_ids is not None:
            text_outputs = self._encode_texts(input_ids, attention_mask, walk_type, walk_type or "short")
            text_embeds = normalized_pooler_output(text_outputs)
        if image_embeds is not None and text_embeds is not None:
            cosines = text_embeds @ image_embeds.T.to(text_embeds.device)  # (texts, images)
            logits = cosines * self.logit_scale.exp().to(cosines.device)
        # All at once: a field set later is an attribute of a ModelOutput, but not one of its items.
        return FGClipOutput(
            loss=_contrastive_loss(logits) if return_loss else None,
            logits_per_image=None if logits is None else logits.T,
            logits_per_text=logits,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=text_outputs,
            vision_model_output=vision_outputs,
        )


def _rows_of_boxes(box_info: Tensor | Sequence[Tensor], num_images: int) -> tuple[Tensor, Tensor]:
    """Return of the official code's boxes the image (K,) and the corners (K, 4) of each."""
    if isinstance(box_info, Tensor):
        if box_info.ndim != 2 or box_info.shape[1] != 5:
            raise ValueError(f"box_info has shape {tuple(box_info.shape)}; allowed: (boxes, 5), the image first")
        images, boxes = box_info[:, 0].long(), box_info[:, 1:]
    else:
        if len(box_info) != num_images:
            raise ValueError(f"box_info has {len(box_info)} entries for {num_images} images; allowed: one for each")
        rows = [torch.as_tensor(image_boxes).reshape(-1, 4) for image_boxes in box_info]
        images = torch.repeat_interleave(torch.arange(num_images), torch.tensor([len(boxes) for boxes in rows]))
        boxes = torch.cat(rows)
    if len(images) and not 0 <= int(images.min()) <= int(images.max()) < num_images:
        raise ValueError(f"box_info names the images {sorted(set(images.tolist()))}, but there are {num_images}")
    return images, boxes


def _contrastive_loss(logits: Tensor | None) -> Tensor:
    """Return the mean cross-entropy of texts over images and of images over texts for logits (B, B)."""
    if logits is None or logits.shape[0] != logits.shape[1]:
        shape = None if logits is None else tuple(logits.shape)
        raise ValueError(f"return_loss=True needs as many texts as images, but (texts, images) is {shape}")
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


__all__ = [
    "SCALES",
    "FGClipModel",
    "FGClipOutput",
    "FGClipPreTrainedModel",
    "FGClipTextModel",
    "FGClipVisionModel",
]
