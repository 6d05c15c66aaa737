"""An embedder without a model."""

import time
from types import SimpleNamespace

import numpy as np

from fgclip2.embedding import Skipped


class FakeEmbedder:
    """Embeds a file as the number in its name and its number of bytes, in some seconds each."""

    name, revision, embedding_size = "fake", None, 2
    fingerprint = weights_fingerprint = "f" * 64
    max_pixels = 10**8
    processor = SimpleNamespace(patch_budgets=None)

    def __init__(self, seconds: float = 0):
        self.seconds = seconds

    def stream_images(self, images, *options, on_error):
        for index, path in enumerate(images):
            time.sleep(self.seconds)
            digits = "".join(filter(str.isdigit, path.stem))
            try:
                yield index, np.array([float(digits), path.stat().st_size], np.float32)
            except FileNotFoundError:
                yield index, Skipped(index, "it has gone")
