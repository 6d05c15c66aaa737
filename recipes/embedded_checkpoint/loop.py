"""The training loop of a recipe: ready-made batches, each loss logged apart, averaged weights, runs that go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

Measure = Callable[[nn.Module], dict[str, float]]
Write = Callable[[nn.Module], None]


class LoopSettings(Protocol):
    """The settings of a recipe that the loop reads."""

    seed: int
    total_steps: int
    max_grad_norm: float
    ema_decay: float
    bf16: bool
    eval_every: int
    save_every: int


class ReadyBatches(IterableDataset):
    """Batches that follow from the step alone; `start` is the first one, to go on with."""

    start: int


class CheckpointTrainer(Trainer):
    """The Trainer on ready-made batches, logging each loss apart and keeping the log in `log_file`."""

    def __init__(self, *args: Any, batches: ReadyBatches, log_file: Path, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.batches, self.log_file = batches, log_file
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        losses = model(inputs)
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + loss.item()
            self.counts[name] = self.counts.get(name, 0) + 1
        return (losses["loss"], losses) if return_outputs else losses["loss"]

    def log(self, logs, *args, **kwargs):
        means = {f"loss_{name}": round(self.sums[name] / self.counts[name], 4) for name in self.sums}
        logs.update(means)
        self.sums, self.counts = {}, {}
        if means:
            kept = {name: logs[name] for name in ("grad_norm", "learning_rate") if name in logs}
            kept = {name: float(f"{value:.4g}") for name, value in kept.items()}
            with self.log_file.open("a") as file:
                file.write(json.dumps({"step": self.state.global_step, **kept, **dict(sorted(means.items()))}) + "\n")
        super().log(logs, *args, **kwargs)


class AverageAndValidate(TrainerCallback):
    """Keep the moving average of the weights; measure and write it as training goes on."""

    def __init__(self, model: nn.Module, settings: LoopSettings, log_file: Path, measure: Measure, write: Write):
        self.model, self.settings, self.log_file = model, settings, log_file
        self.measure, self.write = measure, write
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
        self.started, self.earlier = time.time(), (0, 0)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0 and not self.log_file.exists():
            self.record(0)

    def on_step_end(self, args, state, control, **kwargs):
        self.average.update_parameters(self.model)
        if state.global_step % self.settings.eval_every == 0 or state.global_step == self.settings.total_steps:
            self.record(state.global_step)

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        torch.save(self.average.state_dict(), folder / "average.pt")
        self.write(self.average.module)

    def restore(self, folder: Path) -> None:
        self.average.load_state_dict(torch.load(folder / "average.pt"))
        if self.log_file.exists():
            last = json.loads(self.log_file.read_text().splitlines()[-1])
            self.earlier = (last["seconds"], last["cpu_seconds"])

    def record(self, step: int) -> None:
        seconds, cpu_seconds = self.earlier
        row = {"step": step, "seconds": round(seconds + time.time() - self.started)}
        row |= {"cpu_seconds": round(cpu_seconds + time.process_time())}
        row |= self.measure(self.average.module)
        with self.log_file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def run_training(
    trainee: nn.Module,
    batches: ReadyBatches,
    optimizer: torch.optim.Optimizer,
    lr_factor: Callable[[int], float],
    settings: LoopSettings,
    work: Path,
    measure: Measure,
    write: Write,
) -> None:
    """Run, or continue, a training loop.

    Args:
        trainee: Its `model` is averaged; its forward takes a batch and returns named losses, `loss` among them.
        batches: Of all steps.
        optimizer: Of the trainee.
        lr_factor: Step -> learning rate as a fraction of its peak.
        settings: Of the loop.
        work: Folder of checkpoints, `train.jsonl` and `validation.jsonl`.
        measure: Averaged model -> what to note of it, every `eval_every` steps and at both ends.
        write: Called with the averaged model at each checkpoint and at the end.
    """
    averaging = AverageAndValidate(trainee.model, settings, work / "validation.jsonl", measure, write)
    arguments = TrainingArguments(
        output_dir=str(work / "checkpoints"),
        max_steps=settings.total_steps,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=50,
        save_steps=settings.save_every,
        save_total_limit=2,
        seed=settings.seed,
        use_cpu=True,
        bf16=settings.bf16,
        report_to=[],
        remove_unused_columns=False,
        ignore_data_skip=True,  # the batches start where the run was interrupted
        disable_tqdm=True,
    )
    trainer = CheckpointTrainer(
        model=trainee,
        args=arguments,
        train_dataset=batches,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor)),
        callbacks=[averaging],
        batches=batches,
        log_file=work / "train.jsonl",
    )
    checkpoints = Path(arguments.output_dir)
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.exists() else None
    if last is not None:
        batches.start = int(last.rsplit("-", 1)[1])
        averaging.restore(Path(last))
    trainer.train(resume_from_checkpoint=last)
    write(averaging.average.module)
