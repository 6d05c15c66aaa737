"""Describe the machine and the packages that a result depends on beside this checkout."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch
import transformers

import fgclip2

from .records import Settings


def usable_cores() -> int:
    """Return the number of cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine(settings: Settings) -> dict[str, Any]:
    """Return device, cores and releases of packages."""
    device = settings.device
    name = platform.processor() or platform.machine()
    memory = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, round(properties.total_memory / 2**30)
    return {
        "device": name,
        "memory_gib": memory,
        "cores": usable_cores(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "fgclip2": fgclip2.__version__,
        "dry_run": settings.is_dry,
    }
