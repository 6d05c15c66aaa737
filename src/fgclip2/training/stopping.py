"""Ending a run before its last step: numbers that are not finite, and SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing import parent_process
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..distributed import gather_objects, sum_over_ranks, world_size
from ..errors import NotFiniteError
from .averaging import local_part
from .checkpoints import last_checkpoint

_SUMS = ("hard_negative", "loss")  # of the objective's other losses, which went wrong before them


def losses_in_order(losses: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Return what the objective returned under the names of the log, sums after what they are sums of."""
    ordered = sorted(losses.items(), key=lambda item: item[0] in _SUMS)  # stable
    return [(name if name == "loss" else f"{name}_loss", value.detach()) for name, value in ordered]


def check_step(
    step: int, values: Sequence[tuple[str, Tensor]], output_dir: str | Path, stop_requested: bool = False
) -> bool:
    """Make sure that all numbers of a step are finite, on all ranks, and ask whether the run is to stop after it.

    One collective and one transfer to the host, in place of those by which transformers looks for NaN in each loss.

    Args:
        step: Number of the step, from 1.
        values: Names and scalars on the device of the run, in the order in which they were computed; as many on every
            rank.
        output_dir: Folder of the run, for the message.
        stop_requested: This process has been told to stop.

    Returns:
        `True`, on all ranks alike, if one of them has been told to stop.

    Raises:
        NotFiniteError: On all ranks alike, if one of the numbers is not finite on any of them.
    """
    finite = torch.stack([value.float().reshape(()) for _, value in values]).isfinite()  # (values,)
    flags = torch.stack([(~finite).any(), torch.full_like(finite[0], stop_requested)]).float()
    is_wrong, is_to_stop = sum_over_ranks(flags).tolist()
    if not is_wrong:
        return bool(is_to_stop)
    wrong = [(number, values[number][0], values[number][1].item()) for number in (~finite).nonzero()[:1, 0].tolist()]
    _, place, name, value = min(
        (number, place, name, value)
        for place, found in enumerate(gather_objects(wrong))
        for number, name, value in found
    )
    _raise_not_finite(f"{name} is not finite ({value}) at step {step}", place, output_dir)


def check_weights(step: int, parameters: Iterable[tuple[str, nn.Parameter]], output_dir: str | Path) -> None:
    """Make sure that trained weights are finite on all ranks, before they are saved.

    Raises:
        NotFiniteError: On all ranks alike; names the first parameter that is not.
    """
    trained = [(name, local_part(parameter)) for name, parameter in parameters if parameter.requires_grad]
    finite = torch.stack([values.isfinite().all() for _, values in trained])  # (parameters,)
    if not sum_over_ranks((~finite).any().float()).item():
        return
    wrong = [trained[number][0] for number in (~finite).nonzero()[:, 0].tolist()]
    place, name = next((place, found[0]) for place, found in enumerate(gather_objects(wrong)) if found)
    _raise_not_finite(f"the weight {name} is not finite after step {step}", place, output_dir)


def _raise_not_finite(what: str, place: int, output_dir: str | Path) -> NoReturn:
    on_rank = f" on rank {place}" if world_size() > 1 else ""
    kept = last_checkpoint(output_dir)
    kept = f"the last checkpoint is {Path(kept).name}" if kept else "there is no checkpoint before it"
    raise NotFiniteError(
        f"{what}{on_rank}, so the run stops and saves nothing; {kept}. Usually the scales or the learning rate are too "
        "large: set `max_logit_scale` to 100, lower `learning_rate`, and use bf16 rather than fp16"
    )


class NotedSigterm:
    """Notes SIGTERM within its context, in place of ending the process at once; a second one does that.

    Only the main thread can do so; elsewhere the context does nothing. One that came too late to be heeded ends the
    process when the context ends.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: Any = None

    def __enter__(self) -> NotedSigterm:
        self.received = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, error: type[BaseException] | None, *details: Any) -> None:
        self._restore()
        if self.received and error is None:
            signal.raise_signal(signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None


def heed_parent_only(worker: int) -> None:
    """Let a loader worker end by SIGTERM of its parent only.

    Schedulers send it to all processes of a job. Without its workers a run could not take the step that it is at.
    """
    if not hasattr(signal, "sigwaitinfo"):  # Windows and macOS tell nobody who has sent a signal
        return

    started_by = parent_process()  # under `forkserver` another than the parent of the system
    assert started_by is not None

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid not in (os.getppid(), started_by.pid):
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, daemon=True).start()
