"""Time and peak memory of one ONNX graph in a process of its own, which imports nothing but NumPy and onnxruntime.

    python measure_graph.py '{"graph": "fp32/text.onnx", "batch": 4, ...}'

Run as a file, not as a module, so that the package is not imported; prints a JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def measure(request: dict[str, Any]) -> dict[str, float | None]:
    """Run a graph on one thread.

    Args:
        request: `graph`, its path; `output`, the one to ask for; `shapes`, input -> shape; `values`, integer input ->
            what to fill it with; `runs`, timed ones after one that is not. For texts also
            `token_table` and `positions`, from which `inputs_embeds` is made as a run time makes it.

    Returns:
        `seconds` of CPU time per input of the batch, the fastest of the runs, and `peak_bytes` of the process, `None`
        where the system does not tell.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(request["graph"], options, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    seconds = []
    for _ in range(request["runs"] + 1):
        start = time.process_time()
        feeds = {}
        for name, shape in request["shapes"].items():
            if name in request.get("values", {}):
                feeds[name] = np.full(shape, request["values"][name], np.int64)
            elif name == "inputs_embeds" and "token_table" in request:
                table = np.load(request["token_table"], mmap_mode="r")
                ids = generator.integers(0, len(table), shape[:2])
                positions = np.load(request["positions"], mmap_mode="r")[: shape[1]]
                feeds[name] = table[ids].astype(np.float32) + positions
            else:
                feeds[name] = generator.standard_normal(shape, np.float32)
        session.run([request["output"]], feeds)
        seconds.append((time.process_time() - start) / next(iter(request["shapes"].values()))[0])
    status = Path("/proc/self/status")
    peak = None
    if status.exists():  # the parent's peak is not in it, as it is in what getrusage tells
        peak = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return {"seconds": min(seconds[1:]), "peak_bytes": peak}


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
