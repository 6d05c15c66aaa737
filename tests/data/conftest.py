"""Folders of small pictures."""

from pathlib import Path

import pytest

from tests.data.samples import write_images


@pytest.fixture
def images(tmp_path) -> Path:
    """`0.png` to `3.png`."""
    return write_images(tmp_path / "images", 4)
