"""A structural protocol says what training asks of a model family, which meets it by one file in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn


class TrainingModel(Protocol):
    """A family's model with one forward for all embeddings of a batch, and what is to be known of its insides.

    Its wrappers (PEFT, torch.compile) hand these attributes on.

    Attributes:
        parts: Part of the parameters, as a plan names it -> beginnings of their names.
        heads: Modules between the towers and the embeddings, as far as they are trained.
        scales: Parameters that scale or shift the logits: never decayed. Those that shift end with `_bias`.
        towers: `"vision"` and `"text"` -> names of the embeddings, and of the list of encoder layers above them.
        embedding_size: Length of the embeddings.
        default_objective: Preset of the objective for runs that name none.
    """

    parts: Any
    heads: Any
    scales: Any
    towers: Any
    embedding_size: Any
    default_objective: Any

    def __call__(self, **batch: Tensor) -> dict[str, Tensor]:
        """Embed a batch of the collator: normalised rows by name ([`image_rows.ROWS_OF`]), and the scales."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters with their names, as any module does."""

    def unused_parameters(self, settings: Any) -> list[str]:
        """Return the names of what an objective of these settings gives no gradient to.

        Raises:
            ValueError: The objective needs a parameter that the model does not have.
        """

    def count_patches(self, processor: Any, height: int, width: int, max_num_patches: int | str | None) -> int:
        """Return how many patches an image of this size in pixels becomes."""

    def activation_memory(self, config: Any, contents: Any, **options: Any) -> dict[str, float]:
        """Return bytes of the activations of a step, tower by tower; options as in [`FGClip2ForTraining`]."""
