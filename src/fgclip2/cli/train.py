"""`fgclip2 train`: fine-tune or pre-train with the whole objective."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from . import common, train_benchmarks, train_data, train_options, train_plan

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from ..training import FGClip2Trainer, FGClip2TrainingArguments

EXAMPLES = """
fgclip2 train recipes/training/own_pairs.yaml --learning_rate 5e-6
fgclip2 train recipes/training/own_boxes.yaml --dry-run
fgclip2 train --model start --train_data pairs.csv --output_dir run --bf16
fgclip2 train --model 起点 --train_data 图文对.tsv --images_folder 图片 --output_dir 训练 --resume
fgclip2 train settings.yaml --benchmarks lit-cn=LIT-CN bundled-boxes-zh --benchmark_steps 1000
torchrun --nproc_per_node=8 -m fgclip2.cli train settings.yaml
accelerate launch --config_file recipes/accelerate/fsdp2.yaml -m fgclip2.cli train settings.yaml
"""

SETTINGS_FILE = "settings.yaml"


class TrainCommand(TyperCommand):
    """Its help has the options of the run too, by topic."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write typer's options, then those that HfArgumentParser reads."""
        super().format_options(ctx, formatter)
        for title, rows in train_options.help_sections():
            with formatter.section(title):
                formatter.write_dl(rows)


COMMAND_SETTINGS = {"cls": TrainCommand, "context_settings": {"ignore_unknown_options": True}}


def _print_full_help(value: bool) -> None:
    if value:
        typer.echo(train_options.full_help())
        raise typer.Exit


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SETTINGS.yaml|--name value", help="Settings; those given as flags win over those in the file."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dry_run", help="Train nothing; print what the run would take.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="With --dry-run: plan for so many.  [default: those that run]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last complete checkpoint in output_dir, if there is one.")
    ] = False,
    as_json: common.AsJson = False,
    help_all: Annotated[
        bool, typer.Option("--help-all", callback=_print_full_help, is_eager=True, help="Show every setting and exit.")
    ] = False,
) -> None:
    """Train a checkpoint on images with captions, boxes and hard negatives.

    Settings are lines `name: value` of a YAML file, flags `--name value`, or both. Paths are relative to the folder
    that the command runs in.
    """
    from ..distributed import end_process_group

    if processes is not None and not dry_run:
        raise typer.BadParameter("only with --dry-run", param_hint="--processes")
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)  # its name before v6
    options = train_options.parse(arguments or [], planning=dry_run)
    args = options.args
    if dry_run:
        result = train_plan.make_plan(options, processes or args.world_size)
    else:
        with redirect_stdout(sys.stderr):  # transformers prints its log to stdout
            result = _run(options, resume)
    if args.process_index == 0:
        show = common.print_json if as_json else train_plan.print_plan if dry_run else _print
        show(result)
    end_process_group()


def _run(options: train_options.TrainOptions, resume: bool) -> dict[str, Any]:
    from transformers.utils import logging as transformers_logging

    args = options.args
    output = Path(str(args.output_dir))
    checkpoint = _start_from(args, output, resume)
    transformers_logging.disable_progress_bar()  # that of loading, not that of training
    _show_log(args.process_index == 0)
    trainer = _trainer(options)
    benchmarks = train_benchmarks.add_benchmarks(trainer, options.benchmarks)
    trainer.add_callback(_keep_settings(output / SETTINGS_FILE, options.changed))
    before = _training_metrics(output)
    outcome = trainer.train(resume_from_checkpoint=checkpoint)
    metrics = dict(outcome.metrics) if trainer.steps_taken else before
    if trainer.eval_dataset is not None:
        metrics.update(trainer.evaluate())
    if benchmarks is not None and (trainer.eval_dataset is None or options.benchmarks.benchmark_steps):
        metrics.update(benchmarks.measure())  # which no evaluation did
    trainer.save_model(str(output))
    trainer.save_state()
    trainer.save_metrics("all", metrics, combined=False)
    return {
        "output": str(output),
        "resumed_from": checkpoint,
        "steps": outcome.global_step,
        "lora": hasattr(trainer.model, "peft_config"),
        "metrics": metrics,
    }


def _start_from(args: FGClip2TrainingArguments, output: Path, resume: bool) -> str | None:
    """The checkpoint to go on from, the same on all ranks.

    Raises:
        ValueError: The folder is not empty and `resume` is not set, or ranks see different folders.
    """
    from ..distributed import gather_objects
    from ..training.checkpoints import last_checkpoint

    args.device  # noqa: B018  # starts the process group
    found = last_checkpoint(output)
    names = gather_objects((found, output.is_dir() and any(output.iterdir())))
    if len(set(names)) > 1:
        raise ValueError(f"{output} is not the same on all processes; allowed: a folder that all nodes share")
    if names[0][1] and not resume:
        what = f"its last checkpoint is {Path(found).name}" if found else "it has no complete checkpoint"
        raise ValueError(f"{output} is not empty ({what}); allowed: --resume to go on, or another output_dir")
    if resume and args.process_index == 0:
        typer.echo(
            f"going on from {found}" if found else f"{output} has no complete checkpoint: from the start", err=True
        )
    return found


def _training_metrics(output: Path) -> dict[str, Any]:
    """What is kept of a finished run's training, for one that goes on from its end and trains nothing."""
    try:
        metrics = json.loads((output / "all_results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in metrics.items() if name.startswith("train_")}


def _keep_settings(file: Path, settings: dict[str, Any]) -> TrainerCallback:
    """Write the settings once all is well: a run that did not begin leaves its folder empty."""
    from transformers import TrainerCallback

    class KeepSettings(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                train_options.write_yaml(file, settings)

    return KeepSettings()


def _trainer(options: train_options.TrainOptions) -> FGClip2Trainer:
    from transformers import set_seed

    from ..modeling.processing_fgclip2 import FGClip2Processor
    from ..training import FGClip2Trainer
    from ..training.start import base_checkpoint, load_for_training

    name, revision = str(options.model.model), options.model.revision
    checkpoint, checkpoint_revision = base_checkpoint(name, revision)
    processor = FGClip2Processor.from_pretrained(checkpoint, revision=checkpoint_revision)
    records = train_data.open_train_data(options.data, options.args)
    held_out = train_data.open_eval_data(options.data)
    adapter = adapter_config(options.model)
    set_seed(options.args.seed)  # of a new adapter's matrices; the trainer does the same again for what comes later
    model: Any = load_for_training(name, revision)
    if options.model.lora:
        from ..training.lora import add_lora

        model = add_lora(model, adapter)
    return FGClip2Trainer(model, options.args, records, held_out, processor)


def adapter_config(options: train_options.ModelOptions) -> Any:
    """What PEFT shall make: by the options, or as the adapter has it that is trained further; `None`: no adapter.

    Raises:
        ValueError: A number is out of its range, or a new adapter is asked for on top of another.
    """
    from ..training.start import is_adapter

    name = str(options.model)
    if is_adapter(name, options.revision):
        if options.lora:
            raise ValueError(
                f"{name} is an adapter, which is trained further as it is; allowed: without lora, or a checkpoint "
                "(fgclip2.training.lora.merge_lora makes one)"
            )
        from ..training.lora import read_config

        return read_config(name, options.revision)
    if not options.lora:
        return None
    from ..training.lora import lora_config

    config = lora_config(
        options.lora_rank, options.lora_alpha, options.lora_dropout, options.lora_target, options.lora_train_heads
    )
    config.revision = options.revision  # of the base model, which is to be loaded for the adapter
    return config


def _show_log(is_first: bool) -> None:
    """On the first process what the package has to say, on the others only what is wrong."""
    logger = logging.getLogger("fgclip2")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if is_first else logging.WARNING)


def _print(result: dict[str, Any]) -> None:
    metrics, output = result["metrics"], result["output"]
    how = "in {train_runtime:.0f} s, mean loss {train_loss:.4g}" if "train_loss" in metrics else "taken before"
    typer.echo(f"{result['steps']} steps {how.format(**metrics)}")
    for name, value in metrics.items():
        if name.startswith("eval_") and not name.endswith(("_runtime", "_per_second")):
            typer.echo(f"  {name.removeprefix('eval_'):<35} {value:.4g}")
    if not any(name.startswith("eval_") for name in metrics):
        typer.echo("  nothing was evaluated: --eval_data takes records that are not trained on")
    typer.echo(f"saved {output}{' (an adapter)' if result['lora'] else ''}")
    if result["lora"]:
        typer.echo(f"next: fgclip2.training.lora.merge_lora({output!r}).save_pretrained(...), see docs/lora.md")
        return
    typer.echo(f'next: fgclip2 classify photo.jpg --labels "cat,猫" --model {output}')
    typer.echo(f"      fgclip2 embed photo.jpg --output embeddings.npy --model {output}")
    typer.echo(f"      fgclip2 export exported --model {output}")
