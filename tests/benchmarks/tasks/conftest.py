"""What the tests of kinds share: a model that sees colours, pictures of one or two colours, a broken one."""

import pytest
from PIL import Image

from fgclip2.benchmarks.encoding import Encoder
from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.models import PairEmbedder

from .colors import COLORS, mean_colors, named_colors


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(PairEmbedder(mean_colors, named_colors, "colours"), show_progress_bar=False)


@pytest.fixture
def picture(tmp_path):
    """Make an image of one colour, or of a left and a right one."""

    def make(name: str, *colors: str) -> ImageFile:
        image = Image.new("RGB", (32, 16), COLORS[colors[0]])
        image.paste(COLORS[colors[-1]], (16, 0, 32, 16))
        image.save(tmp_path / name)
        return ImageFile(tmp_path / name)

    return make


@pytest.fixture
def broken(tmp_path) -> ImageFile:
    (tmp_path / "坏.png").write_bytes(b"broken")
    return ImageFile(tmp_path / "坏.png")
