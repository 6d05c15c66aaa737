"""The embedded checkpoint, which the app answers with, and the browser, which only `make app` has."""

import os

import pytest

from fgclip2 import Embedder

COLLECTED = "test_interface.py"


def pytest_ignore_collect(collection_path) -> bool | None:
    """Leave out what imports Gradio and Playwright where `make app` has not put them."""
    return True if collection_path.name == COLLECTED and "FGCLIP2_APP" not in os.environ else None


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder.from_pretrained(device="cpu")
