"""Train with the real Trackio and Weights & Biases, without a network, and print what they have written down.

Run by hand, in an environment of its own, with a checkpoint and FineHARD records:

    python -m scripts.environments ENVIRONMENT trackio wandb
    ENVIRONMENT/bin/python -m tests.training.check_reporting FOLDER
"""

import json
import os
import socket
import sqlite3
import sys
from pathlib import Path

from fgclip2 import embedded_checkpoint
from fgclip2.data import read_finehard
from fgclip2.training import FGClip2Trainer, FGClip2TrainingArguments

from .conftest import make_records


def refuse_other_machines() -> None:
    """Let connections to this machine alone be made."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a connection to {address} was tried")
        connect(self, address)

    socket.socket.connect = connect_here


def train(folder: Path, package: str) -> set[str]:
    """Return the names of the numbers in the log of a run that reports to a package."""
    args = FGClip2TrainingArguments(
        str(folder / f"run of {package}"),
        per_device_train_batch_size=4,
        max_steps=2,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        report_to=package,
        project="squares",
        objective_settings={"distillation_weight": 1.0},
    )
    records = read_finehard(folder / "squares" / "records.json", folder / "squares" / "images")
    trainer = FGClip2Trainer(embedded_checkpoint(), args, records, records)
    trainer.train()
    trainer.evaluate()  # after the end, as `fgclip2 train` does
    return {name for row in trainer.state.log_history for name in row} - {"step", "total_flos"}


def written_by_trackio(folder: Path) -> set[str]:
    import trackio

    trackio.finish()
    (run,) = trackio.Api().runs("squares")
    assert run.name.startswith("run of trackio-"), run.name
    assert run.config["objective_settings"] == {"distillation_weight": 1.0}
    with sqlite3.connect(folder / "trackio" / "squares.db") as database:
        return {name for (row,) in database.execute("SELECT metrics FROM metrics") for name in json.loads(row)}


def written_by_wandb(folder: Path) -> set[str]:
    import wandb

    run = wandb.run
    assert (run.project, run.name.rpartition("-")[0]) == ("squares", "run of wandb")
    assert run.config["objective_settings"] == {"distillation_weight": 1.0}
    summary = set(run.summary.keys())
    wandb.finish()
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    print(f"{file.name}: {file.stat().st_size} bytes")
    return summary


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    make_records(folder / "squares", 12)
    os.environ |= {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "TRACKIO_DIR": str(folder / "trackio")}
    refuse_other_machines()
    for package, written in (("trackio", written_by_trackio), ("wandb", written_by_wandb)):
        expected, found = train(folder, package), written(folder)
        lacking = {name for name in expected if not any(name.removeprefix("eval_") in other for other in found)}
        print(package, "has", len(found), "numbers; lacking:", sorted(lacking))


if __name__ == "__main__":
    main()
