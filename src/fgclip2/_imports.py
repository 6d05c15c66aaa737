"""Optional dependencies: imported where they are used, with an error that says how to get them."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType


def without_telemetry() -> None:
    """Keep onnxruntime and OpenVINO, once they are imported, from reporting that they are used.

    Both do it unasked, and leave an identifier in the home folder. A user who has set ORT_DISABLE_TELEMETRY, or has
    imported OpenVINO before, is not overruled.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # then OpenVINO takes a stub of its own


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: name to import, e.g. `"resvg_py"`.
        extra: the extra of this package that brings it, e.g. `"data"`.

    Returns:
        The imported module.

    Raises:
        ImportError: `module` is not installed; the message is the pip command that installs it. An error inside an
            installed module is not touched.
    """
    without_telemetry()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(f'{module} is not installed; run: pip install "fgclip2[{extra}]"') from error
