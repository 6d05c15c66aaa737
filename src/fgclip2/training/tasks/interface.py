"""Structural protocols say what training asks of a model family, which meets them by files in this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol

from torch import Tensor, nn


class TrainingModel(Protocol):
    """A family's model with one forward for all that a batch needs, and what is to be known of its insides.

    Its wrappers (PEFT, torch.compile) hand these attributes on.

    Attributes:
        parts: Part of the parameters, as a plan names it -> beginnings of their names.
        heads: Modules between the towers and the embeddings, as far as they are trained.
        scales: Parameters that scale or shift the logits: never decayed. Those that shift end with `_bias`.
        towers: `"vision"` and `"text"` -> names of the embeddings, and of the list of encoder layers above them.
        embedding_size: Length of the embeddings.
        task: [`TrainingTask`] that the model is trained for.
        default_objective: Preset of the objective for runs that name none.
    """

    parts: Any
    heads: Any
    scales: Any
    towers: Any
    embedding_size: Any
    task: Any
    default_objective: Any

    def __call__(self, **batch: Any) -> dict[str, Tensor]:
        """Compute what the objective takes of a batch of the collator."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters with their names, as any module does."""

    def unused_parameters(self, settings: Any) -> list[str]:
        """Return the names of what an objective of these settings gives no gradient to.

        Raises:
            ValueError: The objective needs a parameter that the model does not have.
        """

    def count_patches(self, processor: Any, height: int, width: int, max_num_patches: int | str | None) -> int:
        """Return how many patches an image of this size in pixels becomes."""

    def activation_memory(self, config: Any, contents: Any, **options: Any) -> dict[str, Any]:
        """Return [`Activations`] of a step by part, in the order of the forward pass.

        Options as in [`FGClip2ForTraining`].
        """


class Objective(Protocol):
    """A module that turns the outputs of a training model into named losses.

    Its buffers are numbers that move in training; the trainer logs them and keeps them in checkpoints.

    Attributes:
        settings: A frozen dataclass of its settings.
        terms: Names of terms whose data records may lack, each with a weight `NAME_weight` in the settings.
        forward_arguments: What the model's forward takes beside a batch.
    """

    settings: Any
    terms: Any
    forward_arguments: Any

    def __call__(self, outputs: Mapping[str, Any], batch: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Return scalars: `loss`, and its parts by name."""


class TrainingMemory(Protocol):
    """What a run keeps beside weights and optimizer, e.g. a teacher; the same on all ranks."""

    def end_step(self, epoch: float) -> None:
        """Take note of a step of the optimizer, after which the run has got to this epoch."""

    def save(self, folder: Any) -> None:
        """Write what a run needs to go on into its checkpoint; called on all ranks."""

    def load(self, folder: Any) -> None:
        """Read what `save` wrote, or raise a `ValueError`."""


class TrainingTask(Protocol):
    """What a model is trained for: the objective, and the batches, the evaluation and the plan that go with it.

    Attributes:
        objectives: Presets of the objective.
        has_gradient_cache: Whether its losses are of embeddings alone, so that a step can be taken in parts
            ([`cached_step`]).
    """

    objectives: Any
    has_gradient_cache: Any

    def check_arguments(self, args: Any) -> None:
        """Check the arguments of a run.

        Raises:
            ValueError: One of them means nothing to the task.
        """

    def make_objective(self, preset: str, settings: Mapping[str, Any]) -> Any:
        """Return the [`Objective`] of a preset, with the settings that differ from it.

        Raises:
            ValueError: The preset or a setting is unknown, or a value is not allowed.
        """

    def make_collator(self, processor: Any, args: Any, settings: Any, training: bool = True) -> Callable[..., Any]:
        """Return the function that makes batches of drawn records, of an objective of these settings."""

    def embed_batches(
        self, model: Any, batches: Iterable[MutableMapping[str, Any]], objective: Any
    ) -> tuple[dict[str, Tensor], dict[str, float], list[str]]:
        """Run the model on this rank's batches of an evaluation.

        Returns:
            - On the CPU, over the records of all ranks, what [`evaluation_metrics`] takes; `image_hash` has a row for
              each record;
            - means over the batches of all ranks, by name;
            - the reasons for what this rank left out.
        """

    def evaluation_metrics(self, embedded: Mapping[str, Tensor]) -> dict[str, float]:
        """Return metrics of what [`embed_batches`] returned."""

    def step_contents(self, args: Any, data: Any, settings: Any) -> Any:
        """Return the [`StepContents`] that a batch is expected to have, of data summarised as [`DataSummary`]."""

    def describe_terms(self, settings: Any, data: Any) -> dict[str, dict[str, float]]:
        """Return the weight of each term, and the share of the records looked at that have data for it."""

    def advice(self, settings: Any, data: Any) -> list[str]:
        """Name settings that don't fit the data."""

    def start_memory(self, model: Any, settings: Any) -> Any:
        """Begin the [`TrainingMemory`] of a run that trains a model, or return `None` if it needs none."""

    def kept_memory(self, model: Any, settings: Any) -> float:
        """Return bytes of what a run keeps in memory beside weights and optimizer."""

    def saved_memory(self, model: Any, settings: Any) -> float:
        """Return bytes of the part of this that each checkpoint has."""

    def exchange_memory(self, model: Any, settings: Any, contents: Any, world_size: int) -> float:
        """Return bytes of what the losses of one process hold of all processes."""

    def exchange_traffic(self, model: Any, settings: Any, contents: Any, world_size: int) -> dict[str, float]:
        """Return bytes that a process sends for the losses of one batch, by the ways in which it can."""
