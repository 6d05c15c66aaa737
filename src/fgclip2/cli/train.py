"""`fgclip2 train`: fine-tune or pre-train with the whole objective."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from . import common, train_benchmarks, train_options, train_plan

EXAMPLES = """
fgclip2 train recipes/training/own_pairs.yaml --learning_rate 5e-6
fgclip2 train recipes/training/own_boxes.yaml --dry-run
fgclip2 train --model start --train_data pairs.csv --output_dir run --bf16
fgclip2 train --model 起点 --train_data 图文对.tsv --images_folder 图片 --output_dir 训练 --resume
fgclip2 train settings.yaml --benchmarks lit-cn=LIT-CN bundled-boxes-zh --benchmark_steps 1000
torchrun --nproc_per_node=8 -m fgclip2.cli train settings.yaml
accelerate launch --config_file recipes/accelerate/fsdp2.yaml -m fgclip2.cli train settings.yaml
"""


class TrainCommand(TyperCommand):
    """A command whose help has the options of the run too, by topic."""

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
            metavar="SETTINGS.yaml|--name value", help="Settings of the run; flags win over those in the file."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dry_run", help="Train nothing, and print what the run would take.")
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Processes to plan for, with --dry-run.  [default: those that run]"),
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
        remedy = "add --dry-run, or leave it out: a run has the processes that its launcher (torchrun) starts"
        raise typer.BadParameter(f"{processes} is planned for only with --dry-run; {remedy}", param_hint="--processes")
    # PEFT asks for it by its name before transformers 6.
    warnings.filterwarnings("ignore", message=".is_gradient_checkpointing", category=FutureWarning)
    options = train_options.parse(arguments or [], planning=dry_run)
    args = options.args
    if dry_run:
        from ..training.plan import plan_run

        result = plan_run(options, processes) | {"benchmarks": train_benchmarks.describe_benchmarks(options.benchmarks)}
    else:
        kept = f"checkpoints so far are in {args.output_dir}; --resume goes on from the last"
        # Transformers prints its log to stdout.
        with redirect_stdout(sys.stderr), common.kept_when_interrupted(kept):
            result = _run(options, resume)
    if args.process_index == 0:
        show = common.print_json if as_json else train_plan.print_plan if dry_run else _print
        show(result)
    end_process_group()


def _run(options: train_options.TrainOptions, resume: bool) -> dict[str, Any]:
    from transformers.utils import logging as transformers_logging

    from ..training.run import checkpoint_to_resume, make_trainer, train_and_save

    # On the first process what the package has to say, on the others only what is wrong.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("fgclip2")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if options.args.process_index == 0 else logging.WARNING)
    transformers_logging.disable_progress_bar()  # that of loading, not that of training

    checkpoint = checkpoint_to_resume(options.args, resume)
    trainer = make_trainer(options)
    measure = None
    benchmarks = train_benchmarks.add_benchmarks(trainer, options.benchmarks)
    # The evaluation at the end measures them too, unless they have steps of their own.
    if benchmarks is not None and (trainer.eval_dataset is None or options.benchmarks.benchmark_steps):
        measure = benchmarks.measure
    return train_and_save(options, trainer, checkpoint, measure)


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
    typer.echo(f'next: fgclip2 classify photo.jpg --labels "cat,猫" --model {output}')
    typer.echo(f"      fgclip2 embed photo.jpg --output embeddings.npy --model {output}")
    typer.echo(f"      fgclip2 export exported --model {output}")
    if result["lora"]:
        typer.echo(f"      in Python, fgclip2.training.lora.merge_lora({output!r}), see docs/lora.md")
