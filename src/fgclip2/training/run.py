"""A run from its settings to the saved model, as `fgclip2 train` makes it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, set_seed

from ..distributed import gather_objects, rank
from ..files import read_json
from .arguments import FGClip2TrainingArguments
from .checkpoints import last_checkpoint
from .memory import choose_text_chunk_size, device_memory
from .plan import look_at
from .settings import RunSettings, write_yaml
from .sources import open_eval_data, open_train_data
from .start import adapter_config, load_for_training, load_processor
from .trainer import FGClip2Trainer

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.yaml"


def checkpoint_to_resume(args: FGClip2TrainingArguments, resume: bool) -> str | None:
    """Return the checkpoint to go on from, the same on all ranks; `None`: from the start.

    It is the last one in `output_dir`; where there is none, what `resume_from_checkpoint` names, a folder or one on the
    hub.

    Raises:
        ValueError: The folder is not empty and `resume` is not set, or ranks see different folders.
    """
    args.device  # noqa: B018  # starts the process group
    output = Path(str(args.output_dir))
    found = last_checkpoint(output)
    seen = gather_objects((found, output.is_dir() and any(output.iterdir())))
    if len(set(seen)) > 1:
        raise ValueError(f"{output} is not the same on all processes: choose a folder that all nodes share")
    if seen[0][1] and not resume:
        what = f"its last checkpoint is {Path(found).name}" if found else "it has no complete checkpoint"
        raise ValueError(f"{output} is not empty ({what}): pass --resume to go on, or choose another output_dir")
    found = found or args.resume_from_checkpoint
    if found:
        logger.info("going on from %s", found)
    elif resume:
        logger.info("%s has no complete checkpoint: from the start", output)
    return found


def make_trainer(run: RunSettings) -> FGClip2Trainer:
    """Load the model and open the data of a run.

    Raises:
        ValueError: A setting, a checkpoint or a data set can't be used.

    Example:
        >>> args = FGClip2TrainingArguments("run", per_device_train_batch_size=64)
        >>> make_trainer(RunSettings(ModelSettings("checkpoint"), DataSettings(["pairs.csv"]), args)).train()
    """
    name, revision = str(run.model.model), run.model.revision
    processor = load_processor(name, revision)
    records, held_out = open_train_data(run.data, run.args), open_eval_data(run.data)
    adapter = adapter_config(run.model)
    set_seed(run.args.seed)  # of a new adapter's matrices; the trainer does the same again for what comes later
    model: Any = load_for_training(name, revision, run.args.objective)
    if run.model.lora:
        from .lora import add_lora  # needs peft

        model = add_lora(model, adapter)
    trainer = FGClip2Trainer(model, run.args, records, held_out, processor)
    if run.args.text_chunk_size is None and device_memory(run.args) and trainer.model.task.has_gradient_cache:
        # Judged once, for a read that fails on one rank must not part the ranks.
        chosen = _choose_text_chunk_size(run, trainer, records, processor) if rank() == 0 else 0
        run.args.text_chunk_size = gather_objects(chosen)[0]
    trainer.data_names = run.data.train_data or ()
    return trainer


def _choose_text_chunk_size(run: RunSettings, trainer: FGClip2Trainer, records: Any, processor: Any) -> int:
    """Return how many texts are encoded at once, by the plan; 0, all, where nothing is known of the data."""
    model: Any = trainer.model
    try:
        summary = look_at(records, run, model, processor)
    except ValueError:  # every record looked at is bad, which the run itself judges
        return 0
    settings = trainer.objective.settings
    contents = model.task.step_contents(run.args, summary, settings)
    parts = (model, model.config, settings, contents, run.args.world_size)
    chosen = choose_text_chunk_size(run.args, *parts)
    if chosen:
        logger.info("a step would not fit the device: texts are encoded %d at a time (text_chunk_size)", chosen)
    return chosen


def train_and_save(
    run: RunSettings,
    trainer: FGClip2Trainer,
    checkpoint: str | None = None,
    measure: Callable[[], dict[str, float]] | None = None,
) -> dict[str, Any]:
    """Train, evaluate, and save the model, the settings and what came of it into `output_dir`.

    Args:
        run: Settings of the run.
        trainer: Trainer of [`make_trainer`].
        checkpoint: Checkpoint to go on from; `None`: from the start.
        measure: Measures more at the end, after the evaluation.

    Returns:
        `output`, `resumed_from`, `steps` in all, `lora` (an adapter was saved) and `metrics`.
    """
    output = Path(str(run.args.output_dir))
    trainer.add_callback(_KeepSettings(output / SETTINGS_FILE, run.changed))
    try:  # what is kept of a finished run's training, for one that goes on from its end and trains nothing
        kept = read_json(output / "all_results.json")
    except (OSError, ValueError):
        kept = {}
    outcome = trainer.train(resume_from_checkpoint=checkpoint)
    metrics = dict(outcome.metrics)
    if not trainer.steps_taken:
        metrics = {name: value for name, value in kept.items() if name.startswith("train_")}
    if trainer.eval_dataset is not None:
        metrics.update(trainer.evaluate())
    if measure is not None:
        metrics.update(measure())
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


class _KeepSettings(TrainerCallback):
    """Writes the settings once all is well: a run that did not begin leaves its folder empty."""

    def __init__(self, file: Path, settings: dict[str, Any]):
        self._file, self._settings = file, settings

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_yaml(self._file, self._settings)
