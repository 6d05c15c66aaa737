"""Metrics: what Prometheus reads from the service; no label has anything of a request's content."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # where several workers share their counts
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one service, by the names under which Prometheus sees them with `fgclip2_` before."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        options: dict[str, Any] = {"namespace": "fgclip2", "registry": self._registry}
        self.requests = Counter("requests", "Answers by route and status.", ["route", "status"], **options)
        self.seconds = Histogram(
            "request_seconds", "Seconds from a request's head to its answer.", ["route"], buckets=SECONDS, **options
        )
        self.batch_size = Histogram(
            "batch_size", "Inputs that ran through the model at once.", ["work"], buckets=BATCH_SIZES, **options
        )
        self.waiting = Gauge(
            "waiting_inputs", "Inputs that wait for the model.", multiprocess_mode="livesum", **options
        )
        self.refused = Counter("refused", "Requests refused because too much was waiting.", **options)
        self.shared = Counter("shared_inputs", "Inputs that were being computed for another request.", **options)
        self.cache_hits = Counter("text_cache_hits", "Texts whose vectors were kept.", **options)
        self.cache_misses = Counter("text_cache_misses", "Texts that had to be embedded.", **options)

    def text(self) -> bytes:
        """Return the metrics, of all workers where there are several, as Prometheus reads them."""
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is None:
            return generate_latest(self._registry)
        for path in Path(folder).glob("gauge_live*_*.db"):  # a killed worker's waiting inputs are gone with it
            process = int(re.findall(r"_(\d+)\.db", path.name)[0])
            if not _is_running(process):
                mark_process_dead(process, folder)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)
        return generate_latest(registry)


def _is_running(process: int) -> bool:
    if os.name == "nt":
        return True  # where this signal would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
