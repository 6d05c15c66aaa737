"""The model as the objective needs it: one forward for images, captions, regions and hard negatives."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from ..modeling.configuration_fgclip2 import FGClip2Config
from ..modeling.modeling_fgclip2 import FGClip2Model, key_padding_mask, pool_regions

# The spelling is that of the official training checkpoints. Both begin at 100 (released code).
TRAINING_SCALES = ("logit_scale_finegraind", "logit_scale_hardneg")
SCALES = ("logit_scale", "logit_bias", *TRAINING_SCALES)
INITIAL_TRAINING_SCALE = math.log(100.0)


class FGClip2ForTraining(FGClip2Model):
    """[`FGClip2Model`] with the scales of the region losses and one forward for all embeddings.

    Its checkpoints load as `FGClip2Model` too. All towers run inside one forward, as DDP and FSDP need it, and each
    parameter gets a gradient even on a rank without captions, regions or images, so that no rank waits for another.

    Example:
        >>> model = FGClip2ForTraining.from_pretrained(path)
        >>> losses = FGClip2Objective("released")(model(**batch), batch)
    """

    _keys_to_ignore_on_load_unexpected = [r"position_ids$"]
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
        """Load as [`FGClip2Model`] does; scales of shape () in official training checkpoints become (1,)."""
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
            unused: Other keys of the batch, which the objective reads.

        Returns:
            What [`FGClip2Objective`] takes: L2-normalised embeddings and scales.
        """
        patches, mask = self._patches(pixel_values, pixel_attention_mask, spatial_shapes)
        images = len(pixel_values)
        vision = self.vision_model(**patches)
        embeddings = {"image_embeds": vision.pooler_output[:images]}
        if long_input_ids is not None:
            embeddings["long_text_embeds"] = self._long_texts(long_input_ids)
        texts = {
            "short_text_embeds": short_input_ids,
            "region_text_embeds": region_input_ids,
            "hard_text_embeds": None if hard_input_ids is None else hard_input_ids.flatten(0, 1),
        }
        embeddings.update(self._short_texts({name: ids for name, ids in texts.items() if ids is not None}))
        if boxes is not None:
            dense = self.dense_feature_head(vision.last_hidden_state, mask)
            regions = self._regions(dense, patches["spatial_shapes"], boxes)  # (B, R, D)
            for name, index in (("region_embeds", region_index), ("hard_region_embeds", hard_index)):
                if index is not None:
                    embeddings[name] = regions[index[:, 0], index[:, 1]]
        outputs = {name: F.normalize(rows.float(), dim=-1) for name, rows in embeddings.items()}
        if hard_input_ids is not None:
            hard = outputs.pop("hard_text_embeds").unflatten(0, hard_input_ids.shape[:2])  # (H, 1 + N, D)
            outputs["hard_positive_embeds"], outputs["hard_negative_embeds"] = hard[:, 0], hard[:, 1:]
        # Not the parameters themselves: outside this forward FSDP has them in pieces.
        for name in SCALES:
            outputs[name] = getattr(self, name) * 1.0
        return outputs

    def _patches(
        self, pixel_values: Tensor, pixel_attention_mask: Tensor, spatial_shapes: Tensor
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Inputs of the vision tower and the mask of its patches; for no images one black patch, to be cut off."""
        if not len(pixel_values):
            pixel_values = pixel_values.new_zeros(1, 1, pixel_values.shape[-1])
            pixel_attention_mask = pixel_attention_mask.new_ones(1, 1)
            spatial_shapes = spatial_shapes.new_ones(1, 2)
        mask = key_padding_mask(pixel_attention_mask, self.vision_model.config._attn_implementation)
        patches = {
            "pixel_values": pixel_values,
            "pixel_attention_mask": pixel_attention_mask,
            "spatial_shapes": spatial_shapes,
        }
        return patches, mask

    def _long_texts(self, input_ids: Tensor) -> Tensor:
        pooled = self.text_model(_at_least_one(input_ids), None, "long").pooler_output
        return self.longtext_head(pooled)[: len(input_ids)]

    def _short_texts(self, texts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Captions and region texts through the tower at once, for they are equally long; then each its own head."""
        if not texts:
            return {}
        together = torch.cat(list(texts.values()))
        counts = [len(ids) for ids in texts.values()]
        pooled = self.text_model(_at_least_one(together), None, "box").pooler_output  # before any head
        rows = pooled[: len(together)].split(counts)
        heads = [self.text_model.head if name == "short_text_embeds" else self.boxtext_head for name in texts]
        return {name: head(part) for name, head, part in zip(texts, heads, rows, strict=True)}

    @staticmethod
    def _regions(dense_features: Tensor, spatial_shapes: Tensor, boxes: Tensor) -> Tensor:
        if not boxes.shape[0] or not boxes.shape[1]:  # no images or no boxes: one empty box, to be indexed by nothing
            boxes = boxes.new_zeros(len(dense_features), 1, 4)
        grid = spatial_shapes.flip(1).repeat(1, 2)[:, None].to(boxes.dtype)  # (B, 1, 4): width, height, twice
        return pool_regions(dense_features, spatial_shapes, boxes * grid)


def _at_least_one(input_ids: Tensor) -> Tensor:
    """Not every attention kernel takes an empty batch, and the parameters have to get their gradient of zero."""
    return input_ids if len(input_ids) else input_ids.new_zeros(1, input_ids.shape[1])


def _scalar_scales(name_or_path: str | os.PathLike | None, kwargs: dict[str, Any]) -> dict[str, float]:
    """Values of the training scales that a checkpoint has with shape ()."""
    if name_or_path is None:
        return {}
    hub = {name: kwargs[name] for name in ("cache_dir", "revision", "token", "local_files_only") if name in kwargs}

    def find(file: str) -> str | None:
        return cached_file(name_or_path, file, _raise_exceptions_for_missing_entries=False, **hub)

    index = find("model.safetensors.index.json")
    if index is not None:
        weight_map = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
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
