"""FGClip2Trainer: transformers' Trainer with the objective of FG-CLIP 2, of the first FG-CLIP, or of R2D2."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, HubStrategy, IntervalStrategy, SaveStrategy

from ..checks import check_choice
from ..data.records import RecordDataset
from ..data.shards import ShardedRecords
from ..distributed import (
    barrier,
    end_process_group,
    gather_objects,
    join_on_machine,
    rank,
    sum_over_ranks,
    world_size,
)
from ..embedding.devices import warn_of_slow_bfloat16
from ..files import read_json
from ..modeling.interface import DualEncoderProcessor
from .arguments import FGClip2TrainingArguments
from .averaging import WeightAverage
from .card import base_name, check_base_is_public, write_card
from .checkpoints import (
    OPTIMIZER,
    SCALER,
    SCHEDULER,
    TRAINER_STATE,
    best_checkpoint,
    check_checkpoint,
    check_resumable,
    load_random_state,
    load_state,
    save_random_state,
    save_state,
    seal_checkpoint,
)
from .collator import ErrorsAsBatches, raise_error
from .distillation import FrozenStart
from .evaluation import share_of_rank
from .gradient_cache import cached_step
from .hub_checkpoints import locate_checkpoint, push_checkpoint
from .image_rows import count_images
from .log_window import LogWindow
from .missing_data import terms_without_data
from .mixture import sampling_rates_of, sources_of
from .parameters import belongs_to, clamp_scales, freeze, parameter_groups
from .patch_counts import check_patch_batches, digest_of_counts, read_patch_counts
from .pixel_values import normalize_pixels
from .reporting import name_wandb_project
from .run_checks import check_evaluation, check_memory_options, check_names_of_sets, check_strategy
from .sampler import BatchOrderSampler, DrawnRecords, DrawnStream
from .start import in_training, load_for_training, load_processor
from .stopping import NotedSigterm, check_step, check_weights, heed_parent_only, losses_in_order
from .tasks.interface import Objective, TrainingMemory, TrainingTask
from .tasks.rows import set_text_chunk_size

logger = logging.getLogger(__name__)

_STATE_NAME = "FGClip2Objective"
_SHORT_RUN_LOGS = 10  # lines in the log of a run that has fewer steps than `logging_steps`
_REPORTED_SKIPS = 20  # one by one; after so many only their number
# Records left out in a row that end a run: from the start on, and later, where a whole shard may be bad.
_HOPELESS, _LOST = 256, 4096


class FGClip2Trainer(Trainer):
    """Fine-tunes or pre-trains FG-CLIP 2, the first FG-CLIP or R2D2, with its whole objective, on 1 to N processes.

    Works unchanged in one process and under `torchrun` or `accelerate launch` (DDP, FSDP2, DeepSpeed ZeRO-2). A run
    that was stopped at any moment and continued by `train(resume_from_checkpoint=True)` goes on from its last complete
    checkpoint with the same losses as the uninterrupted run.

    Logged beside `loss`: each loss of the objective by itself (mean over ranks and steps), its rank margin, the scales,
    `samples_per_second`, `data_wait` (share of the time spent waiting for the loader) and `skipped` (records left out
    so far).

    Args:
        model: A training model such as [`FGClip2ForTraining`] or [`R2D2ForImageTextMatching`], the plain model of a
            family, PEFT's wrapper of either, or a folder or hub id, also of an adapter, which is then trained further.
        args: [`FGClip2TrainingArguments`].
        train_dataset: A [`RecordDataset`], or a [`ShardedRecords`] stream made for this rank.
        eval_dataset: A [`RecordDataset`] (of shards, that of `read_shards`), or a dict of them by name, e.g.
            `{"en": ..., "zh": ...}`.
        processing_class: The checkpoint's processor; `None`: loaded with a `model` given by its name.
        objective: `None`: what `args` says.
        kwargs: `callbacks`, `optimizers` and so on, of transformers' `Trainer`.

    Raises:
        ValueError: Arguments that don't go together; the message says which.

    Example:
        >>> from fgclip2 import FGClip2Trainer, FGClip2TrainingArguments
        >>> from fgclip2.data import read_finehard
        >>> args = FGClip2TrainingArguments("run", per_device_train_batch_size=64, learning_rate=1e-5, bf16=True)
        >>> records = read_finehard("FineHARD/jsonfiles", "FineHARD/images")
        >>> FGClip2Trainer("my-checkpoint", args, train_dataset=records).train()
    """

    args: FGClip2TrainingArguments
    objective: Any  # meets `tasks.interface.Objective`, and is a module
    data_names: Sequence[str] = ()  # of the data sets, for the card
    model: Any  # transformers allows None, which never stays; so below
    optimizer: Any
    lr_scheduler: Any
    state: Any

    # The objective's losses are means over the batch: accumulated steps are averaged.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: nn.Module | str | Path,
        args: FGClip2TrainingArguments,
        train_dataset: RecordDataset | ShardedRecords | None = None,
        eval_dataset: RecordDataset | Mapping[str, RecordDataset] | None = None,
        processing_class: DualEncoderProcessor | None = None,
        objective: Objective | None = None,
        **kwargs: Any,
    ):
        if processing_class is None and isinstance(model, (str, Path)):
            processing_class = load_processor(model)
        if processing_class is None:
            raise ValueError(
                "processing_class is missing: pass the processor of the checkpoint, e.g. "
                "FGClip2Processor.from_pretrained(checkpoint)"
            )
        module = _training_module(model, args.objective)
        self._task: TrainingTask = module.task
        self._task.check_arguments(args)
        check_memory_options(args, module)
        preset = args.objective or module.default_objective
        check_choice("`objective`", preset, self._task.objectives)
        self.objective = objective or self._task.make_objective(preset, args.settings)
        settings = self.objective.settings
        check_strategy(args, module, settings)
        if world_size() != args.world_size:
            # Without an accelerator transformers may start a process group, and then train in each process for itself.
            raise ValueError(
                f"{world_size()} processes run, but the arguments know of {args.world_size}: each would train for "
                "itself. Without an accelerator set use_cpu=True"
            )
        if args.push_to_hub and hasattr(module, "peft_config"):
            check_base_is_public(module)
        if args.bf16:
            warn_of_slow_bfloat16(args.device, torch.bfloat16)
        name_wandb_project(args)
        self._frozen = _freeze(module, settings, args)
        self._collator = partial(self._task.make_collator, processing_class, args, settings)
        _check_options(kwargs)
        check_evaluation(args, eval_dataset, self.objective.terms)
        check_patch_batches(args.patch_batches, processing_class)
        super().__init__(
            model=module,
            args=args,
            data_collator=ErrorsAsBatches(self._collator()),
            train_dataset=None if train_dataset is None else _drawn(train_dataset, args),
            eval_dataset=eval_dataset,
            processing_class=processing_class,  # type: ignore[arg-type]  # ours meet the protocol alone
            **kwargs,
        )
        if args.n_gpu > 1:
            logger.warning("using 1 of %d devices: start with `torchrun --nproc_per_node=%d`", args.n_gpu, args.n_gpu)
            args._n_gpu = 1
            self._train_batch_size = args.train_batch_size
        if not self.is_deepspeed_enabled:
            _check_float32(module)
        if args.patch_batches == "alike" and isinstance(train_dataset, ShardedRecords):
            train_dataset.group_by_patches(self._count_patches)
        self.objective.to(args.device)
        self.model_accepts_loss_kwargs = False
        self._average: WeightAverage | None = None
        self._memory: TrainingMemory | None = None
        self._push: Future | None = None  # of a checkpoint to the hub
        self._left_out: list[Path] = []  # checkpoints since then
        self._start = self._frozen_start(settings)
        self._resumed_from: str | None = None
        self._sampler: BatchOrderSampler | None = None
        self._patches: np.ndarray | None = None  # of each image, once they are read
        self._first_step = 0
        self._begin_counting()
        self._is_checkpointing = False
        self._off: list[str] = []  # terms without data
        self._sigterm = NotedSigterm()
        self._is_stopping = False  # after the step under way, on all ranks
        self.add_callback(_RunCallback(self))

    def _begin_counting(self) -> None:
        """Let what is counted be as before the first step of a run."""
        self._epoch: int | None = None  # None: none has begun
        self._window = LogWindow()
        self._step_values: list[tuple[str, Tensor]] = []  # losses of the step under way
        self._skipped = 0  # records left out on this rank
        self._first_skip: str | None = None
        self._is_first_window = True  # of those with samples
        self._skipped_before = 0.0  # on all ranks, when the last window with samples ended, or at the start
        self._log_every: int | None = None  # steps, where `logging_steps` are more than the run has

    def _frozen_start(self, settings: Any) -> FrozenStart | None:
        """Keep the model as it is now, before any checkpoint is loaded into it, if distillation has weight."""
        if not getattr(settings, "distillation_weight", 0.0):
            return None
        # DeepSpeed has no autocast: it makes the model and its inputs of the dtype of the run.
        dtype = self.accelerator.state.deepspeed_plugin.hf_ds_config.dtype() if self.is_deepspeed_enabled else None
        return FrozenStart(self.model, self.args.device, dtype)

    # -- data ---------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """Give the batches of this rank. A stream is divided already, so accelerate must not divide it again."""
        is_stream = isinstance(self.train_dataset, DrawnStream)
        loader = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_size=self._train_batch_size,
            sampler=None if is_stream else self._get_train_sampler(),
            drop_last=True,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            multiprocessing_context=getattr(self.args, "dataloader_multiprocessing_context", None),  # new in 5.2x
            in_order=getattr(self.args, "dataloader_in_order", True),
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            # Each iteration draws a seed for its workers, persistent ones in their first only. Out of the random state
            # of the model, a run that goes on would draw one more, and have other dropout from then on.
            generator=torch.Generator(),
            worker_init_fn=heed_parent_only,
        )
        return loader if is_stream else self.accelerator.prepare(loader)

    def _get_train_sampler(self, train_dataset: Any = None) -> BatchOrderSampler:
        drawn: Any = self.train_dataset if train_dataset is None else train_dataset
        self._sampler = BatchOrderSampler(
            sources_of(drawn.records, join=join_on_machine),
            self._train_batch_size,
            self.args.world_size,
            self.args.language_batches,
            self.args.order_seed,
            getattr(drawn.records, "neighbours", None),
            getattr(drawn.records, "group_size", 1),
            self._patch_counts(drawn.records) if self.args.patch_batches == "alike" else None,
            self.args.shares_of_languages,
        )
        if self._sampler.left_out:
            logger.info("%d records are left out of each epoch, others each time", self._sampler.left_out)
        return self._sampler

    def _patch_counts(self, records: RecordDataset) -> np.ndarray:
        """Return how many patches each image has, read once in the life of this trainer."""
        if self._patches is None:
            self._patches = read_patch_counts(records, self._count_patches)
        return self._patches

    @property
    def _count_patches(self) -> Callable[[int, int], int]:
        return partial(self.model.count_patches, self.processing_class, max_num_patches=self.args.patch_budget)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Give this rank's share of the records, every record once, whatever the number of ranks."""
        known: Any = self.eval_dataset
        if eval_dataset is None or isinstance(eval_dataset, str):
            eval_dataset = known if eval_dataset is None else known[eval_dataset]
        if not isinstance(eval_dataset, RecordDataset):
            raise ValueError(f"`eval_dataset` must be a RecordDataset, got {type(eval_dataset).__name__}")
        return DataLoader(
            DrawnRecords(eval_dataset),
            batch_sampler=share_of_rank(eval_dataset, self.args.eval_batch_size),
            collate_fn=ErrorsAsBatches(self._collator(training=False)),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            worker_init_fn=heed_parent_only,
        )

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Give the same for `predict`, which has metrics and no predictions."""
        return self.get_eval_dataloader(test_dataset)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Fetch the batches of a step, and note how long that took and what was left out."""
        start = time.perf_counter()
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._window.waited += time.perf_counter() - start
        for batch in batches:
            raise_error(batch)
            self._window.samples += count_images(batch)
            for reason in batch.pop("skipped"):
                self._skipped += 1
                self._first_skip = self._first_skip or reason
                if self._skipped <= _REPORTED_SKIPS:
                    logger.warning("left out: %s", reason)
                if self._skipped == _REPORTED_SKIPS:
                    logger.warning("further records left out are only counted, in the log as `skipped`")
        return batches, num_items

    # -- a step -------------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the objective on one batch of the collator."""
        inputs = self._with_start(normalize_pixels(inputs))
        outputs = model(**inputs, **self.objective.forward_arguments)
        losses = self.objective.train(model.training)(outputs, inputs)
        if model.training:
            self._note(losses)
        return (losses["loss"], outputs) if return_outputs else losses["loss"]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Go forward and backward once; with `gradient_cache_chunk_size` as [`cached_step`] does."""
        if self.args.gradient_cache_chunk_size is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        losses = cached_step(
            model,
            self.objective.train(),
            self._with_start(self._prepare_inputs(inputs)),
            self.args.gradient_cache_chunk_size,
            scale=1 / self.current_gradient_accumulation_steps,
            backward=self.accelerator.backward,
            no_sync=partial(self.accelerator.no_sync, model),
        )
        self._note(losses)
        return losses["loss"] / self.current_gradient_accumulation_steps

    def _with_start(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add what the frozen start makes of a batch, where distillation has weight."""
        if self._start is None:
            return batch
        with self.accelerator.autocast():
            return batch | self._start.embed(batch, self.args.gradient_cache_chunk_size)

    def _note(self, losses: Mapping[str, Tensor]) -> None:
        self._window.add(losses)
        self._step_values += losses_in_order(losses)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Check the numbers of a step, of all its accumulated batches, before the optimizer takes it."""
        norm = super()._get_grad_norm(model, grad_norm)
        values = [*self._step_values, *self.objective.named_buffers()]
        # In fp16 gradients overflow now and then: the scaler leaves out such steps.
        if norm is not None and self.accelerator.mixed_precision != "fp16":
            whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            values.append(("the gradient norm", torch.as_tensor(whole, device=self.args.device)))
        self._step_values = []
        step, told = self.state.global_step + 1, self._sigterm.received
        self._is_stopping = check_step(step, values, str(self.args.output_dir), told)
        return norm

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make transformers' choice of optimizer, with groups by learning rate and without decay of scales and bias."""
        if self.optimizer is None:
            trained: Any = self.model if model is None else model
            args = self.args
            rates = (args.learning_rate, args.head_learning_rate, args.layer_decay)
            groups = parameter_groups(trained, self.get_decay_parameter_names(trained), args.weight_decay, *rates)
            optimizer_class, arguments = self.get_optimizer_cls_and_kwargs(self.args, trained)
            if set(arguments) & {"params", "model", "optimizer_dict"}:
                raise ValueError(
                    f"optim={self.args.optim!r} chooses its own parameter groups; allowed: e.g. adamw_torch"
                )
            self.optimizer = optimizer_class(groups, **arguments)
        return self.optimizer

    # -- log ----------------------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the objective and the loader have to say to the training log; called on every rank alike."""
        if "loss" in logs and self._window.steps:
            window = self._window.close(self.args.device)
            logs = {**logs, **window, **self._scales(), "skipped": self._skipped_on_all_ranks()}
            if not window["samples_per_second"]:
                self._judge_window_without_samples(logs["skipped"])
            else:
                self._skipped_before, self._first_skip = logs["skipped"], None
                if self._is_first_window:
                    self._warn_of_missing_data(window)
        super().log(logs, start_time)

    def _skipped_on_all_ranks(self) -> float:
        return sum_over_ranks(torch.tensor(float(self._skipped), device=self.args.device)).item()

    def _judge_window_without_samples(self, skipped: float) -> None:
        """Some bad records in a row are left out like others; a wrong path or a lost disk ends the run."""
        in_a_row = skipped - self._skipped_before
        stream: Any = self.train_dataset
        epoch = len(stream) * world_size() if self._sampler is None else len(self._sampler)
        begins_badly = self._is_first_window and self._sampler is not None  # of a stream, its first shard may be bad
        if in_a_row >= min(_HOPELESS if begins_badly else _LOST, epoch):
            self._raise_without_samples(in_a_row)
        if rank() == 0:
            logger.warning("no record could be used since the last line of the log; %d are left out so far", skipped)

    def _raise_without_samples(self, count: float) -> None:
        raise ValueError(
            f"every record was left out, {count:.0f} in a row, by on_error='skip'; the first of rank {rank()}: "
            f"{self._first_skip} (fgclip2 data validate lists what is wrong with a data set)"
        )

    def _warn_of_missing_data(self, window: Mapping[str, float]) -> None:
        """A term without data trains nothing, but weight decay moves its heads."""
        self._is_first_window = False
        weights = vars(self.objective.settings)
        for term in self.objective.terms:
            if term in ("tic", "distillation"):  # of the same regions as the term before it; zero in the first step
                continue
            if weights[f"{term}_weight"] and window.get(f"{term}_loss") == 0:
                logger.warning(
                    "no data for %s_loss so far, though it has weight: objective_settings={'%s_weight': 0} if there is "
                    "none",
                    term,
                    term,
                )

    def _scales(self) -> dict[str, float]:
        values = {}
        for name, parameter in self.model.named_parameters():
            if belongs_to(name, self.model.scales):
                whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
                values[name.split(".")[-1]] = whole.item()  # as stored: of the scales the logarithm
        return values | {name: buffer.item() for name, buffer in self.objective.named_buffers()}

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(  # type: ignore[override]
        self,
        eval_dataset: RecordDataset | dict[str, RecordDataset] | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate on the records of this trainer, or on others, which may be a dict by name too.

        Raises:
            ValueError: Two of the others could have numbers of the same name.
        """
        if isinstance(eval_dataset, dict):
            check_names_of_sets(eval_dataset, self.objective.terms)
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)  # type: ignore[arg-type]

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Compute losses, recalls and accuracies, as the model's task has them, of the averaged weights if any.

        The same on any number of processes.
        """
        with self.evaluating() as model:
            batches = map(self._prepare_inputs, dataloader)
            embedded, means, skipped = self._task.embed_batches(model, batches, self.objective)
        start = time.perf_counter()
        for reason in skipped:
            logger.warning("left out of the evaluation: %s", reason)
        metrics = means | self._task.evaluation_metrics(embedded)
        metrics["skipped"] = sum_over_ranks(torch.tensor(float(len(skipped)), device=self.args.device)).item()
        self._window.leave_out(time.perf_counter() - start)
        return EvalLoopOutput(
            predictions=None,  # type: ignore[arg-type]
            label_ids=None,
            metrics={f"{metric_key_prefix}_{name}": value for name, value in metrics.items()},
            num_samples=len(embedded["image_hash"]),
        )

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """Let the model be as it is evaluated, and its time not count as training's, within the context.

        It is in evaluation mode, with the averaged weights if any, and computes in the dtype of the run.
        """
        start, model = time.perf_counter(), self.model
        was_training = model.training
        model.eval()
        try:
            with self._averaged(), self.accelerator.autocast():
                yield model
        finally:
            model.train(was_training)
            self._window.leave_out(time.perf_counter() - start)

    def _averaged(self) -> AbstractContextManager:
        return nullcontext() if self._average is None else self._average.applied()

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """Train; `resume_from_checkpoint=True` goes on from the last complete checkpoint in `output_dir`.

        Its name goes on from another one: a folder, or `owner/name` on the hub, which [`fetch_checkpoint`] fetches.
        From a checkpoint that has all steps of the run no more are taken ([`steps_taken`]).
        What is not trained (`freeze`, and what the objective does not need) is frozen for the run only.
        SIGTERM to any process lets all finish their step, save a checkpoint (unless `save_strategy="no"`), and exit.

        Raises:
            ValueError: There is none, or it has no optimizer or is damaged; every record was left out.
            NotFiniteError: A loss, the margin, the gradient norm or a weight is not finite.
            SystemExit: With code 143, after SIGTERM.
        """
        if resume_from_checkpoint:
            args = self.args
            resume_from_checkpoint = locate_checkpoint(
                resume_from_checkpoint, str(args.output_dir), args.resume_revision, args.hub_token
            )
        self._resumed_from = resume_from_checkpoint or None
        if self._resumed_from is not None:
            self._check_resumable(Path(str(self._resumed_from)))
        self._average = None
        self._turn_off_terms()
        self._frozen += _freeze(self.model, self.objective.settings, self.args)
        if "short" in self._off:  # then distillation has nothing either for what short captions alone need
            without_short = replace(self.objective.settings, long_weight=1.0, distillation_weight=0.0)
            self._frozen += freeze(self.model, self.model.unused_parameters(without_short))
        saves = self.args.save_strategy != SaveStrategy.NO
        try:
            with self._sigterm if saves else nullcontext():
                return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        finally:
            for parameter in self._frozen:
                parameter.requires_grad_(True)
            self._frozen = []
            # Without a reference, persistent workers end at once. Left to the garbage collector, which takes their
            # queue first, they are waited for in vain for 5 seconds.
            self.callback_handler.train_dataloader = None
            self.accelerator._dataloaders.clear()

    def _turn_off_terms(self) -> None:
        """Give terms without data no weight, and freeze their heads, which weight decay alone would move.

        A run that goes on has those of its checkpoint, for its optimizer has no state of what was frozen.
        """
        if self._resumed_from is not None:
            state = read_json(Path(self._resumed_from) / TRAINER_STATE)["stateful_callbacks"]
            self._off = state.get(_STATE_NAME, {}).get("attributes", {}).get("off", [])
        elif isinstance(self.train_dataset, DrawnRecords):
            records, wanted = self.train_dataset.records, self.args.settings
            # Judged once, for a read that fails on one rank must not part the ranks.
            found = terms_without_data(records, self.objective, wanted) if rank() == 0 else []
            # Those of a former `train` of this trainer have no weight any more by which they could be found.
            self._off = sorted({*self._off, *gather_objects(found)[0]}, key=self.objective.terms.index)
        if not self._off:
            return
        weights: dict[str, Any] = {f"{term}_weight": 0.0 for term in self._off}
        self.objective.settings = settings = replace(self.objective.settings, **weights)
        collator = self._task.make_collator(self.processing_class, self.args, settings)
        self.data_collator = ErrorsAsBatches(collator)
        if rank() == 0:
            logger.warning(
                "no data for %s: %s of 0 in this run; a weight in `objective_settings` keeps its term",
                ", ".join(self._off),
                ", ".join(weights),
            )

    def _check_resumable(self, checkpoint: Path) -> None:
        """Read the checkpoint whole on the first process of each node; what is wrong is an error on all."""
        problem = None
        try:
            check_resumable(checkpoint)
            if self.args.local_process_index == 0:
                check_checkpoint(checkpoint)
        except (ValueError, OSError) as error:
            problem = str(error)
        if problems := [found for found in gather_objects(problem) if found]:
            raise ValueError(problems[0])
        if (checkpoint / "optimizer.pt").is_file() and not (checkpoint / OPTIMIZER).is_file():
            logger.warning(
                "%s is of a release before 0.3: its state is pickles, read with weights_only=True", checkpoint
            )

    @property
    def steps_taken(self) -> int:
        """Return the steps of the last `train()` itself; none if the run that it continued was at its end."""
        return self.state.global_step - self._first_step

    def _run_epoch(self, **kwargs: Any) -> None:  # type: ignore[override]
        """Train nothing if the checkpoint has all steps already: transformers would take one more."""
        if self.state.global_step >= self.state.max_steps:
            logger.info("all %d steps have been taken before: nothing is trained", self.state.max_steps)
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """Bring the newest checkpoint to the hub before it is removed, where only the best one is kept."""
        if self.args.save_total_limit == 1 and self.state.best_model_checkpoint is not None:
            self._push_left_out()
            self._finish_current_push()
        return super()._finalize_training(*args, **kwargs)

    def _push_left_out(self) -> None:
        if self._left_out:
            self._push_next(self._left_out[-1])

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save a folder that loads as the plain model: of the averaged weights if any, but not within checkpoints."""
        with nullcontext() if self._is_checkpointing else self._averaged():
            super().save_model(output_dir, _internal_call)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write our card, which has no path of this machine, beside what is pushed; arguments are not used."""
        if self.is_world_process_zero():
            self._write_card(Path(str(self.args.output_dir)))

    def _write_card(self, folder: Path) -> None:
        is_adapter, model_type = hasattr(self.model, "peft_config"), self.model.config.model_type
        write_card(folder, base_name(self.model), is_adapter, self.data_names, model_type=model_type)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        if self.args.should_save and hasattr(self.model, "peft_config"):  # first, for an adapter has one of its own
            folder.mkdir(parents=True, exist_ok=True)
            self._write_card(folder)
        super()._save(output_dir, state_dict)
        if self.args.should_save:  # as text: transformers writes a pickle
            (folder / "training_args.bin").unlink(missing_ok=True)
            (folder / "training_args.json").write_text(self.args.to_json_string(), encoding="utf-8")

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push the checkpoint itself, where transformers would push unfinished weights as the model too.

        As there, one that is written while another is on its way is left out, unless `hub_always_push` says to wait for
        it, or the folder on its way would be removed. [`_on_train_end`] pushes the newest one, if it was left out.
        """
        args, folder = self.args, Path(checkpoint_folder)
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        # After so many others the folder on its way is removed; the best one stays in place of another.
        removed_after = (args.save_total_limit or math.inf) - (self.state.best_model_checkpoint is not None)
        is_removed = len(self._left_out) + 1 >= removed_after
        is_under_way = self._push is not None and not self._push.done()
        if is_under_way and not (args.hub_always_push or self._is_stopping or is_removed):
            self._left_out.append(folder)
            logger.info("%s is not pushed now, for one before it is still on its way", folder.name)
        else:
            self._push_next(folder)

    def _push_next(self, folder: Path) -> None:
        self._finish_current_push()
        repo_id, args = str(self.hub_model_id), self.args
        self._push = push_checkpoint(folder, repo_id, args.hub_strategy, args.hub_token, args.hub_revision)
        self._left_out = []

    def _finish_current_push(self) -> None:
        """Wait for the push under way; a run goes on without the hub."""
        if self._push is not None:
            if (error := self._push.exception()) is not None:
                logger.warning("a checkpoint could not be pushed to %s: %s", self.hub_model_id, error)
            self._push = None
        super()._finish_current_push()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_weights()
        attributes = {
            **{name: buffer.item() for name, buffer in self.objective.named_buffers()},
            "skipped": int(self._skipped_on_all_ranks()),
            "order": self._order_of_data(),
            "off": self._off,
        }
        self.state.stateful_callbacks[_STATE_NAME] = {"args": {}, "attributes": attributes}
        self._is_checkpointing, write = True, self.state.save_to_json

        def write_and_seal(path: str) -> None:
            write(path)
            seal_checkpoint(Path(path).parent)

        # The last file that transformers writes, before it removes older checkpoints.
        self.state.save_to_json = write_and_seal
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._is_checkpointing = False
            del self.state.save_to_json  # the method is there again

    def _order_of_data(self) -> dict[str, Any]:
        """Return what the order of the records follows from."""
        order: dict[str, Any] = {
            "processes": world_size(),
            "batch size": self.args.per_device_train_batch_size,
            "accumulation": self.args.gradient_accumulation_steps,
            "seed": self.args.order_seed,
            "patch batches": self.args.patch_batches,
            "language shares": self.args.shares_of_languages,
        }
        if isinstance(self.train_dataset, DrawnRecords):
            order["way of shuffling"] = 2
            if self.args.patch_batches == "alike":
                order["way of shuffling"] = 3  # windows are smaller than in 2
                order["patches of the images"] = digest_of_counts(self._patch_counts(self.train_dataset.records))
            order["language batches"] = self.args.language_batches
            order["sampling rates"] = sampling_rates_of(self.train_dataset.records)
        if isinstance(self.train_dataset, DrawnStream):
            order["loader workers"] = self.args.dataloader_num_workers
            order["shuffle buffer"] = self.train_dataset.records.buffer_size
            order["language batches"] = self.train_dataset.records.language_batches
            order["sampling rates"] = self.train_dataset.records.mixture.sampling_rates
        return order

    # DeepSpeed and FSDP write weights, optimizer and scheduler in formats of their own.
    @property
    def _has_own_format(self) -> bool:
        return self.is_deepspeed_enabled or self.is_fsdp_enabled

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._has_own_format:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            save_state(self.optimizer.state_dict(), Path(output_dir) / OPTIMIZER)
            save_state(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not (Path(checkpoint) / OPTIMIZER).is_file():
            super()._load_optimizer_and_scheduler(checkpoint)  # also of a release before 0.3: see check_resumable
        else:
            self.optimizer.load_state_dict(load_state(Path(checkpoint) / OPTIMIZER))
            self.lr_scheduler.load_state_dict(load_state(Path(checkpoint) / SCHEDULER))

    def _save_scaler(self, output_dir: str) -> None:
        if self.args.should_save and self._scaler is not None:
            save_state(self._scaler.state_dict(), Path(output_dir) / SCALER)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not (Path(checkpoint) / SCALER).is_file():
            super()._load_scaler(checkpoint)
        elif self._scaler is not None:
            self._scaler.load_state_dict(load_state(Path(checkpoint) / SCALER))

    @property
    def _scaler(self) -> Any:
        return getattr(self.accelerator, "scaler", None)  # of fp16

    def _save_rng_state(self, output_dir: str) -> None:
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)  # the process that saves the model may come later
        save_random_state(folder, rank(), self.args.device)
        if self._average is not None:
            self._average.save(output_dir)
        if self._memory is not None:
            self._memory.save(output_dir)
        barrier()  # every rank is done before the files are sealed: see _save_checkpoint

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None or not load_random_state(Path(checkpoint), rank(), self.args.device):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self._average is not None:
            self._average.load(self.state.best_model_checkpoint)

    # -- what the callback does ---------------------------------------------------------------------------------------

    def _on_train_begin(self) -> None:
        set_text_chunk_size(self.model, self.args.text_chunk_size or 0)
        self._begin_counting()
        self._first_step, steps = self.state.global_step, self.state.max_steps
        if self.args.logging_strategy == IntervalStrategy.STEPS and self.state.logging_steps > steps:
            self._log_every = max(1, steps // _SHORT_RUN_LOGS)
            logger.info("a line of the log every %d steps, for the run has only %d", self._log_every, steps)
        if self.args.ema_decay is not None:
            self._average = WeightAverage(self.model, self.args.ema_decay)
        self._memory = self._start or self._task.start_memory(self.model, self.objective.settings)
        if self._resumed_from is None:
            return
        attributes = self.state.stateful_callbacks.get(_STATE_NAME, {}).get("attributes")
        if attributes is None:
            raise ValueError("the checkpoint was not written by FGClip2Trainer: it has no rank margin to go on with")
        self._find_best(Path(self._resumed_from))
        for name, buffer in self.objective.named_buffers():
            buffer.fill_(attributes[name])
        self._skipped_before = attributes["skipped"]
        self._skipped = attributes["skipped"] if rank() == 0 else 0
        # As they were before there was a choice.
        order_before: dict[str, Any] = {"patch batches": "any", "way of shuffling": 1}
        if isinstance(self.train_dataset, DrawnStream):
            order_before |= {"language batches": "mixed", "sampling rates": None, "language shares": None}
        order_before |= attributes["order"]
        for name, value in self._order_of_data().items():
            before = order_before.get(name, value)
            if before != value:
                logger.warning(
                    "%s: the run had %s and goes on with %s, so in this epoch records may come twice or not at all",
                    name,
                    before,
                    value,
                )
        for kept in (self._average, self._memory):
            if kept is not None:
                kept.load(self._resumed_from)

    def _find_best(self, checkpoint: Path) -> None:
        """Set the best checkpoint so far to where it lies here; if that is nowhere, the best begins anew."""
        recorded = read_json(checkpoint / TRAINER_STATE)["best_model_checkpoint"]  # transformers may have dropped it
        if recorded is None:
            return
        best = best_checkpoint(recorded, checkpoint, self.state.global_step, str(self.args.output_dir))
        if all(gather_objects(best)):
            self.state.best_model_checkpoint = best
            return
        self.state.best_model_checkpoint = self.state.best_global_step = self.state.best_metric = None
        if rank() == 0:
            logger.warning(
                "the best checkpoint so far, %s, is not of the run of %s here: the best is chosen anew from now on",
                recorded,
                checkpoint,
            )

    def _on_step_end(self, control: Any) -> None:
        if self._memory is not None:
            self._memory.end_step(self.state.epoch)
        if self._log_every and self.state.global_step % self._log_every == 0:
            control.should_log = True
        if self._is_stopping:  # a scheduler gives us half a minute or so
            control.should_save, control.should_evaluate = True, False

    def _on_save(self) -> None:
        if self._is_stopping:
            if rank() == 0:
                step = self.state.global_step
                logger.warning("SIGTERM: saved step %d, and stopped; --resume goes on from there", step)
            end_process_group()
            raise SystemExit(128 + signal.SIGTERM)

    def _on_epoch_begin(self, loader: DataLoader) -> None:
        accumulated, steps = self.args.gradient_accumulation_steps, 0
        if self._epoch is None:
            # As transformers counts: by the epochs of this run, which may have other batches than the one before.
            self._epoch, steps = divmod(self.state.global_step, max(1, -(-len(loader) // accumulated)))
        else:
            self._epoch += 1
        if self._sampler is not None:
            self._sampler.set_epoch(self._epoch)
        if isinstance(self.train_dataset, DrawnStream):
            self.train_dataset.records.set_epoch(self._epoch, steps * accumulated, placeholders=True)

    def _check_weights(self) -> None:
        check_weights(self.state.global_step, self.model.named_parameters(), str(self.args.output_dir))

    def _on_train_end(self) -> None:
        self._push_left_out()
        self._check_weights()
        samples = sum_over_ranks(torch.tensor(float(self._window.all_samples), device=self.args.device))
        left_out = self._skipped_on_all_ranks() - self._skipped_before
        if left_out and not samples and self._resumed_from is None:
            self._raise_without_samples(left_out)
        share = self._window.total_waited_share
        if self._window.all_samples:
            verdict = "the loader is the bottleneck: try dataloader_num_workers" if share > 0.2 else "the model is busy"
            logger.info("waited for data in %.0f%% of the time: %s", 100 * share, verdict)


def _drawn(dataset: Any, args: FGClip2TrainingArguments) -> DrawnRecords | DrawnStream:
    """Return a training set as the collator takes it."""
    if isinstance(dataset, RecordDataset):
        return DrawnRecords(dataset)
    if not isinstance(dataset, ShardedRecords):
        raise ValueError(
            f"`train_dataset` must be a RecordDataset or ShardedRecords of fgclip2.data, got {type(dataset).__name__} "
            "(fgclip2.data.from_dataset takes a data set of Hugging Face)"
        )
    wanted = {
        "batch_size": args.per_device_train_batch_size,
        "rank": args.process_index,
        "world_size": args.world_size,
        "drop_last": True,
        "on_error": args.on_error,
        "language_shares": args.shares_of_languages,
    }
    if args.ignore_data_skip:
        raise ValueError("ignore_data_skip=True; allowed with ShardedRecords: False, for a stream knows where it was")
    for name, value in wanted.items():
        if getattr(dataset, name) != value:
            raise ValueError(
                f"ShardedRecords has {name}={getattr(dataset, name)!r}; allowed: {value!r}, as the run has"
            )
    if dataset.language_batches != args.language_batches:
        logger.warning(
            "batches are %s in language, as ShardedRecords has them, and not %s, as the arguments of the run say: pass "
            "language_batches to both",
            dataset.language_batches,
            args.language_batches,
        )
    return DrawnStream(dataset)


def _training_module(model: nn.Module | str | Path, objective: str | None) -> Any:
    """Return a model that can be trained: loaded from a checkpoint, with LoRA, or as it was given."""
    if isinstance(model, (str, Path)):
        return load_for_training(model, objective=objective)
    if hasattr(model, "peft_config"):
        from .lora import train_scales  # needs peft

        return train_scales(model)
    return in_training(model, objective)


def _freeze(model: Any, settings: Any, args: FGClip2TrainingArguments) -> list[nn.Parameter]:
    frozen = freeze(model, model.unused_parameters(settings))
    return frozen + freeze(model, args.freeze, args.freeze_vision_layers, args.freeze_text_layers)


def _check_float32(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise ValueError(
                f"{name} is {parameter.dtype}; allowed to be trained: torch.float32, for small updates vanish in fewer "
                "digits. Load with dtype=torch.float32; bf16=True in the arguments computes in bfloat16 all the same"
            )


def _check_options(options: Mapping[str, Any]) -> None:
    for name in ("compute_metrics", "compute_loss_func", "preprocess_logits_for_metrics"):
        if options.get(name) is not None:
            raise ValueError(f"{name} would never be called; allowed: a subclass with its own evaluation_loop or loss")


class _RunCallback(TrainerCallback):
    """Hooks of a run that `Trainer` has as callbacks only."""

    def __init__(self, trainer: FGClip2Trainer):
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._on_train_begin()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._on_train_end()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._on_epoch_begin(kwargs["train_dataloader"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._on_step_end(control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._on_save()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self._trainer
        if args.max_logit_scale is not None:
            clamp_scales(trainer.model, args.max_logit_scale)
        if trainer._average is not None:
            trainer._average.update()
