"""The other harnesses, which only `make harnesses` installs."""

import importlib
import os
from types import ModuleType

import pytest


def import_or_skip(module: str) -> ModuleType:
    """A module of a harness; where `make harnesses` runs the tests, its want is a failure."""
    if "FGCLIP2_HARNESSES" in os.environ:
        return importlib.import_module(module)
    return pytest.importorskip(module)
