"""The tasks of models that compare pairs: retrieval by both stages, and telling pairs that match from others.

Their models compute the losses in their forward, where rows of other processes are gathered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import check_choice
from ...distributed import counts_over_ranks, device, gather_rows, sum_over_ranks
from ...metrics import matching_accuracy, roc_auc
from ..arguments import FGClip2TrainingArguments
from ..collator import raise_error
from ..estimates import FLOAT32, DataSummary, StepContents
from ..evaluation import distinct, recalls
from ..losses.ranking import MATCHING_FORMS, MatchingForm, gathered_contrastive_ranking_loss
from ..pair_collator import PairCollator

Rows = dict[str, Tensor]


@dataclass(frozen=True)
class RetrievalSettings:
    """Settings of retrieval, which has none: GCPR and FGR count the same, as released."""


@dataclass(frozen=True)
class MatchingSettings:
    """Settings of matching: the form of [`matching_loss`]."""

    form: MatchingForm = "nll"

    def __post_init__(self) -> None:
        check_choice("`form`", self.form, MATCHING_FORMS)


class PairObjective(nn.Module):
    """Hands on the losses that a model of pairs has computed; its settings are arguments of the model's forward."""

    terms = ()

    def __init__(self, settings: RetrievalSettings | MatchingSettings):
        super().__init__()
        self.settings = settings
        self.forward_arguments = asdict(settings)

    def forward(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Return the scalars among the outputs: `loss` and its parts."""
        return {name: value for name, value in outputs.items() if not value.ndim}


class PairTask:
    """What both tasks share of [`TrainingTask`].

    Attributes:
        objectives: The one preset of the task.
        settings: Class of the objective's settings.
        labelled: Whether records are labelled as matching or not.
        pairs_per_image: Pairs that the cross encoders compare for each image of a batch.
    """

    objectives: tuple[str, ...]
    settings: type[Any]
    labelled: bool
    pairs_per_image: int
    has_gradient_cache = False

    def check_arguments(self, args: FGClip2TrainingArguments) -> None:
        """Refuse what pairs have no use for."""
        if args.max_logit_scale is not None:
            raise ValueError(
                f"`max_logit_scale` must be None for a model with a temperature, which is kept from 0.001 to 0.5, got "
                f"{args.max_logit_scale}"
            )
        if args.short_caption_prefix:
            raise ValueError(
                f"`short_caption_prefix` must be empty for a model that takes captions as they are, got "
                f"{args.short_caption_prefix!r}"
            )
        if args.strategy == "fsdp":
            raise ValueError(
                "FSDP takes no parameters without dimensions, such as the temperature `temp` of this model: train by "
                "DDP, or by DeepSpeed ZeRO-2"
            )

    def make_objective(self, preset: str, settings: Mapping[str, Any]) -> PairObjective:
        """Return the objective."""
        check_choice("`objective`", preset, self.objectives)
        known = sorted(self.settings.__dataclass_fields__)
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(
                f"`objective_settings` must be of {', '.join(known) or 'nothing'} for the objective {preset!r}, got "
                f"{', '.join(unknown)}"
            )
        return PairObjective(self.settings(**settings))

    def make_collator(
        self, processor: Any, args: FGClip2TrainingArguments, settings: Any, training: bool = True
    ) -> PairCollator:
        """Return a collator of pairs."""
        return PairCollator(
            processor,
            labelled=self.labelled,
            max_num_patches=args.patch_budget,
            augmentation=args.image_augmentation,
            training=training,
            on_error=args.on_error,
            seed=args.order_seed,
        )

    def embed_batches(
        self, model: Any, batches: Iterable[MutableMapping[str, Any]], objective: PairObjective
    ) -> tuple[Rows, dict[str, float], list[str]]:
        """Run the model on this rank's batches, and gather what comes of it.

        Returns:
            Rows of the records of all ranks on the CPU; the mean loss over them; what this rank left out.
        """
        pieces, skipped = [self.no_rows(model)], []
        total = torch.zeros(2, dtype=torch.float64)  # loss times pairs, and pairs
        with torch.no_grad():
            for batch in batches:
                raise_error(batch)
                skipped += batch.pop("skipped", [])
                if len(batch["pixel_values"]):
                    rows, loss = self.embed_batch(model, batch, objective)
                    pieces.append(rows)
                    count = len(batch["pixel_values"])
                    total += torch.tensor([loss.item() * count, count], dtype=torch.float64)
        own = {name: torch.cat([piece[name].to(device()) for piece in pieces]) for name in pieces[0]}
        counts = [count for (count,) in counts_over_ranks([len(own["image_hash"])], device())]
        weighted, count = sum_over_ranks(total.to(device())).tolist()
        means = {self.loss_name: weighted / count} if count else {}
        return {name: gather_rows(rows, counts).cpu() for name, rows in own.items()}, means, skipped

    loss_name: str

    def no_rows(self, model: Any) -> Rows:
        """Return what [`embed_batch`] returns, without rows."""
        raise NotImplementedError

    def embed_batch(self, model: Any, batch: Mapping[str, Tensor], objective: PairObjective) -> tuple[Rows, Tensor]:
        """Return a batch's rows for the metrics, and its mean loss."""
        raise NotImplementedError

    def step_contents(self, args: FGClip2TrainingArguments, data: DataSummary, settings: Any) -> StepContents:
        """Return what a batch of one process holds: a caption of each image."""
        size = args.per_device_train_batch_size
        return StepContents(size, data.max_patches, short_texts=size, captions=size, long_texts=0.0, regions=0.0)

    def describe_terms(self, settings: Any, data: DataSummary) -> dict[str, dict[str, float]]:
        """Return nothing: every record has data for all terms, or can't be used."""
        return {}

    def advice(self, settings: Any, data: DataSummary) -> list[str]:
        """Return nothing: there are no terms to turn off."""
        return []


class RetrievalTask(PairTask):
    """Pairs that match, contrasted with each other (GCPR), and told from similar ones that do not match (FGR)."""

    objectives = ("retrieval",)
    settings = RetrievalSettings
    labelled = False
    pairs_per_image = 3  # with its text, with another, and its text with another image
    loss_name = "gcpr_loss"

    def no_rows(self, model: Any) -> Rows:
        """See the base class."""
        embeds, hashes = torch.zeros(0, model.embedding_size), torch.zeros(0, dtype=torch.int64)
        return {"image_embeds": embeds, "text_embeds": embeds, "image_hash": hashes, "text_hash": hashes}

    def embed_batch(self, model: Any, batch: Mapping[str, Tensor], objective: PairObjective) -> tuple[Rows, Tensor]:
        """Embed images and captions; the loss is GCPR within the batch."""
        text = model.get_text_features(batch["input_ids"], batch["attention_mask"])
        images = F.normalize(model.get_image_features(batch["pixel_values"]).float(), dim=-1)  # (B, D)
        texts = F.normalize(text.float(), dim=-1)
        ids = batch["ids"]
        loss = gathered_contrastive_ranking_loss(images, texts, model.temp, ids, images, texts, ids)
        rows = {name: batch[name] for name in ("image_hash", "text_hash")}
        return {"image_embeds": images, "text_embeds": texts, **rows}, loss

    def evaluation_metrics(self, embedded: Mapping[str, Tensor]) -> dict[str, float]:
        """Return recalls by cosines, and `r_mean`, the mean of those of both directions.

        Equal pictures are one image and equal captions one text, in however many records they are.
        """
        if not len(embedded["image_hash"]):
            return {}
        image, first_image = distinct(embedded["image_hash"])
        text, first_text = distinct(embedded["text_hash"])
        pairs = torch.stack([image, text], dim=1)  # (records, 2)
        found = recalls(embedded["image_embeds"][first_image], embedded["text_embeds"][first_text], pairs)
        return found | {"r_mean": sum(found.values()) / len(found)}

    def exchange_memory(self, model: Any, settings: Any, contents: StepContents, world_size: int) -> float:
        """Return bytes of the tokens of all processes: of images, and of texts with their gradients."""
        if world_size == 1:
            return 0.0
        images, texts = _token_values(model.config, contents)
        return FLOAT32 * world_size * (images + 2 * texts)

    def exchange_traffic(self, model: Any, settings: Any, contents: StepContents, world_size: int) -> dict[str, float]:
        """Return bytes of the tokens and embeddings sent to the others, and of the gradients (an all-reduce)."""
        images, texts = _token_values(model.config, contents)
        embeddings = 2 * contents.images * model.embedding_size
        return {"tokens": FLOAT32 * (world_size - 1) * (images + 3 * (texts + embeddings))}


class MatchingTask(PairTask):
    """Pairs labelled as matching or not."""

    objectives = ("matching",)
    settings = MatchingSettings
    labelled = True
    pairs_per_image = 1
    loss_name = "loss"

    def no_rows(self, model: Any) -> Rows:
        """See the base class."""
        whole = torch.zeros(0, dtype=torch.int64)
        return {"probability": torch.zeros(0), "labels": whole, "image_hash": whole}

    def embed_batch(self, model: Any, batch: Mapping[str, Tensor], objective: PairObjective) -> tuple[Rows, Tensor]:
        """Compute how likely each pair matches, and the loss."""
        inputs = {name: value for name, value in batch.items() if not name.endswith("_hash")}
        outputs = model(**inputs, **objective.forward_arguments)
        rows = {name: batch[name] for name in ("labels", "image_hash")}
        return {"probability": outputs["probability"].float(), **rows}, outputs["loss"]

    def evaluation_metrics(self, embedded: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `accuracy`, of a probability of one half or more, and `auc`, the area under the ROC curve.

        The area is left out where all labels are the same.
        """
        probability, labels = embedded["probability"].numpy(), embedded["labels"].numpy().astype(bool)
        if not len(labels):
            return {}
        metrics = {"accuracy": matching_accuracy(probability, labels, 0.5)}
        return metrics if labels.all() or not labels.any() else metrics | {"auc": roc_auc(probability, labels)}

    def exchange_memory(self, model: Any, settings: Any, contents: StepContents, world_size: int) -> float:
        """Return zero: each process has its own pairs."""
        return 0.0

    def exchange_traffic(self, model: Any, settings: Any, contents: StepContents, world_size: int) -> dict[str, float]:
        """Return nothing: each process has its own pairs."""
        return {}


def _token_values(config: Any, contents: StepContents) -> tuple[float, float]:
    """Return how many values the tokens of a batch's images have, and those of its texts."""
    images = contents.images * (1 + contents.patches) * config.vision_config.hidden_size
    return images, contents.short_texts * config.max_length * config.text_config.hidden_size
