"""Benchmarks while a model is being trained."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import EarlyStoppingCallback, TrainerCallback

from ..embedding import Embedder
from ..embedding.backends.torch import title_and_lacks
from ..embedding.inputs import load_input
from ..errors import UnreadableImageError
from ..modeling.interface import DualEncoder, DualEncoderProcessor
from . import bundled
from .base import DataSet
from .catalogue import Benchmark, find_benchmark
from .encoding import Encoder
from .runner import names_language

logger = logging.getLogger(__name__)

Entry = tuple[str | Benchmark, str | Path, str | Path | None]  # benchmark, folder, images if they are elsewhere


class BenchmarkCallback(TrainerCallback):
    """Measures the model at each evaluation of a training run, or every so many steps.

    The numbers are logged as `eval_lit-cn/image_to_text/recall@1` and so on, with `eval_lit-cn/left_out`, and are among
    those of the evaluation: `metric_for_best_model` and early stopping may name one. They are what [`run`] gives for
    the folder that is saved, averaged weights included; with `bf16` they are computed by autocast, as in training. The
    model runs where it is: nothing is copied, cast or hashed, and training goes on as if nothing had been measured.

    All data sets are read at once, here: what is wrong with them stops a run before it begins. The processes of a run
    share the work.

    Args:
        trainer: The [`FGClip2Trainer`] that this is added to, before an `EarlyStoppingCallback` that waits for a number
            of a benchmark.
        benchmarks: Of each its name or [`Benchmark`], the folder of the data set, and its images (`None`: beside the
            rest); see [`run`].
        every_steps: Measure after each so many steps, and not at evaluations; `None`: at each evaluation.
        changes: Settings of all of them that are to differ from the paper's, e.g. `{"max_num_patches": "256"}`.

    Raises:
        ValueError: A data set can't be read, has no image that can be decoded, or is given twice; a setting is not
            allowed; the trainer divides its weights (FSDP); `every_steps` doesn't go with `metric_for_best_model`.

    Example:
        >>> trainer = FGClip2Trainer("my-checkpoint", args, train_dataset=records, eval_dataset=held_out)
        >>> benchmarks = [("lit-cn", "LIT-CN", None), ("urban-1k", "Urban1k", None)]
        >>> trainer.add_callback(BenchmarkCallback(trainer, benchmarks))
        >>> trainer.train()
    """

    def __init__(
        self,
        trainer: Any,
        benchmarks: Iterable[Entry],
        every_steps: int | None = None,
        changes: Mapping[str, str] | None = None,
    ):
        if every_steps is not None and every_steps < 1:
            raise ValueError(f"every_steps must be a positive integer, or None for each evaluation, got {every_steps}")
        if trainer.is_fsdp_enabled:
            raise ValueError(
                "benchmarks during training need whole weights on each process, which FSDP divides: take DDP or "
                "ZeRO-2, or run `fgclip2 bench run` on the saved folder"
            )
        self._trainer, self._every_steps, self._changes = trainer, every_steps, dict(changes or {})
        self._benchmarks: list[tuple[Benchmark, DataSet]] = []
        for name, folder, images in benchmarks:
            benchmark = find_benchmark(name) if isinstance(name, str) else name
            if any(benchmark.name == other.name for other, _ in self._benchmarks):
                raise ValueError(f"the benchmark {benchmark.name} is given twice; give it once")
            data = open_data_set(benchmark, folder, images, self._changes)
            logger.info("benchmark %s: %d images, %d items", benchmark.name, len(data.images), data.items)
            if data.problems:
                logger.warning(
                    "benchmark %s: %d records can't be used and are left out, e.g. %s",
                    benchmark.name,
                    len(data.problems),
                    data.problems[0],
                )
            self._benchmarks.append((benchmark, data))
        if every_steps and self._chooses_the_best():
            raise ValueError(
                f"metric_for_best_model={trainer.args.metric_for_best_model!r} is looked for at evaluations: leave "
                f"every_steps={every_steps} out, so that benchmarks run there"
            )

    def _chooses_the_best(self) -> bool:
        """Return whether the best checkpoint is the one with the best number of a benchmark."""
        metric = str(self._trainer.args.metric_for_best_model).removeprefix("eval_")
        return any(metric.startswith(f"{benchmark.name}/") for benchmark, _ in self._benchmarks)

    def measure(self) -> dict[str, float]:
        """Run the benchmarks, log their numbers and return them; all ranks must call it."""
        trainer = self._trainer
        values: dict[str, float] = {}
        with trainer.evaluating():
            # The model within DDP's, DeepSpeed's, the compiler's or PEFT's wrapper.
            module = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
            module = module.get_base_model() if hasattr(module, "get_base_model") else module
            model = _ModelInTraining(module, trainer.processing_class)
            encoder = Encoder(model, show_progress_bar=False)
            for benchmark, data in self._benchmarks:
                settings = benchmark.changed_settings("paper", self._changes)
                language = names_language(benchmark, data, None)
                scores = benchmark.task.evaluate(data, encoder, settings, language)  # no more of `run`: no intervals
                prefix = f"eval_{benchmark.name}"
                values |= {f"{prefix}/{name}": estimate.value for name, estimate in scores.metrics.items()}
                values[f"{prefix}/left_out"] = len(data.problems) + len(scores.left_out)
        should_log = trainer.control.should_log
        trainer.log(dict(values))
        trainer.control.should_log = should_log  # or the line of the losses, due in the same step, would be left out
        return values

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check that the run will call this, and in time.

        Raises:
            ValueError: Early stopping would look for a number before it is measured.
        """
        callbacks = self._trainer.callback_handler.callbacks
        before = callbacks[: callbacks.index(self)]
        if self._chooses_the_best() and any(isinstance(callback, EarlyStoppingCallback) for callback in before):
            raise ValueError(
                "EarlyStoppingCallback comes before BenchmarkCallback and would not see its numbers: call "
                "trainer.add_callback(EarlyStoppingCallback(...)) after it"
            )
        if self._every_steps is None and args.eval_strategy == "no":
            logger.warning("benchmarks don't run during training: eval_strategy is 'no', and no number of steps is set")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure, if it is time."""
        if self._every_steps is not None and state.global_step % self._every_steps == 0:
            self.measure()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure, and put the numbers among those of the evaluation, from which transformers takes the best one."""
        metrics: dict[str, float] = kwargs["metrics"]
        # Of several named sets each is an evaluation of its own; their numbers are put together afterwards.
        sets = self._trainer.eval_dataset
        is_first = not isinstance(sets, Mapping) or f"eval_{next(iter(sets))}_runtime" in metrics
        if self._every_steps is None and is_first:
            metrics.update(self.measure())


def parse_entries(benchmarks: Iterable[str], images: Iterable[str] = ()) -> list[Entry]:
    """Return what to measure from texts of the command line.

    Args:
        benchmarks: Texts "NAME=FOLDER", or names of the package's own, whose data are fetched.
        images: Texts "NAME=FOLDER" of benchmarks whose images are not beside the rest.

    Raises:
        ValueError: A text is of another form, or a name is of no benchmark.
        OSError: Data can't be fetched.
    """
    image_places = dict(_parse_pair("benchmark_images", text, "NAME=FOLDER") for text in images)
    entries: list[Entry] = []
    for text in benchmarks:
        name, path = _parse_pair("benchmarks", text, "NAME=FOLDER") if "=" in text else (text, None)
        found = bundled.find_benchmarks(name, None if path is None else Path(path))
        folder = bundled.fetch_bundled() if path is None else Path(path)
        entries += [(benchmark, folder, image_places.pop(benchmark.name, None)) for benchmark in found]
    if image_places:
        raise ValueError(
            f"benchmark_images names {', '.join(image_places)}, which is not measured: name it in benchmarks too"
        )
    return entries


def parse_changes(settings: Iterable[str]) -> dict[str, str]:
    """Return settings that are to differ from the paper's from texts "NAME=VALUE" of the command line.

    Raises:
        ValueError: A text is of another form.
    """
    return dict(_parse_pair("benchmark_settings", text, "NAME=VALUE") for text in settings)


def _parse_pair(option: str, text: str, form: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not (name and value):
        raise ValueError(f"{option}: {text!r} must be {form}")
    return name, value


def describe(entries: Iterable[Entry], changes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Read the data sets of benchmarks; return name, images, items and records left out of each.

    Raises:
        ValueError: A data set can't be read, or a setting is not allowed.
    """
    described = []
    for benchmark, folder, images in entries:
        row = find_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
        data = open_data_set(row, folder, images, changes)
        counts = {"images": len(data.images), "items": data.items, "left_out": len(data.problems)}
        described.append({"name": row.name, **counts})
    return described


def open_data_set(
    benchmark: Benchmark, folder: str | Path, images: str | Path | None, changes: Mapping[str, str]
) -> DataSet:
    """Read a data set, and decode one image of it.

    Raises:
        ValueError: It can't be read, or has no image that can be decoded.
    """
    settings = benchmark.changed_settings("paper", changes)
    data = benchmark.read(Path(folder), None if images is None else Path(images), settings)
    reason: object = data.problems[0] if data.problems else "it has none"
    for index, image in enumerate(data.images):
        try:
            load_input(index, image.read())
            return data
        except UnreadableImageError as error:
            reason = f"{image}: {error}"
    raise ValueError(f"{folder}: no image of {benchmark.name} can be used: {reason}")


class _ModelInTraining(Embedder):
    """An embedder of a model that belongs to a trainer.

    Not made by the parent's constructor, which casts the model and hashes all its weights. Without a fingerprint
    nothing is kept on disk.
    """

    def __init__(self, model: DualEncoder, processor: DualEncoderProcessor):
        self.replicas, self.processor = [model], processor
        self.title, self.lacks = title_and_lacks(model)
        self.name, self.revision = "the model in training", None
        self.fingerprint = None  # type: ignore[assignment]

    def encode_images(self, *args: Any, **options: Any) -> Any:
        """Embed images without a progress bar."""
        return super().encode_images(*args, **{**options, "show_progress_bar": False})

    def encode_texts(self, *args: Any, **options: Any) -> np.ndarray:
        """Embed texts without a progress bar."""
        return super().encode_texts(*args, **{**options, "show_progress_bar": False})
