"""Run a graph by onnxruntime, or by OpenVINO where it is installed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ._fgclip2._imports import without_telemetry
from ._fgclip2.checks import check_choice

without_telemetry()
import onnxruntime  # noqa: E402

Runtime = Literal["onnxruntime", "openvino"]
RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")


class Graph(Protocol):
    """A graph that is ready to run; threads may share it.

    Attributes:
        inputs: The name of each input, and the dtype that it has: float32 or int64.
    """

    inputs: dict[str, Any]

    def run(self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Compute the outputs of these names."""


class OnnxRuntimeGraph:
    """A graph that onnxruntime runs.

    Args:
        path: The file, with its weights beside it.
        providers: Execution providers in the order of preference, names or (name, options).
        threads: As of [`open_graph`].

    Attributes:
        providers: Names of those that it runs on: onnxruntime goes on without one that can't be loaded.
    """

    def __init__(self, path: Path, providers: Sequence[Any], threads: int | None):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: its own choice
        options.log_severity_level = 3  # errors: warnings are about graphs, which their users don't make
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self.providers: list[str] = self._session.get_providers()
        self.inputs = {one.name: _dtype(one.type) for one in self._session.get_inputs()}

    def run(self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return self._session.run(list(outputs), dict(inputs))


class OpenVinoGraph:
    """A graph that OpenVINO runs on the CPU, in float32 even where the CPU has faster products of bfloat16.

    Args:
        path: The file, with its weights beside it.
        threads: As of [`open_graph`].

    Raises:
        ImportError: OpenVINO is not installed.
    """

    def __init__(self, path: Path, threads: int | None):
        core = import_openvino().Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads or 0}  # 0: its own choice
        self._model = core.compile_model(core.read_model(path), "CPU", settings)
        self.inputs = {one.node.friendly_name: _dtype(one.element_type.to_string()) for one in self._model.inputs}
        self._local = threading.local()  # a request belongs to one thread

    def run(self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if not hasattr(self._local, "request"):
            self._local.request = self._model.create_infer_request()
        results = self._local.request.infer(dict(inputs))
        return [results[name] for name in outputs]


def import_openvino() -> Any:
    """Return the module.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise ImportError('runtime="openvino" needs OpenVINO: pip install "fgclip2-onnx[openvino]"') from error
    return openvino


def check_runtime(runtime: str, providers: Sequence[Any] | None) -> None:
    """Raise an error unless there is this run time, and it has these providers.

    Raises:
        ValueError: There is no such run time; `providers` is no list, or onnxruntime has not all of them; or they are
            given to OpenVINO.
        ImportError: OpenVINO is not installed.
    """
    check_choice("runtime", runtime, RUNTIMES)
    if runtime == "openvino":
        if providers is not None:
            raise ValueError(
                f"providers={providers!r} are of onnxruntime: leave them out, runtime='openvino' uses the CPU"
            )
        import_openvino()
    elif providers is not None:
        if isinstance(providers, str) or not providers:
            raise ValueError(f"providers must be a list such as ['CPUExecutionProvider'], got {providers!r}")
        for provider in providers:
            name = provider if isinstance(provider, str) else provider[0]  # of (name, options)
            check_choice("providers", name, onnxruntime.get_available_providers())


def open_graph(path: Path, runtime: str, providers: Sequence[Any] | None, threads: int | None) -> Graph:
    """Open the graph in a file, on the CPU unless `providers` say otherwise.

    Args:
        path: The file.
        runtime, providers: What [`check_runtime`] has checked.
        threads: How many threads one call uses; `None`: the run time's choice, as a rule one for each core.
    """
    if runtime == "openvino":
        return OpenVinoGraph(path, threads)
    return OnnxRuntimeGraph(path, ["CPUExecutionProvider"] if providers is None else list(providers), threads)


def _dtype(name: str) -> Any:
    return np.int64 if "64" in name else np.float32
