"""The tasks of models that compare pairs: retrieval by both stages, and telling pairs that match from others.

Their models compute the losses in their forward, where rows of other processes are gathered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import check_choice, check_positive_integer
from ...distributed import counts_over_ranks, device, gather_rows, rank, sum_over_ranks
from ...metrics import matching_accuracy, recall_at_k, roc_auc, score_ranks
from ..arguments import FGClip2TrainingArguments
from ..collator import raise_error
from ..estimates import FLOAT32, DataSummary, StepContents
from ..evaluation import distinct, recalls
from ..losses.arithmetic import cosines
from ..losses.ranking import MATCHING_FORMS, MatchingForm, gathered_contrastive_ranking_loss
from ..pair_collator import PairCollator
from ..pixel_values import normalize_pixels
from ..rows_on_disk import RowsOnDisk

Rows = dict[str, Tensor]

_PAIRS_AT_ONCE = 256  # that an evaluation compares by cross encoders


@dataclass(frozen=True)
class RetrievalSettings:
    """Settings of retrieval. GCPR and FGR have no weights: they count the same, as released.

    Args:
        candidates: How many of the best candidates of each query an evaluation orders anew by `rank_scores`; 0: none.
            Each process keeps the tokens of its images in a temporary file meanwhile, 0.6 MB an image of ViT-B.
    """

    candidates: int = field(default=0, metadata={"is_of_evaluation": True})

    def __post_init__(self) -> None:
        if self.candidates != 0:
            check_positive_integer("`candidates`", self.candidates)


@dataclass(frozen=True)
class MatchingSettings:
    """Settings of matching: the form of [`matching_loss`]."""

    form: MatchingForm = "nll"

    def __post_init__(self) -> None:
        check_choice("`form`", self.form, MATCHING_FORMS)


class PairObjective(nn.Module):
    """Hands on the losses that a model of pairs has computed.

    Its settings are arguments of the model's forward, but for those of evaluations.
    """

    terms = ()

    def __init__(self, settings: RetrievalSettings | MatchingSettings):
        super().__init__()
        self.settings: Any = settings
        of_training = (field for field in fields(settings) if not field.metadata.get("is_of_evaluation"))
        self.forward_arguments = {field.name: getattr(settings, field.name) for field in of_training}

    def forward(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Return the scalars among the outputs: `loss` and its parts."""
        return {name: value for name, value in outputs.items() if not value.ndim}


class PairTask(ABC):
    """What the tasks of pairs share of [`TrainingTask`].

    Attributes:
        objectives: The one preset of the task.
        settings: Class of the objective's settings.
        labelled: Whether records are labelled as matching or not.
        pairs_per_image: Pairs that the cross encoders compare for each image of a batch.
        reason_without_rows: Why an evaluation leaves out images of a batch, where a task does.
    """

    objectives: tuple[str, ...]
    settings: type[Any]
    labelled: bool
    pairs_per_image: int
    reason_without_rows = ""
    has_gradient_cache = False

    def check_arguments(self, args: FGClip2TrainingArguments) -> None:
        """Refuse what pairs have no use for."""
        if args.max_logit_scale is not None:
            raise ValueError(
                f"`max_logit_scale` must be None for a model with a temperature, which is kept from 0.001 to 0.5, got "
                f"{args.max_logit_scale}"
            )
        if args.patch_dropout:
            raise ValueError(
                f"`patch_dropout` must be 0 for a model that compares all tokens of an image, got "
                f"{args.patch_dropout!r}"
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
        self,
        processor: Any,
        args: FGClip2TrainingArguments,
        settings: Any,
        training: bool = True,
        mask_probability: float = 0.0,
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
            mask_probability=mask_probability,
        )

    def embed_batches(
        self,
        model: Any,
        batches: Iterable[MutableMapping[str, Any]],
        objective: PairObjective,
        embed_batch: Callable[..., tuple[Rows, Tensor]] | None = None,
    ) -> tuple[Rows, dict[str, float], list[str]]:
        """Run the model on this rank's batches by [`embed_batch`], if no other is given, and gather what comes of it.

        Returns:
            Rows of the records of all ranks on the CPU; the mean loss over them; what this rank left out.
        """
        pieces, skipped = [self.rows_to_gather(model, objective)], []
        total = torch.zeros(2, dtype=torch.float64)  # loss times pairs, and pairs
        with torch.no_grad():
            for batch in batches:
                raise_error(batch)
                batch = normalize_pixels(batch)
                skipped += batch.pop("skipped", [])
                if len(batch["pixel_values"]):
                    rows, loss = (embed_batch or self.embed_batch)(model, batch, objective)
                    pieces.append(rows)
                    count = len(rows["image_hash"])
                    skipped += [self.reason_without_rows] * (len(batch["pixel_values"]) - count)
                    total += torch.tensor([loss.item() * count, count], dtype=torch.float64)
        own = {name: torch.cat([piece[name].to(device()) for piece in pieces]) for name in pieces[0]}
        counts = [count for (count,) in counts_over_ranks([len(own["image_hash"])], device())]
        weighted, count = sum_over_ranks(total.to(device())).tolist()
        means = {self.loss_name: weighted / count} if count else {}
        return {name: gather_rows(rows, counts).cpu() for name, rows in own.items()}, means, skipped

    loss_name: str

    def start_memory(self, model: Any, settings: Any) -> Any:
        """Return `None`: nothing is kept beside the weights."""
        return None

    def kept_memory(self, model: Any, settings: Any) -> float:
        """Return zero, likewise."""
        return 0.0

    def saved_memory(self, model: Any, settings: Any) -> float:
        """Return bytes of all that is kept."""
        return self.kept_memory(model, settings)

    @abstractmethod
    def no_rows(self, model: Any) -> Rows:
        """Return what [`embed_batch`] returns, without rows."""

    def rows_to_gather(self, model: Any, objective: PairObjective) -> Rows:
        """Return the same under an objective, whose settings may ask for more."""
        return self.no_rows(model)

    @abstractmethod
    def embed_batch(self, model: Any, batch: Mapping[str, Tensor], objective: PairObjective) -> tuple[Rows, Tensor]:
        """Return a batch's rows for the metrics, and its mean loss."""

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

    def rows_to_gather(self, model: Any, objective: PairObjective) -> Rows:
        """See the base class; with `candidates` the texts too."""
        rows = self.no_rows(model)
        if objective.settings.candidates:
            no_texts = torch.zeros(0, model.config.max_length, dtype=torch.int64)
            rows |= {"input_ids": no_texts, "attention_mask": no_texts}
        return rows

    def embed_batch(
        self,
        model: Any,
        batch: Mapping[str, Tensor],
        objective: PairObjective,
        image_tokens_on_disk: RowsOnDisk | None = None,
    ) -> tuple[Rows, Tensor]:
        """Embed images and captions; the loss is GCPR within the batch. Tokens of images are put on disk, if given."""
        image_tokens = model.get_image_tokens(batch["pixel_values"])
        text_tokens = model.get_text_tokens(batch["input_ids"], batch["attention_mask"])
        images = F.normalize(model.vision_proj(image_tokens[:, 0]).float(), dim=-1)  # (B, D)
        texts = F.normalize(model.text_proj(text_tokens[:, 0]).float(), dim=-1)
        ids = batch["ids"]
        loss = gathered_contrastive_ranking_loss(images, texts, model.temp, ids, images, texts, ids)
        rows = {"image_embeds": images, "text_embeds": texts}
        rows |= {name: batch[name] for name in ("image_hash", "text_hash")}
        if image_tokens_on_disk is not None:
            image_tokens_on_disk.append(image_tokens)
            missing = model.config.max_length - text_tokens.shape[1]  # as long as those of other batches
            rows |= {name: F.pad(batch[name], (0, missing)) for name in ("input_ids", "attention_mask")}
        return {name: value.cpu() for name, value in rows.items()}, loss

    def embed_batches(  # type: ignore[override]
        self, model: Any, batches: Iterable[MutableMapping[str, Any]], objective: PairObjective
    ) -> tuple[Rows, dict[str, float], list[str]]:
        """See the base class; with `candidates` also those of each image and of each text, and their scores."""
        candidates, vision = objective.settings.candidates, model.config.vision_config
        if not candidates:
            return super().embed_batches(model, batches, objective)
        with RowsOnDisk(1 + (vision.image_size // vision.patch_size) ** 2, vision.hidden_size) as tokens:
            embed_batch = partial(self.embed_batch, image_tokens_on_disk=tokens)
            embedded, means, skipped = super().embed_batches(model, batches, objective, embed_batch)
            if len(embedded["image_hash"]):
                images, texts, _ = _distinct_rows(embedded)
                similarity = cosines(
                    embedded["image_embeds"][images], embedded["text_embeds"][texts]
                )  # (images, texts)
                of_images = similarity.topk(min(candidates, len(texts))).indices
                of_texts = similarity.T.topk(min(candidates, len(images))).indices
                compared = torch.zeros_like(similarity, dtype=torch.bool).scatter(1, of_images, True)
                compared |= torch.zeros_like(compared.T).scatter(1, of_texts, True).T
                pairs = compared.nonzero()  # each once, whichever of both it is a candidate of
                scores = torch.zeros_like(similarity)
                scores[compared] = _rank_scores(model, tokens, embedded, images[pairs[:, 0]], texts[pairs[:, 1]])
                embedded |= {"candidate_texts": of_images, "candidate_images": of_texts, "scores": scores}
        return embedded, means, skipped

    def evaluation_metrics(self, embedded: Mapping[str, Tensor]) -> dict[str, float]:
        """Return recalls by cosines, and `r_mean`, the mean of those of both directions; `reranked_` before both.

        Equal pictures are one image and equal captions one text, in however many records they are.
        """
        if not len(embedded["image_hash"]):
            return {}
        images, texts, right = _distinct_rows(embedded)
        by_cosine = recalls(embedded["image_embeds"][images], embedded["text_embeds"][texts], right)
        metrics = by_cosine | {"r_mean": sum(by_cosine.values()) / len(by_cosine)}
        if "scores" in embedded:
            reranked: dict[str, float] = {}
            for direction, scores, candidates, pairs in (
                ("image_to_text", embedded["scores"], embedded["candidate_texts"], right),
                ("text_to_image", embedded["scores"].T, embedded["candidate_images"], right.flip(1)),
            ):
                others_last = torch.full_like(scores, -torch.inf)
                order = others_last.scatter(1, candidates, scores.gather(1, candidates))
                ranks = torch.as_tensor(score_ranks(order, pairs))
                # Of what is no candidate all tie, in small sets for a place among the first ten: it has none.
                found = pairs[order[tuple(pairs.unbind(1))] > -torch.inf, 0]
                is_missed = torch.ones(len(order), dtype=torch.bool).index_fill(0, found, False)
                ranks = ranks.masked_fill(is_missed, torch.iinfo(ranks.dtype).max)
                reranked |= {f"reranked_{direction}_recall@{k}": value for k, value in recall_at_k(ranks).items()}
            metrics |= reranked | {"reranked_r_mean": sum(reranked.values()) / len(reranked)}
        return metrics

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


def _distinct_rows(embedded: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return a row of each distinct image and of each distinct text, and their right pairs (records, 2) by number."""
    image, first_image = distinct(embedded["image_hash"])
    text, first_text = distinct(embedded["text_hash"])
    return first_image, first_text, torch.stack([image, text], dim=1)


def _rank_scores(
    model: Any, image_tokens: RowsOnDisk, embedded: Mapping[str, Tensor], images: Tensor, texts: Tensor
) -> Tensor:
    """Return what orders candidates, float32 (P,), of pairs given by their rows, in the order of ranks.

    Each rank compares the images whose tokens it has, with texts that it encodes again, a few pairs at a time.
    """
    counts = [count for (count,) in counts_over_ranks([len(image_tokens)], device())]
    start = sum(counts[: rank()])
    own = ((images >= start) & (images < start + len(image_tokens))).nonzero()[:, 0]
    scores = torch.zeros(len(images))
    with torch.no_grad():
        for pairs in own[texts[own].argsort(stable=True)].split(_PAIRS_AT_ONCE):  # text by text
            rows, text = texts[pairs].unique(return_inverse=True)
            ids, mask = (embedded[name][rows].to(model.device) for name in ("input_ids", "attention_mask"))
            text_tokens = model.get_text_tokens(ids, mask).float()
            tokens = image_tokens[images[pairs] - start].to(model.device)
            scores[pairs] = model.rank_scores(tokens, text_tokens[text], mask[text]).float().cpu()
    return sum_over_ranks(scores.to(device())).cpu()
