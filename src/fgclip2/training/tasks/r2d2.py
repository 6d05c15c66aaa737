"""R2D2 in training: for image-text retrieval by both stages, and for telling matching pairs from others."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...distributed import counts_over_ranks, gather_rows, rank
from ...modeling.configuration_r2d2 import R2D2Config
from ...modeling.modeling_r2d2 import R2D2Model, mean_probabilities
from ..losses.ranking import (
    MatchingForm,
    check_negatives,
    draw_negatives,
    gathered_contrastive_ranking_loss,
    matching_loss,
    negative_weights,
)

TEMPERATURE_BOUNDS = (0.001, 0.5)

# The vision tower, and weights of the official files that no output depends on: DDP would wait for their gradient.
FROZEN = ("visual_encoder.", "text_encoder.pooler.", "text_joint_layer.embeddings.", "img_joint_layer.embeddings.")


def _check_rows(**tensors: Tensor) -> None:
    rows = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ValueError(f"all must have one row for each pair, got these numbers of rows: {found}")


class _R2D2ForTraining(R2D2Model):
    """The model with some of its parameters frozen, those whose names begin with one of `frozen`."""

    frozen: ClassVar[tuple[str, ...]] = FROZEN

    def __init__(self, config: R2D2Config):
        super().__init__(config)
        if not config.has_cross_encoders:
            raise ValueError(
                "the model must have cross encoders to be trained by pairs, got `cross_config.num_hidden_layers` 0"
            )
        self._freeze()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint of [`R2D2Model`]; arguments as there."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info=True
        model._freeze()  # transformers 5 makes new parameters of what it loads
        return loaded

    def _freeze(self) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith(self.frozen):
                parameter.requires_grad_(False)


class R2D2ForImageTextRetrieval(_R2D2ForTraining):
    """[`R2D2Model`] with the losses of the released fine-tuning for retrieval: GCPR of embeddings, FGR of pairs.

    The vision tower is frozen. Checkpoints are those of `R2D2Model`.

    Example:
        >>> model = R2D2ForImageTextRetrieval.from_pretrained(path).train()
        >>> losses = model(**batch)
        >>> losses["loss"].backward()
    """

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        ids: Tensor,
        negative_image: Tensor | None = None,
        negative_text: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch; all ranks have to call this, each with at least one pair.

        While training, the temperature is clamped to `TEMPERATURE_BOUNDS` first.

        Args:
            pixel_values: Shape (B, 3, S, S).
            input_ids, attention_mask: Integer, shape (B, T), text i belonging to image i; T may differ between ranks.
            ids: Integer, shape (B,): pairs of equal ids, on any rank, are no negatives of each other.
            negative_image: Integer, shape (B,), for each text the row of an image over all ranks; `None`: drawn, the
                likelier the more similar it is.
            negative_text: The same of texts, for each image.

        Returns:
            Scalars `gcpr`, `fgr` and `loss`, their sum.

        Raises:
            ValueError: The arguments have different numbers of rows, a pair has no negative, a given negative is no row
                or has the pair's id, or a text has more tokens than `config.max_length`.
        """
        negatives = {"negative_image": negative_image, "negative_text": negative_text}
        given = {name: rows for name, rows in negatives.items() if rows is not None}
        _check_rows(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask, ids=ids, **given)
        missing = self.config.max_length - input_ids.shape[1]
        if missing < 0:
            raise ValueError(
                f"input_ids has {input_ids.shape[1]} tokens per text; allowed: up to {self.config.max_length}, the "
                "tokenizer truncates"
            )
        if self.training:
            # Of `data`, which no graph watches: that of a forward before this one stays good for its backward.
            self.temp.data.clamp_(*TEMPERATURE_BOUNDS)
        # To equal lengths on all ranks, as the gathers need it.
        input_ids, attention_mask = F.pad(input_ids, (0, missing)), F.pad(attention_mask, (0, missing))
        image_tokens = self.get_image_tokens(pixel_values)
        text_tokens = self.get_text_tokens(input_ids, attention_mask)
        images = F.normalize(self.vision_proj(image_tokens[:, 0]).float(), dim=-1)  # (B, D)
        texts = F.normalize(self.text_proj(text_tokens[:, 0]).float(), dim=-1)
        counts = [count for (count,) in counts_over_ranks([len(ids)], ids.device)]
        all_images, all_texts, all_ids = (gather_rows(rows, counts) for rows in (images, texts, ids))
        gcpr = gathered_contrastive_ranking_loss(images, texts, self.temp, ids, all_images, all_texts, all_ids)

        for name, rows in given.items():
            check_negatives(name, rows, ids, all_ids)
        if negative_text is None:
            negative_text = draw_negatives(negative_weights(images, all_texts, self.temp, ids, all_ids))
        if negative_image is None:
            negative_image = draw_negatives(negative_weights(texts, all_images, self.temp, ids, all_ids))
        all_image_tokens = gather_rows(image_tokens.detach(), counts)  # (all B, 1 + N, vision width)
        all_text_tokens, all_masks = gather_rows(text_tokens, counts), gather_rows(attention_mask, counts)
        # (image i, text i), then (another image, text i), then (image i, another text)
        own = torch.arange(len(ids), device=ids.device) + sum(counts[: rank()])
        image, text = torch.cat([own, negative_image, own]), torch.cat([own, own, negative_text])
        logits = self.match(all_image_tokens[image], all_text_tokens[text], all_masks[text])
        labels = (torch.arange(len(image), device=ids.device) < len(ids)).long()  # (3 B,)
        fgr = matching_loss(*logits, labels, form="fgr")
        return {"gcpr": gcpr, "fgr": fgr, "loss": gcpr + fgr}


class R2D2ForImageTextMatching(_R2D2ForTraining):
    """[`R2D2Model`] with the loss of the released fine-tuning for matching: labelled pairs, and no contrast.

    The vision tower is frozen, and so are both projections and the temperature, which no pair depends on. Checkpoints
    are those of `R2D2Model`.

    Example:
        >>> model = R2D2ForImageTextMatching.from_pretrained(path).train()
        >>> model(**batch)["loss"].backward()
    """

    frozen = (*FROZEN, "vision_proj.", "text_proj.", "temp")

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        form: MatchingForm = "nll",
    ) -> dict[str, Tensor]:
        """Compute the loss of labelled pairs of this rank.

        Args:
            pixel_values: Shape (B, 3, S, S).
            input_ids, attention_mask: Integer, shape (B, T), of pair i text i.
            labels: Integer, shape (B,), 1 where image i and text i match, else 0.
            form: As in [`matching_loss`]; `"released"` is that of the released code.

        Returns:
            `loss`, a scalar, and `probability`, shape (B,), that each pair matches.

        Raises:
            ValueError: The arguments have different numbers of rows, or a label is neither 0 nor 1.
        """
        _check_rows(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        text_tokens = self.get_text_tokens(input_ids, attention_mask)
        logits = self.match(self.get_image_tokens(pixel_values), text_tokens, attention_mask)
        probability = mean_probabilities(*logits)[:, 1].detach()
        return {"loss": matching_loss(*logits, labels, form), "probability": probability}


__all__ = ["R2D2ForImageTextMatching", "R2D2ForImageTextRetrieval"]
