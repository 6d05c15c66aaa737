"""R2D2 in training: for image-text retrieval by both stages, and for telling matching pairs from others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...distributed import counts_over_ranks, gather_rows, rank
from ...modeling.configuration_r2d2 import R2D2Config
from ...modeling.modeling_r2d2 import R2D2Model, mean_probabilities
from ..estimates import FLOAT32, Activations, StepContents, tower_activations, working_memory
from ..losses.ranking import (
    MatchingForm,
    PairRows,
    check_negatives,
    draw_negatives,
    gathered_contrastive_ranking_loss,
    matching_loss,
    negative_weights,
)
from .pairs import MatchingTask, PairTask, RetrievalTask

TEMPERATURE_BOUNDS = (0.001, 0.5)

# The vision tower, and weights of the official files that no output depends on: DDP would wait for their gradient.
FROZEN = ("visual_encoder.", "text_encoder.pooler.", "text_joint_layer.embeddings.", "img_joint_layer.embeddings.")

# Parts of the parameters by the beginnings of their names, in the order in which a plan lists them.
PARTS = {
    "vision tower": ("visual_encoder",),
    "text embeddings": ("text_encoder.embeddings",),
    "text encoder": ("text_encoder.encoder", "text_encoder.pooler"),
    "projections": ("vision_proj", "text_proj"),
    "cross encoders": ("text_joint_layer", "img_joint_layer", "img_joint_proj"),
    "match heads": ("itm_head", "itm_head_i"),
    "temperature": ("temp",),
}


def _check_rows(**tensors: Tensor) -> None:
    rows = {name: len(tensor) for name, tensor in tensors.items()}
    if not any(rows.values()):
        raise ValueError("this process has no pair in the batch: each needs one that can be used")
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ValueError(f"all must have one row for each pair, got these numbers of rows: {found}")


class EncodedPairs(NamedTuple):
    """What the towers make of a step's pairs: B of this rank, all B of all ranks.

    Attributes:
        image_tokens: Shape (B, 1 + N, vision width).
        text_tokens, attention_mask: Shapes (B, T, text width) and (B, T).
        own, every: Embeddings and ids of this rank and of all ranks.
        counts: Pairs of each rank.
    """

    image_tokens: Tensor
    text_tokens: Tensor
    attention_mask: Tensor
    own: PairRows
    every: PairRows
    counts: list[int]


class R2D2ForTraining(R2D2Model):
    """The model with some of its parameters frozen, those whose names begin with one of `frozen`."""

    frozen: ClassVar[tuple[str, ...]] = FROZEN
    trains_vision: ClassVar[bool] = False
    task: ClassVar[PairTask]
    # Where in the model its parts are, for freezing, learning rates and the plan.
    parts = PARTS
    heads = (*PARTS["projections"], *PARTS["match heads"], "img_joint_proj")
    scales = PARTS["temperature"]
    towers = {  # embeddings, and the list of encoder layers above them
        "vision": ("visual_encoder.embeddings", "visual_encoder.encoder.layers"),
        "text": ("text_encoder.embeddings", "text_encoder.encoder.layer"),
    }

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

    @classmethod
    def from_model(cls, model: R2D2Model) -> Any:
        """Make a training model of a plain one; the parameters are shared, not copied."""
        with torch.device("meta"):
            training = cls(model.config)  # type: ignore[arg-type]
        # What a subclass adds, it makes itself.
        training.load_state_dict(model.state_dict(keep_vars=True), strict=False, assign=True)
        training._freeze()
        return training.train(model.training)

    def unused_parameters(self, settings: Any) -> list[str]:
        """Return nothing: what gets no gradient is frozen for good."""
        return []

    def count_patches(self, processor: Any, height: int, width: int, max_num_patches: int | str | None) -> int:
        """Return how many patches an image becomes, which is the same for all."""
        vision = self.config.vision_config
        return (vision.image_size // vision.patch_size) ** 2

    @classmethod
    def activation_memory(
        cls,
        config: R2D2Config,
        contents: StepContents,
        mixed: bool = False,
        checkpointing: bool = False,
        vision_layers: int | None = None,
        text_layers: int | None = None,
    ) -> dict[str, Activations]:
        """Return bytes of the activations of a step at most: of the `vision` and `text` towers and `cross` encoders.

        Args:
            config: Configuration of the model.
            contents: Of one process.
            mixed, checkpointing: As in [`tower_activations`].
            vision_layers, text_layers: Layers that keep activations; `None`: all.
        """
        low = 2 if mixed else FLOAT32
        vision, text, cross = config.vision_config, config.text_config, config.cross_config
        lengths = {"image": 1 + contents.patches, "text": config.max_length}  # of sequences, in tokens
        pairs = cls.task.pairs_per_image * contents.images
        # A text is encoded once, and embeddings keep what goes into their norm; a pair copies the tokens of both.
        texts = contents.short_texts * lengths["text"]
        towers = {
            "vision": (vision, contents.images * lengths["image"], vision_layers, mixed, checkpointing),
            "text": (text, texts, text_layers, mixed, checkpointing),
        }
        embeddings = {"vision": 0.0, "text": 2 * FLOAT32 * texts * text.hidden_size}
        memory = {
            name: Activations(embeddings[name] + tower_activations(*tower), working_memory(*tower))
            for name, tower in towers.items()
        }
        kept = FLOAT32 * pairs * (lengths["image"] * vision.hidden_size + lengths["text"] * text.hidden_size)
        working = 0.0
        for queries, keys in (("text", "image"), ("image", "text")):
            encoder = (cross, pairs * lengths[queries], None, mixed, checkpointing)
            # Attention to the other side: input and output of its norm, queries, their result, and keys and values.
            values = (2 * FLOAT32 + 3 * low) * lengths[queries] + 2 * low * lengths[keys]
            other_side = pairs * values * cross.hidden_size
            kept += tower_activations(*encoder) + (0 if checkpointing else cross.num_hidden_layers * other_side)
            working = max(working, working_memory(*encoder) + (other_side if checkpointing else 0))
        return {**memory, "cross": Activations(kept, working)}

    def _freeze(self) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith(self.frozen):
                parameter.requires_grad_(False)


class R2D2ForImageTextRetrieval(R2D2ForTraining):
    """[`R2D2Model`] with the losses of the released fine-tuning for retrieval: GCPR of embeddings, FGR of pairs.

    The vision tower is frozen. Checkpoints are those of `R2D2Model`.

    Example:
        >>> model = R2D2ForImageTextRetrieval.from_pretrained(path).train()
        >>> losses = model(**batch)
        >>> losses["loss"].backward()
    """

    task = RetrievalTask()
    default_objective = "retrieval"

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
        pairs = self._encode_pairs(pixel_values, input_ids, attention_mask, ids, negatives)
        gcpr = self._contrast(pairs)
        *compared, labels = self._pairs_to_compare(pairs, **negatives)
        fgr = matching_loss(*self.match(*compared), labels, form="fgr")
        return {"gcpr": gcpr, "fgr": fgr, "loss": gcpr + fgr}

    def _encode_pairs(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        ids: Tensor,
        negatives: Mapping[str, Tensor | None],
    ) -> EncodedPairs:
        """Run the towers on this rank's pairs, and gather the embeddings; arguments and errors as in `forward`."""
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
        own = PairRows(images, texts, ids)
        return EncodedPairs(
            image_tokens,
            text_tokens,
            attention_mask,
            own,
            PairRows(*(gather_rows(rows, counts) for rows in own)),
            counts,
        )

    def _contrast(self, pairs: EncodedPairs) -> Tensor:
        own, every = pairs.own, pairs.every
        return gathered_contrastive_ranking_loss(own.images, own.texts, self.temp, own.ids, *every)

    def _pairs_to_compare(
        self, pairs: EncodedPairs, negative_image: Tensor | None, negative_text: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `match` takes of 3 B pairs, and their labels.

        The pairs are (image i, text i), then (another image, text i), then (image i, another text).
        """
        own, every = pairs.own, pairs.every
        for name, rows in {"negative_image": negative_image, "negative_text": negative_text}.items():
            if rows is not None:
                check_negatives(name, rows, own.ids, every.ids)
        if negative_text is None:
            negative_text = draw_negatives(negative_weights(own.images, every.texts, self.temp, own.ids, every.ids))
        if negative_image is None:
            negative_image = draw_negatives(negative_weights(own.texts, every.images, self.temp, own.ids, every.ids))
        image_tokens = pairs.image_tokens if self.trains_vision else pairs.image_tokens.detach()
        all_image_tokens = gather_rows(image_tokens, pairs.counts)  # (all B, 1 + N, vision width)
        all_text_tokens = gather_rows(pairs.text_tokens, pairs.counts)
        all_masks = gather_rows(pairs.attention_mask, pairs.counts)
        place = torch.arange(len(own.ids), device=own.ids.device) + sum(pairs.counts[: rank()])
        image, text = torch.cat([place, negative_image, place]), torch.cat([place, place, negative_text])
        labels = (torch.arange(len(image), device=image.device) < len(own.ids)).long()  # (3 B,)
        return all_image_tokens[image], all_text_tokens[text], all_masks[text], labels


class R2D2ForImageTextMatching(R2D2ForTraining):
    """[`R2D2Model`] with the loss of the released fine-tuning for matching: labelled pairs, and no contrast.

    The vision tower is frozen, and so are both projections and the temperature, which no pair depends on. Checkpoints
    are those of `R2D2Model`.

    Example:
        >>> model = R2D2ForImageTextMatching.from_pretrained(path).train()
        >>> model(**batch)["loss"].backward()
    """

    task = MatchingTask()
    default_objective = "matching"
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
