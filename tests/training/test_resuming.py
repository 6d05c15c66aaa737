"""A run that is killed and continued gives the same losses as one that is not."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fgclip2.data import ShardedRecords, read_finehard, write_shards
from fgclip2.training import FGClip2Trainer

from ..ranks import FORKS
from . import run_trainer
from .conftest import make_records
from .test_trainer import arguments, logs


def train(arguments: list[str], environment: dict[str, str], errors: Path) -> None:
    multiprocessing.set_start_method(None, force=True)  # the loader's workers as usual, not from the server of forks
    os.environ.update(environment)
    with errors.open("a") as file:
        os.dup2(file.fileno(), 2)
    run_trainer.main(arguments)


def train_in_forks(arguments: list[str], environment: dict[str, str], processes: int) -> subprocess.CompletedProcess:
    """Do as `torchrun` without an interpreter to start for each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)} for rank in range(processes)]
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        environments = [environment | (address | rank if processes > 1 else {}) for rank in ranks]
        forks = [FORKS.Process(target=train, args=(arguments, each, errors)) for each in environments]
        for fork in forks:
            fork.start()
        for fork in forks:
            fork.join(600)
            fork.kill()  # if it still runs
            fork.join()
        return subprocess.CompletedProcess(arguments, forks[0].exitcode, stderr=errors.read_text())


def run(checkpoint, records, output, *options, environment=None, processes=1, expect=0, fork=True):
    """Run `run_trainer.py`.

    Args:
        fork: Whether its processes are forked from one. Interpreters of their own, started by `torchrun` if there are
            several, have sets in other orders than these, which shows if a run depends on that.
    """
    arguments = [str(checkpoint), str(records), str(output), *options]
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(environment or {})}
    if fork:
        done = train_in_forks(arguments, environment, processes)
    else:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *(torchrun if processes > 1 else []), run_trainer.__file__, *arguments]
        environment = {**os.environ, **environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert (done.returncode == 0) == (expect == 0), done.stderr[-4000:]
    return done


def losses(output) -> list[dict]:
    names = ("loss", "long_loss", "rank_loss", "margin", "learning_rate", "logit_scale")
    rows = json.loads((Path(output) / "log.json").read_text())
    return [{name: row[name] for name in names} for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def dropout_checkpoint(saved_folder, tmp_path_factory):
    """With dropout, so that the random state matters."""
    from fgclip2 import FGClip2Model, FGClip2Processor

    folder = tmp_path_factory.mktemp("dropout")
    model = FGClip2Model.from_pretrained(saved_folder)
    model.config.text_config.attention_dropout = model.config.vision_config.attention_dropout = 0.2
    model.save_pretrained(folder)
    FGClip2Processor.from_pretrained(saved_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(dropout_checkpoint, records_folder, tmp_path_factory):
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    run(dropout_checkpoint, records_folder, folder, "--ema_decay=0.9", fork=False)
    return folder


def kill_a_run(checkpoint, records, output, step, signal_number):
    environment = {"KILL_AT": str(step), "KILL_SIGNAL": signal_number.name}
    done = run(checkpoint, records, output, "--ema_decay=0.9", environment=environment, expect=1)
    assert done.returncode == (128 + signal.SIGTERM if signal_number == signal.SIGTERM else -signal_number)
    assert not (output / "log.json").exists()


@pytest.fixture(scope="module")
def killed(dropout_checkpoint, records_folder, tmp_path_factory):
    """A run that is killed within the first of its epochs of 9 steps, with checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("killed")
    kill_a_run(dropout_checkpoint, records_folder, folder, 7, signal.SIGKILL)
    return folder


def assert_goes_on_as_if_it_had_not_been(checkpoint, records, killed, whole):
    run(checkpoint, records, killed, "--ema_decay=0.9")
    assert losses(killed) == losses(whole)
    assert len(losses(killed)) == 18
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (killed, whole)]
    assert weights[0] == weights[1]


def test_a_killed_run_goes_on_as_if_it_had_not_been(dropout_checkpoint, records_folder, whole, killed, tmp_path):
    shutil.copytree(killed, tmp_path / "killed")
    assert_goes_on_as_if_it_had_not_been(dropout_checkpoint, records_folder, tmp_path / "killed", whole)


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_goes_on_in_its_second_epoch(dropout_checkpoint, records_folder, whole, tmp_path):
    kill_a_run(dropout_checkpoint, records_folder, tmp_path, 11, signal.SIGTERM)
    assert_goes_on_as_if_it_had_not_been(dropout_checkpoint, records_folder, tmp_path, whole)


@pytest.mark.slow
def test_two_processes_that_are_killed_go_on_as_if_they_had_not_been(dropout_checkpoint, records_folder, tmp_path):
    options = ("--per_device_train_batch_size=2", "--num_train_epochs=2")
    run(dropout_checkpoint, records_folder, tmp_path / "whole", *options, processes=2, fork=False)
    environment = {"KILL_AT": "8", "KILL_SIGNAL": "SIGKILL"}
    run(
        dropout_checkpoint,
        records_folder,
        tmp_path / "killed",
        *options,
        environment=environment,
        processes=2,
        expect=1,
    )
    run(dropout_checkpoint, records_folder, tmp_path / "killed", *options, processes=2)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_a_checkpoint_that_was_cut_off_is_passed_over(dropout_checkpoint, records_folder, whole, killed, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(killed, cut)
    (cut / "checkpoint-6" / "checksums.json").unlink()  # as if it had died while it wrote its last checkpoint
    (cut / "checkpoint-6" / "model.safetensors").write_bytes(b"half")
    assert_goes_on_as_if_it_had_not_been(dropout_checkpoint, records_folder, cut, whole)


@pytest.fixture(scope="module")
def shards(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(records, folder, samples_per_shard=7)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after", "epoch"), [(1, 2, 2 + 4 / 5), (2, 1, 7 / 10)])
def test_a_run_over_a_stream_goes_on_with_other_processes(dropout_checkpoint, shards, tmp_path, before, after, epoch):
    """From step 12 of 10 an epoch with 5, and from step 6 of 5 an epoch with 10."""
    steps = 12 // before
    options = ("--max_grad_norm=1.0", f"--save_steps={steps}", "--language_batches=mixed")
    run(dropout_checkpoint, shards, tmp_path, *options, f"--max_steps={steps}", processes=before)
    more = steps + 2 if after == 2 else steps + 1
    done = run(dropout_checkpoint, shards, tmp_path, *options, f"--max_steps={more}", processes=after)
    assert f"processes: the run had {before} and goes on with {after}" in done.stderr
    rows = json.loads((tmp_path / "log.json").read_text())
    assert [row["epoch"] for row in rows if "loss" in row][-1] == pytest.approx(epoch)


@pytest.mark.parametrize(
    ("processes", "workers"),
    [(1, 0), pytest.param(1, 2, marks=pytest.mark.slow), pytest.param(2, 1, marks=pytest.mark.slow)],
)
def test_a_killed_run_over_a_stream_goes_on_as_if_it_had_not_been(
    dropout_checkpoint, shards, tmp_path, processes, workers
):
    options = (f"--per_device_train_batch_size={4 // processes}", f"--dataloader_num_workers={workers}")
    options += ("--language_batches=mixed",)
    run(dropout_checkpoint, shards, tmp_path / "whole", *options, processes=processes, fork=processes == 1)
    killed, environment = tmp_path / "killed", {"KILL_AT": "14", "KILL_SIGNAL": "SIGKILL"}  # 10 steps an epoch
    run(dropout_checkpoint, shards, killed, *options, environment=environment, processes=processes, expect=1)
    run(dropout_checkpoint, shards, killed, *options, processes=processes)
    assert losses(killed) == losses(tmp_path / "whole")
    assert len(losses(killed)) == 20


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """Records, and shards of them: three steps an epoch."""
    folder = tmp_path_factory.mktemp("twelve")
    make_records(folder / "squares", 12)
    records = read_finehard(folder / "squares" / "records.json", folder / "squares" / "images")
    write_shards(records, folder / "shards", samples_per_shard=5)
    return {"records": records, "shards": folder / "shards"}


@pytest.mark.parametrize(
    ("processes", "workers"), [(1, 1), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((1, 2), (2, 2)))]
)
def test_a_killed_run_over_weighted_shards_goes_on_as_if_it_had_not_been(
    dropout_checkpoint, shards, twelve, tmp_path, processes, workers
):
    """Within its second epoch of 12 steps, of 20 draws of the one source and 30 of the other, half of them Chinese."""
    options = [f"--per_device_train_batch_size={4 // processes}", f"--dataloader_num_workers={workers}"]
    options += ["--dataloader_persistent_workers=true", '--language_shares={"en": 0.5, "zh": 0.5}']
    data = f"{shards}=0.5,{twelve['shards']}=2.5"
    run(dropout_checkpoint, data, tmp_path / "whole", *options, processes=processes, fork=processes == 1)
    killed, environment = tmp_path / "killed", {"KILL_AT": "17", "KILL_SIGNAL": "SIGKILL"}
    run(dropout_checkpoint, data, killed, *options, environment=environment, processes=processes, expect=1)
    done = run(dropout_checkpoint, data, killed, *options, processes=processes)
    assert losses(killed) == losses(tmp_path / "whole")
    assert len(losses(killed)) == 24
    assert "may come twice or not at all" not in done.stderr


@pytest.mark.parametrize(("kind", "step"), [("shards", 2), ("shards", 3), ("records", 2)])
def test_persistent_workers_go_on_with_the_same_dropout(dropout_checkpoint, twelve, tmp_path, kind, step):
    """Within the first epoch or after it. A loader that begins draws a seed, persistent ones once in a run."""

    def trained(checkpoint=None):
        args = arguments(
            tmp_path,
            max_steps=6,
            save_strategy="steps",
            save_steps=step,
            language_batches="mixed",
            dataloader_num_workers=1,
            dataloader_persistent_workers=True,
            dataloader_pin_memory=False,
        )
        data = twelve[kind] if kind == "records" else ShardedRecords(twelve[kind], 4, drop_last=True, buffer_size=8)
        run = FGClip2Trainer(str(dropout_checkpoint), args, data)
        run.train(resume_from_checkpoint=checkpoint)
        return [row["loss"] for row in logs(run)]

    whole = trained()
    assert len(whole) == 6
    assert trained(str(tmp_path / f"checkpoint-{step}")) == whole
