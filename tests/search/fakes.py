"""An embedder without a model."""

import time
from types import SimpleNamespace

import numpy as np

from fgclip2.embedding import DenseMap, Skipped


class FakeEmbedder:
    """Embeds a file as the number in its name and its number of bytes, in some seconds each.

    Its dense maps are of the same two numbers. After `broken_after` of them it is interrupted.
    """

    name, revision, embedding_size = "fake", None, 2
    fingerprint = weights_fingerprint = "f" * 64
    max_pixels = 10**8
    device = "cpu"
    processor = SimpleNamespace(patch_budgets=None)

    def __init__(self, seconds: float = 0, broken_after: int = 10**9):
        self.seconds, self.broken_after = seconds, broken_after
        self.mapped: list[str] = []  # names of the files whose dense maps were made

    def require_dense_features(self):
        pass

    def describe_vectors(self):
        return {"backend": "torch", "precision": "float32", "images": "square"}

    def stream_images(self, images, *options, on_error):
        for index, path in enumerate(images):
            time.sleep(self.seconds)
            try:
                yield index, np.array([_number(path.stem), path.stat().st_size], np.float32)
            except FileNotFoundError:
                yield index, Skipped(index, "it has gone")

    def stream_dense_maps(self, images, *options, on_error):
        for index, vector in self.stream_images(images, *options, on_error=on_error):
            if index == self.broken_after:
                raise KeyboardInterrupt
            if isinstance(vector, Skipped):
                yield index, vector
                continue
            self.mapped.append(images[index].name)
            yield index, (vector, _map_of(*vector))


def _number(stem):
    return float("".join(filter(str.isdigit, stem)))


def _map_of(number, size):
    values = np.random.default_rng(int(number)).normal(size=(2, 3, 4)).astype(np.float32)
    return DenseMap(values, (int(number) + 1, int(size)))


def is_map_of(dense_map, path, size):
    """Tell if a stored map is that of a file, but for the rounding of int8 and a factor."""
    fresh = _map_of(_number(path.rpartition("/")[2].rpartition(".")[0]), size)
    expected = fresh.values / np.abs(fresh.values).max()
    return dense_map.image_size == fresh.image_size and np.allclose(dense_map.values, expected, atol=0.01)
