"""Peak memory and CPU time of a process that embeds two images and four texts by one run time.

    python scripts/run_times/one_process.py BACKEND FOLDER PRECISION

Run as a file: what it imports is what a user's program would import. Prints a JSON object.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

TEXTS = ["a black cat on a red mat", "一只黑猫趴在红色的垫子上", "two dogs", "左边的苹果"]
PATCHES = 256


def pictures() -> list[np.ndarray]:
    """Return two images of 256 x 256 pixels, each uint8 (256, 256, 3)."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (256, 256, 3), np.uint8) for _ in range(2)]


def main(backend: str, folder: str, precision: str) -> None:
    start = time.process_time()
    if backend == "torch":
        from fgclip2 import Embedder

        embedder = Embedder.from_pretrained(folder, device="cpu", dtype=precision)
    else:
        from fgclip2_onnx import OnnxEmbedder

        embedder = OnnxEmbedder.from_pretrained(folder, precision, runtime=backend, threads=1)
    embedder.encode_images(pictures(), PATCHES)
    embedder.encode_texts(TEXTS, role="caption")
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(json.dumps({"seconds": time.process_time() - start, "peak_bytes": int(peak.split()[1]) * 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
