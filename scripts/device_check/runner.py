"""Run parts one after another, each in a process of its own with a limit to its time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..environments import ROOT
from .records import FAILED, TIMED_OUT, read_results, write_results

STATE = ("running", "ended")  # in a part's file: the row that is under way, and how the part ended


def run_part(name: str, device: str, work: Path, is_dry: bool, limit: float) -> str:
    """Run a part, and return how it ended: `"complete"`, `"timed out"` or `"failed"`.

    The record of the case that was under way when a process ended before its part says so.

    Args:
        name: Name of the part.
        device: Of torch, such as `"cuda"`.
        work: Folder of the results; what it has of the part is gone on with.
        is_dry: Take tiny shapes.
        limit: Seconds that the part may take.
    """
    path = work / f"{name}.json"
    if path.is_file():  # how an earlier run ended says nothing of this one
        write_results(path, {key: value for key, value in read_results(path).items() if key not in STATE})
    # NVIDIA's images set this, for fp32 to be TF32 whatever a program says.
    environment = {key: value for key, value in os.environ.items() if key != "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"}
    # Where fgclip2 is installed, its graphs' runtime need not be: that of this checkout is of the same release.
    onnx_package = ROOT / "packages" / "fgclip2-onnx" / "src"
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(onnx_package), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", f"{__package__}.one_part", name, "--device", device, "--work", str(work)]
    command += ["--parent", str(os.getpid())]
    command += ["--dry-run"] if is_dry else []
    try:
        # What a part starts, loaders and compilers, ends by itself when the part is gone. In a session of its own the
        # part would outlive whoever ends this process.
        status = subprocess.run(command, cwd=ROOT, env=environment, timeout=limit, check=False).returncode
        problem = {"kind": FAILED, "detail": f"exit status {status}"}
    except subprocess.TimeoutExpired:
        problem = {"kind": TIMED_OUT, "detail": f"{limit:.0f} s"}
    content = read_results(path)
    if "ended" not in content:
        if "running" in content:
            content["records"][content.pop("running")]["problem"] = problem
        else:  # it was between two cases
            content["records"].append({"problem": problem})
        write_results(path, {**content, "ended": problem["kind"]})
    return read_results(path)["ended"]
