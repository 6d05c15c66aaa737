"""All benchmarks: `entries.py` and `bundled.py` are the rows, `benchmark.py` says what a row has."""

from .benchmark import PRESETS, Benchmark, PublishedFile, Reading
from .bundled import BUNDLED
from .entries import COMMON_DIFFERENCES, ENTRIES

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in ENTRIES}


def find_benchmark(name: str) -> Benchmark:
    """Return the benchmark of a name.

    Raises:
        ValueError: There is none.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


__all__ = [
    "BENCHMARKS",
    "BUNDLED",
    "COMMON_DIFFERENCES",
    "ENTRIES",
    "PRESETS",
    "Benchmark",
    "PublishedFile",
    "Reading",
    "find_benchmark",
]
