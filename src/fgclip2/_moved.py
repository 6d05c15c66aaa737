"""Old paths of modules that have moved: they open the new module for one release, with a `DeprecationWarning`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

# Old name of a module, or of a folder of modules -> its name since 0.2. To go in 0.3.
MOVED = {
    "fgclip2._batching": "fgclip2.streams",
    "fgclip2._records": "fgclip2.embedding.inputs",
    "fgclip2.benchmarks.classification": "fgclip2.benchmarks.tasks.classification",
    "fgclip2.benchmarks.data_sets": "fgclip2.benchmarks.tasks",
    "fgclip2.benchmarks.detection": "fgclip2.benchmarks.tasks.detection",
    "fgclip2.benchmarks.hard_negatives": "fgclip2.benchmarks.tasks.hard_negatives",
    "fgclip2.benchmarks.matching": "fgclip2.benchmarks.tasks.matching",
    "fgclip2.benchmarks.region_classification": "fgclip2.benchmarks.tasks.region_classification",
    "fgclip2.benchmarks.retrieval": "fgclip2.benchmarks.tasks.retrieval",
    "fgclip2.benchmarks.segmentation": "fgclip2.benchmarks.tasks.segmentation",
    "fgclip2.benchmarks.settings": "fgclip2.benchmarks.tasks",
    "fgclip2.data.demo": "fgclip2.drawings",
    "fgclip2.data.hard_negatives": "fgclip2.hard_negatives",
    "fgclip2.embedder": "fgclip2.embedding",
    "fgclip2.training.modeling": "fgclip2.training.tasks.fgclip2",
    "fgclip2.training.sigmoid_over_ranks": "fgclip2.training.losses.sigmoid_over_ranks",
}


class _MovedModule:  # without the base class of importlib.abc, whose import takes 5 ms of `fgclip2 --help`
    """Hands out the very module that has the new name, so that its classes are the same under both."""

    def __init__(self, new_name: str):
        self.new_name = new_name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        message = f"{spec.name} is {self.new_name} since fgclip2 0.2; the old name goes in 0.3"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        module = import_module(self.new_name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # importlib has put the old name's into its place


class _MovedModules:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for old, new in MOVED.items():
            if fullname == old or fullname.startswith(f"{old}."):
                loader = _MovedModule(new + fullname.removeprefix(old))
                return ModuleSpec(fullname, loader)  # type: ignore[arg-type]
        return None


def keep_old_names() -> None:
    """Let imports by old names succeed."""
    # First: else the usual finder makes a second module of the same file, beside the one of the new name.
    sys.meta_path.insert(0, _MovedModules())
