"""A short training run for tests, as a script: its log is the result.

    python run_trainer.py CHECKPOINT RECORDS OUTPUT [--key value ...]

The keys are fields of FGClip2TrainingArguments. It goes on from the last checkpoint if there is one. RECORDS is a
folder with records.json and images, or with tar shards; or several of one kind, as FOLDER=RATE,FOLDER=RATE.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from transformers import HfArgumentParser, TrainerCallback

from fgclip2.data import RecordDataset, ShardedRecords, concatenate, read_finehard
from fgclip2.distributed import end_process_group
from fgclip2.training import FGClip2Trainer, FGClip2TrainingArguments
from fgclip2.training.checkpoints import last_checkpoint

DEFAULTS = {
    "per_device_train_batch_size": 4,
    "num_train_epochs": 2,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_steps": 3,
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


class KillAt(TrainerCallback):
    """Ends the process at a step, as an operating system or a scheduler does."""

    def __init__(self, step: int, signal_number: int):
        self.step, self.signal_number = step, signal_number

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.signal_number)


def take_fsdp_on_cpu() -> None:
    """Accelerate has FSDP for accelerators only; on a CPU it would take DDP without a word."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    begin = PartialState.__init__

    def begin_as_on_accelerators(self, *args, **kwargs) -> None:
        begin(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = begin_as_on_accelerators


def read(given: str, args: FGClip2TrainingArguments) -> RecordDataset | ShardedRecords:
    folders, rates = zip(*(source.partition("=")[::2] for source in given.split(",")), strict=True)
    sampling_rates = [float(rate) for rate in rates] if all(rates) else None
    if (Path(folders[0]) / "records.json").exists():
        records = [read_finehard(Path(folder) / "records.json", Path(folder) / "images") for folder in folders]
        return concatenate(records, sampling_rates)
    return ShardedRecords(
        folders,
        args.per_device_train_batch_size,
        args.process_index,
        args.world_size,
        drop_last=True,
        buffer_size=8,
        on_error=args.on_error,
        language_batches=args.language_batches,
        sampling_rates=sampling_rates,
        language_shares=args.shares_of_languages,
    )


def main(arguments: list[str]) -> None:
    checkpoint, records_folder, output, *options = arguments
    torch.set_num_threads(1)
    if "FSDP_VERSION" in os.environ:
        take_fsdp_on_cpu()
    flags = [f"--{name}={value}" for name, value in DEFAULTS.items()]
    (args,) = HfArgumentParser(FGClip2TrainingArguments).parse_args_into_dataclasses(
        [f"--output_dir={output}", *flags, *options]
    )
    records = read(records_folder, args)
    callbacks = []
    if "KILL_AT" in os.environ:
        callbacks.append(KillAt(int(os.environ["KILL_AT"]), getattr(signal, os.environ["KILL_SIGNAL"])))
    evaluated = records if isinstance(records, RecordDataset) else None
    trainer = FGClip2Trainer(checkpoint, args, records, evaluated, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=last_checkpoint(output) is not None)
    trainer.save_model(str(Path(output) / "final"))
    if trainer.is_world_process_zero():
        (Path(output) / "log.json").write_text(json.dumps(trainer.state.log_history))
    end_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
