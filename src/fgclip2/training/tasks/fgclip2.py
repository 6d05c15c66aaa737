"""FG-CLIP 2 in training: its model with one forward for all embeddings, and what the other files ask of it."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from ...files import read_json
from ...modeling.configuration_fgclip2 import FGClip2Config
from ...modeling.image_processing_fgclip2 import naflex_size, patch_budget
from ...modeling.layers import key_padding_mask
from ...modeling.modeling_fgclip2 import SCALES, TRAINING_SCALES, FGClip2Model
from ...modeling.processing_fgclip2 import FGClip2Processor
from ..estimates import (
    FLOAT32,
    Activations,
    StepContents,
    text_activations,
    tower_activations,
    working_memory,
)
from ..objective import ObjectiveSettings
from .embeddings import EmbeddingTask
from .rows import embed_regions, encode_texts, normalize_rows

INITIAL_TRAINING_SCALE = math.log(100.0)  # of both (released code)

# Parts of the parameters by the beginnings of their names, in the order in which a plan lists them.
PARTS = {
    "vision embeddings": ("vision_model.embeddings",),
    "vision encoder": ("vision_model.encoder", "vision_model.post_layernorm"),
    "image head": ("vision_model.head",),
    "dense head": ("dense_feature_head",),
    "text embeddings": ("text_model.embeddings",),
    "text encoder": ("text_model.encoder", "text_model.final_layer_norm"),
    "text heads": ("text_model.head", "longtext_head", "boxtext_head"),
    "scales": SCALES,
}
# What is trained of the heads. The dense head by its parts: as a whole it would bring a `probe` that is never used and
# never gets a gradient, for which DDP waits.
HEADS = (
    *PARTS["text heads"],
    *PARTS["image head"],
    *(f"dense_feature_head.{module}" for module in ("attention", "layernorm", "mlp")),
)


class FGClip2ForTraining(FGClip2Model):
    """[`FGClip2Model`] with the scales of the region losses and one forward for all embeddings.

    Its checkpoints load as `FGClip2Model` too. All towers run inside one forward, as DDP and FSDP need it, and each
    parameter gets a gradient even on a rank without captions, regions or images, so that no rank waits for another.

    While training, texts are encoded `text_chunk_size` at a time, and again for the gradient; 0: all at once.

    Example:
        >>> model = FGClip2ForTraining.from_pretrained(path)
        >>> losses = FGClip2Objective("released")(model(**batch), batch)
    """

    default_objective = "released"
    task = EmbeddingTask()
    text_chunk_size = 0
    # Where in the model its parts are, for freezing, learning rates and the plan.
    parts = PARTS
    heads = HEADS
    scales = SCALES
    towers = {  # embeddings, and the list of encoder layers above them
        "vision": ("vision_model.embeddings", "vision_model.encoder.layers"),
        "text": ("text_model.embeddings", "text_model.encoder.layers"),
    }

    _keys_to_ignore_on_load_unexpected = [r"position_ids$", r"^cross_encoder\."]
    _keys_to_ignore_on_load_missing = [rf"^{name}$" for name in TRAINING_SCALES]  # of a checkpoint to start from

    def __init__(self, config: FGClip2Config):
        super().__init__(config)
        # Shape (1,): FSDP2 refuses parameters without dimensions.
        self.logit_scale_finegraind = nn.Parameter(torch.full((1,), INITIAL_TRAINING_SCALE))
        self.logit_scale_hardneg = nn.Parameter(torch.full((1,), INITIAL_TRAINING_SCALE))
        self.dense_feature_head.probe.requires_grad_(False)  # never used: DDP would wait for its gradient

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        for name in TRAINING_SCALES:  # absent while the parent's constructor runs
            if isinstance(module, FGClip2ForTraining) and hasattr(module, name):
                nn.init.constant_(getattr(module, name), INITIAL_TRAINING_SCALE)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any) -> Any:
        """Load as [`FGClip2Model`] does; scales of shape () in official training checkpoints become (1,).

        Raises:
            ValueError: Tensors have other shapes than the configuration asks for.
        """
        scalars = _scalar_scales(pretrained_model_name_or_path, kwargs)
        wants_info = kwargs.pop("output_loading_info", False)
        if scalars:
            kwargs["ignore_mismatched_sizes"] = True
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        if scalars and (others := [key for key, *_ in info["mismatched_keys"] if key not in scalars]):
            raise ValueError(f"{pretrained_model_name_or_path}: shapes do not fit the configuration: {others}")
        with torch.no_grad():
            for name, value in scalars.items():
                getattr(model, name).fill_(value)
        model.dense_feature_head.probe.requires_grad_(False)  # loading makes new parameters
        return (model, info) if wants_info else model

    @classmethod
    def from_model(cls, model: FGClip2Model) -> FGClip2ForTraining:
        """Make a training model of a plain one; the parameters are shared, not copied."""
        with torch.device("meta"):
            training = cls(model.config)  # type: ignore[arg-type]
        training.load_state_dict(model.state_dict(keep_vars=True), strict=False, assign=True)
        for name in TRAINING_SCALES:
            scale = torch.full((1,), INITIAL_TRAINING_SCALE, dtype=model.dtype, device=model.device)
            setattr(training, name, nn.Parameter(scale))
        training.dense_feature_head.probe.requires_grad_(False)
        return training

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor,
        spatial_shapes: Tensor,
        short_input_ids: Tensor | None = None,
        long_input_ids: Tensor | None = None,
        boxes: Tensor | None = None,
        region_index: Tensor | None = None,
        region_input_ids: Tensor | None = None,
        hard_index: Tensor | None = None,
        hard_input_ids: Tensor | None = None,
        kept_patches: Tensor | None = None,
        **unused: Any,
    ) -> dict[str, Tensor]:
        """Embed a batch of the collator. What is `None` is not computed; that has to be so on all ranks.

        Args:
            pixel_values: Patches, shape (B, N, 768).
            pixel_attention_mask: Shape (B, N), 1 for real patches.
            spatial_shapes: Integer, shape (B, 2), (height, width) of each grid in patches.
            short_input_ids: Shape (S, 64), short captions.
            long_input_ids: Shape (L, 196), long captions.
            boxes: Float, shape (B, R, 4), (x1, y1, x2, y2) as fractions of width and height, padded with zeros.
            region_index: Integer, shape (K, 2), (image, box) of each region.
            region_input_ids: Shape (K, 64), the regions' texts.
            hard_index: Integer, shape (H, 2), (image, box) of each region with hard negatives.
            hard_input_ids: Shape (H, 1 + N, 64): the true text, then the hard negatives.
            kept_patches: Integer, shape (B, N), of [`draw_kept_patches`]: the place in its grid of each patch, where
                these are not all of the images; goes without `boxes`.
            unused: Other keys of the batch, which the objective reads.

        Returns:
            What [`FGClip2Objective`] takes: L2-normalised embeddings and scales.
        """
        images = len(pixel_values)
        if not images:  # every parameter needs a gradient, if only of zero: one black patch, whose rows are cut off
            pixel_values = pixel_values.new_zeros(1, 1, pixel_values.shape[-1])
            pixel_attention_mask = pixel_attention_mask.new_ones(1, 1)
            spatial_shapes = spatial_shapes.new_ones(1, 2)
        if kept_patches is None or not images:
            vision = self.vision_model(pixel_values, pixel_attention_mask, spatial_shapes)
            embeddings = {"image_embeds": vision.pooler_output[:images]}
        else:
            patches = (pixel_values, pixel_attention_mask, spatial_shapes, kept_patches)
            embeddings = {"image_embeds": self._embed_kept_patches(*patches)}
        if long_input_ids is not None:
            embeddings["long_text_embeds"] = self.longtext_head(self._pooled_texts(long_input_ids, "long"))
        short_texts = {
            "short_text_embeds": short_input_ids,
            "region_text_embeds": region_input_ids,
            "hard_text_embeds": None if hard_input_ids is None else hard_input_ids.flatten(0, 1),  # (H (1 + N), 64)
        }
        embeddings.update(self._short_texts({name: ids for name, ids in short_texts.items() if ids is not None}))
        if boxes is not None:
            mask = key_padding_mask(pixel_attention_mask, self.vision_model.config._attn_implementation)
            dense = self.dense_feature_head(vision.last_hidden_state, mask)  # (B, N, D)
            indices = {"region_embeds": region_index, "hard_region_embeds": hard_index}
            embeddings.update(embed_regions(dense, spatial_shapes, boxes, indices))
        outputs = normalize_rows(embeddings, hard_input_ids)
        # Not the parameters themselves: outside this forward FSDP has them in pieces.
        return outputs | {name: getattr(self, name) * 1.0 for name in SCALES}

    def _embed_kept_patches(
        self, pixel_values: Tensor, pixel_attention_mask: Tensor, spatial_shapes: Tensor, kept_patches: Tensor
    ) -> Tensor:
        """Return (B, D) from some patches of each image, which have the positions of their places."""
        tower = self.vision_model
        hidden_states = tower.embeddings(pixel_values, spatial_shapes, kept_patches.clamp(min=0))  # (B, N, D)
        mask = key_padding_mask(pixel_attention_mask, tower.config._attn_implementation)
        hidden_states, _ = tower.encoder(hidden_states, mask, False)
        return tower.head(tower.post_layernorm(hidden_states), mask)

    def _short_texts(self, texts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Encode captions and region texts by the tower at once, for they are equally long; then each by its head."""
        if not texts:
            return {}
        pooled = self._pooled_texts(torch.cat(list(texts.values())), "box")  # before any head
        rows = pooled.split([len(ids) for ids in texts.values()])
        heads = [self.text_model.head if name == "short_text_embeds" else self.boxtext_head for name in texts]
        return {name: head(part) for name, head, part in zip(texts, heads, rows, strict=True)}

    def _pooled_texts(self, input_ids: Tensor, walk_type: str) -> Tensor:
        def encode(ids: Tensor) -> Tensor:
            return self.text_model(ids, None, walk_type).pooler_output

        return encode_texts(encode, input_ids, self.text_chunk_size if self.training else 0)

    @staticmethod
    def unused_parameters(settings: ObjectiveSettings) -> list[str]:
        """Return the names of what an objective gives no gradient to: DDP would wait for it."""
        uses_box_texts = settings.uses_regions or settings.uses_hard_negatives
        unused = ["dense_feature_head.probe"]
        if not uses_box_texts:
            unused += ["dense_feature_head", "boxtext_head"]
        if not settings.region_weight:
            unused.append("logit_scale_finegraind")
        if not settings.uses_hard_negatives:
            unused.append("logit_scale_hardneg")
        if not settings.long_weight:
            embeddings = "text_model.embeddings.position_embedding"
            unused += ["longtext_head", f"{embeddings}_ori", f"{embeddings}_res"]
        distills = settings.distillation_weight > 0  # of short captions, which are always embedded, and of images
        if not settings.short_weight and not distills:
            unused.append("text_model.head")
            if not uses_box_texts:
                unused.append("text_model.embeddings.position_embedding")
        if not settings.short_weight and not settings.long_weight:
            unused += ["logit_scale", "logit_bias"]
            if not distills:
                unused.append("vision_model.head")
        elif settings.caption_loss == "info_nce":
            unused.append("logit_bias")
        return unused

    @staticmethod
    def count_patches(processor: FGClip2Processor, height: int, width: int, max_num_patches: int | str | None) -> int:
        """Return how many patches an image of this size in pixels becomes. The budget is that of the collator."""
        patch, budget = processor.image_processor.patch_size, max_num_patches
        budget = processor.image_processor.max_num_patches if budget is None else budget
        budget = patch_budget(height, width, patch) if isinstance(budget, str) else budget
        height, width = naflex_size(height, width, patch, budget)
        return (height // patch) * (width // patch)

    @staticmethod
    def activation_memory(
        config: FGClip2Config,
        contents: StepContents,
        mixed: bool = False,
        checkpointing: bool = False,
        vision_layers: int | None = None,
        text_layers: int | None = None,
        text_chunk_size: int = 0,
    ) -> dict[str, Activations]:
        """Return bytes of the activations of a step: of the `vision` and `text` towers, then of the `dense head`.

        Args:
            config: Configuration of the model.
            contents: Of one process.
            mixed, checkpointing: As in [`tower_activations`].
            vision_layers, text_layers: Layers that keep activations; `None`: all.
            text_chunk_size: Texts that are encoded at once; 0: all.
        """
        low = 2 if mixed else FLOAT32
        vision, text = config.vision_config, config.text_config
        patches = contents.images * contents.patches
        inputs = patches * low * vision.num_channels * vision.patch_size**2
        # Output of the last norm, keys and values of the image head; gone before the layers' turn.
        image_head = patches * (FLOAT32 + 3 * low) * vision.hidden_size
        options = {"mixed": mixed, "checkpointing": checkpointing}
        tower = (vision, patches, vision_layers, mixed, checkpointing, contents.patches)
        dense = Activations(0.0)
        if contents.regions:  # each patch is a query
            kept = patches * low * (7 * vision.hidden_size + 2 * vision.intermediate_size)
            dense = Activations(kept, working_memory(vision, patches, mixed=mixed))
        return {
            "vision": Activations(
                inputs + image_head + tower_activations(*tower), max(0.0, working_memory(*tower) - image_head)
            ),
            "text": text_activations(text, contents, text_layers, **options, chunk_size=text_chunk_size),
            "dense head": dense,
        }


def _scalar_scales(name_or_path: str | os.PathLike | None, kwargs: dict[str, Any]) -> dict[str, float]:
    """Return the values of the training scales that a checkpoint has with shape ()."""
    if name_or_path is None:
        return {}
    hub = {name: kwargs[name] for name in ("cache_dir", "revision", "token", "local_files_only") if name in kwargs}

    def find(file: str) -> str | None:
        return cached_file(name_or_path, file, _raise_exceptions_for_missing_entries=False, **hub)

    index = find("model.safetensors.index.json")
    if index is not None:
        weight_map = read_json(index)["weight_map"]
        files = {find(weight_map[name]) for name in TRAINING_SCALES if name in weight_map}
    else:
        files = {find("model.safetensors")}
    scalars = {}
    for file in filter(None, files):
        with safe_open(file, "pt") as tensors:
            for name in set(TRAINING_SCALES) & set(tensors.keys()):
                if not tensors.get_slice(name).get_shape():
                    scalars[name] = tensors.get_tensor(name).item()
    return scalars
