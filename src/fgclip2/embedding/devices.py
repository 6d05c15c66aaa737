"""Where and in what to compute: devices and dtypes by their names."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence

import torch

logger = logging.getLogger(__name__)

Device = str | torch.device


def default_device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def resolve_devices(device: Device | Sequence[Device] | None, default: torch.device) -> list[torch.device]:
    """Return one device or several, checked; none is `default`."""
    if device is None:
        return [default]
    names = [device] if isinstance(device, (str, torch.device)) else list(device)
    if not names:
        raise ValueError("device is an empty list; name at least one device, e.g. ['cuda:0', 'cuda:1']")
    try:
        devices = [torch.device(name) for name in names]
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is no torch device; allowed e.g.: 'cpu', 'cuda:0', 'mps'") from error
    for resolved in devices:
        try:
            torch.empty(0, device=resolved)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ValueError(f"device={str(resolved)!r} can't be used here: {str(error).splitlines()[0]}") from error
    return devices


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return a dtype by its name, or for `"auto"` by the device."""
    if dtype == "auto":
        if device.type in ("cpu", "mps"):
            return torch.float32
        return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16
    resolved = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(resolved, torch.dtype) or not resolved.is_floating_point:
        raise ValueError(f"dtype={dtype!r}; allowed: 'auto', 'float32', 'bfloat16', 'float16' or a torch dtype")
    return resolved


def has_native_bfloat16() -> bool:
    """Return whether the CPU has instructions for bfloat16; without, torch converts each number there and back."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def warn_of_slow_bfloat16(device: torch.device, dtype: torch.dtype) -> None:
    """Warn of bfloat16 on a CPU without instructions for it, which is 5 times slower there than float32 (AVX2)."""
    if device.type == "cpu" and dtype == torch.bfloat16 and not has_native_bfloat16():
        logger.warning(
            "this CPU has no instructions for bfloat16 and will be several times slower than in float32: use float32"
        )
