"""The ranking stage of FG-CLIP 2 in training, on frozen towers."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...modeling.modeling_fgclip2 import SCALES, FGClip2Model
from ...modeling.modeling_matching_fgclip2 import FGClip2ForImageTextMatching
from ..estimates import FLOAT32, Activations, StepContents, tower_activations, working_memory
from ..losses.ranking import negative_weights
from .fgclip2 import PARTS, FGClip2ForTraining
from .ranking import RankingTask

STAGE = "cross_encoder"


class FGClip2MatchingForTraining(FGClip2ForImageTextMatching):
    """[`FGClip2ForImageTextMatching`] with the losses of its ranking stage; everything else is frozen.

    A checkpoint without a stage gets an untrained one. Candidates come from this process's batch, the likelier the more
    similar the dual encoder finds them; [`NeighbouringRecords`] puts those that it takes for each other into one batch.

    Example:
        >>> model = FGClip2MatchingForTraining.from_pretrained(path).train()
        >>> model(**batch)["loss"].backward()
    """

    task = RankingTask()
    default_objective = "ranking"
    parts = {**PARTS, "ranking stage": (STAGE,)}
    heads = (f"{STAGE}.head",)
    scales = SCALES
    towers = FGClip2ForTraining.towers

    _never_made = ()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint of [`FGClip2ForImageTextMatching`] or [`FGClip2Model`]; arguments as there."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info=True
        model._freeze()
        return loaded

    @classmethod
    def from_model(cls, model: FGClip2Model) -> FGClip2MatchingForTraining:
        """Make a training model of a model with or without a stage; the parameters are shared, not copied."""
        training = cls.from_dual_encoder(model, getattr(model.config, "cross_config", None))
        training._freeze()
        return training

    def _freeze(self) -> None:
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(f"{STAGE}."))

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        pixel_attention_mask: Tensor,
        spatial_shapes: Tensor,
        short_input_ids: Tensor,
        short_image_index: Tensor,
        long_input_ids: Tensor,
        long_image_index: Tensor,
        image_hash: Tensor,
        hard_index: Tensor | None = None,
        hard_input_ids: Tensor | None = None,
        hard_negative_mask: Tensor | None = None,
        negatives: int = 3,
        hard_text_weight: float = 1.0,
        **unused: Any,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch of the collator.

        While training, other images and captions are drawn by their similarity; else the most similar ones are taken.

        Args:
            pixel_values, pixel_attention_mask, spatial_shapes: As in [`FGClip2Model.get_image_features`], B images.
            short_input_ids, long_input_ids: Integer, shapes (S, 64) and (L, 196), captions.
            short_image_index, long_image_index: Integer, shapes (S,) and (L,), the image of each caption.
            image_hash: Integer, shape (B,), the same for equal pictures, which are never told from each other.
            hard_index: Integer, shape (H, 2), (image, box) of each region with hard negatives.
            hard_input_ids: Integer, shape (H, 1 + N, 64), the region's text, then its hard negatives.
            hard_negative_mask: Boolean, shape (H, N), `False` where there is no hard negative.
            negatives, hard_text_weight: As in [`RankingSettings`].
            unused: Other keys of the batch.

        Returns:
            Scalars `image` (captions tell their image from others), `text` (images tell their caption), `hard_text`
            (images tell their regions' texts from hard negatives), where there is data, and `loss`, their sum, of
            which `image` and `text` count one half. `right`, shape (B,): how often an image came first for its
            captions.

        Raises:
            ValueError: The batch has fewer than two images.
        """
        if len(pixel_values) < 2:
            raise ValueError(
                f"a batch must have two images at least, to be told from each other, got {len(pixel_values)}"
            )
        with torch.no_grad():
            image_tokens = self.get_image_tokens(pixel_values, pixel_attention_mask, spatial_shapes)
        losses: dict[str, list[Tensor]] = {"image": [], "text": []}
        right, counts = (image_tokens.new_zeros(len(image_tokens), dtype=torch.float32) for _ in range(2))
        for ids, index in ((short_input_ids, short_image_index), (long_input_ids, long_image_index)):
            if not len(ids):
                continue
            with torch.no_grad():
                text_tokens = self.get_text_tokens(ids)
            images, texts = self._draw(image_tokens, text_tokens, index, image_hash, negatives)
            of_images = self._logits(
                image_tokens, text_tokens, images, torch.arange(len(ids), device=ids.device)[:, None]
            )
            of_texts = self._logits(image_tokens, text_tokens, index[:, None], texts)
            for name, logits in (("image", of_images), ("text", of_texts)):
                losses[name].append(F.cross_entropy(logits, torch.zeros_like(index)))
            right.index_add_(0, index, (of_images.argmax(1) == 0).float())
            counts.index_add_(0, index, torch.ones_like(index, dtype=torch.float32))
        outputs = {name: torch.stack(its).mean() for name, its in losses.items()}
        loss = (outputs["image"] + outputs["text"]) / 2
        if hard_index is not None and hard_input_ids is not None and len(hard_index):
            with torch.no_grad():
                text_tokens = self.get_text_tokens(hard_input_ids.flatten(0, 1))
            # By the stage alone, for the dual encoder was not trained on regions' texts as captions.
            logits = self.cross_encoder(image_tokens[hard_index[:, 0]], text_tokens).float()
            logits = logits.view(hard_input_ids.shape[:2])  # (H, 1 + N)
            if hard_negative_mask is not None:
                there = F.pad(hard_negative_mask, (1, 0), value=True)
                logits = logits.masked_fill(~there, torch.finfo(logits.dtype).min)
            outputs["hard_text"] = F.cross_entropy(logits, torch.zeros_like(hard_index[:, 0]))
            loss = loss + hard_text_weight * outputs["hard_text"]
        return {**outputs, "loss": loss, "right": right / counts.clamp(min=1)}

    def _logits(self, image_tokens: Tensor, text_tokens: Tensor, images: Tensor, texts: Tensor) -> Tensor:
        """Return the logits of pairs by the rows of both, which are broadcast with each other: (Q, K)."""
        images, texts = torch.broadcast_tensors(images, texts)
        return self.match(image_tokens[images.flatten()], text_tokens[texts.flatten()]).view(images.shape)

    @torch.no_grad()
    def _draw(
        self, image_tokens: Tensor, text_tokens: Tensor, index: Tensor, image_hash: Tensor, negatives: int
    ) -> tuple[Tensor, Tensor]:
        """Return the candidates of each caption, its own first: images (S, 1 + K) and texts (S, 1 + K)."""
        images, texts = (F.normalize(tokens[:, 0].float(), dim=-1) for tokens in (image_tokens, text_tokens))
        temperature, pictures = 1 / self.logit_scale.exp(), image_hash[index]
        drawn = []
        for own, weights in (
            (index, negative_weights(texts, images, temperature, pictures, image_hash)),
            (
                torch.arange(len(index), device=index.device),
                negative_weights(images[index], texts, temperature, pictures, pictures),
            ),
        ):
            count = min(negatives, int((weights > 0).sum(1).min()))
            others = torch.multinomial(weights, count) if self.training and count else weights.topk(count).indices
            drawn.append(torch.cat([own[:, None], others], 1))
        return drawn[0], drawn[1]

    def unused_parameters(self, settings: Any) -> list[str]:
        """Return nothing: what gets no gradient is frozen for good."""
        return []

    count_patches = staticmethod(FGClip2ForTraining.count_patches)

    @classmethod
    def activation_memory(
        cls,
        config: Any,
        contents: StepContents,
        mixed: bool = False,
        checkpointing: bool = False,
        vision_layers: int | None = None,
        text_layers: int | None = None,
    ) -> dict[str, Activations]:
        """Return bytes of the activations of a step, which only the `stage` has.

        Args:
            config: Configuration of the model.
            contents: Of one process, with a text for each pair.
            mixed, checkpointing: As in [`tower_activations`].
            vision_layers, text_layers: Not used: the towers are frozen.
        """
        text = config.text_config
        patches = (contents.short_texts + contents.long_texts) * contents.patches
        texts = contents.short_texts * text.max_position_embeddings + contents.long_texts * text.longtext_len
        tokens = FLOAT32 * (patches + texts) * config.vision_config.hidden_size
        stage = (config.cross_config, texts, None, mixed, checkpointing)
        return {"stage": Activations(tokens + tower_activations(*stage), working_memory(*stage))}


__all__ = ["FGClip2MatchingForTraining"]
