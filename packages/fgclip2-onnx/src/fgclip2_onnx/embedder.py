"""OnnxEmbedder: the interface of fgclip2's Embedder, run by onnxruntime or OpenVINO."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._fgclip2.calibration.stored import CALIBRATION_FILE
from ._fgclip2.embedding.embedder import BaseEmbedder, RoleText
from ._fgclip2.embedding.inputs import ImageRecord
from ._fgclip2.embedding.labels import normalised
from ._fgclip2.embedding.reranker import ImageWindows
from .dense import best_windows, pool_regions, resize_map
from .model import OnnxModel
from .processor import OnnxProcessor
from .runtimes import Runtime


class OnnxEmbedder(BaseEmbedder):
    """Embed images, regions and texts, compare them, label images and regions, without torch.

    Its methods are those of `fgclip2.Embedder`; what inputs and results are is said in [`BaseEmbedder`].

    Args:
        model: The graphs; public as `embedder.model`.
        processor: Of the same folder; public as `embedder.processor`.

    Attributes:
        name, revision: What the exported checkpoint was called.
        fingerprint, weights_fingerprint: Those of the exported checkpoint, by which an index knows its model.

    Example:
        >>> from fgclip2_onnx import OnnxEmbedder
        >>> embedder = OnnxEmbedder.from_pretrained("fgclip2-onnx-folder")
        >>> images = embedder.encode_images(["猫.jpg", "dog.png"])
        >>> texts = embedder.encode_texts(["一只黑猫", "a brown dog"])
        >>> embedder.similarity(images, texts).shape
        (2, 2)
    """

    def __init__(self, model: OnnxModel, processor: OnnxProcessor):
        self.replicas = [model]
        self.processor = processor
        self.title, self.lacks = model.title, model.lacks
        manifest = model.manifest
        self.name = manifest["name"]
        self.revision: str | None = manifest["revision"]
        self.fingerprint = manifest["fingerprint"]
        self.weights_fingerprint: str = manifest["weights_fingerprint"]
        self.score_scale_and_bias = model.score_scale_and_bias

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        precision: str | None = None,
        images: str | None = None,
        providers: Sequence[Any] | None = None,
        verify: bool = False,
        runtime: Runtime = "onnxruntime",
        threads: int | None = None,
    ) -> OnnxEmbedder:
        """Open an exported folder; the arguments are those of [`OnnxModel`].

        A `calibration.json` in it is used, see [`use_calibration`], if the graphs are in fp32 and images keep their own
        shape: other vectors are not those that were calibrated.

        Raises:
            OSError: The folder has no `fgclip2_onnx.json`, or a file of it is missing.
            ValueError: A file is damaged, the folder has no such precision or images, or the run time no such provider.
            ImportError: OpenVINO is asked for, and not installed.
        """
        model = OnnxModel(folder, precision, images, providers, verify, runtime, threads)
        embedder = cls(model, OnnxProcessor(model.manifest, model.folder, model.images))
        if Path(folder, CALIBRATION_FILE).is_file():
            embedder._take_calibration_beside(Path(folder, CALIBRATION_FILE), model.is_exact)
        return embedder

    def describe_vectors(self) -> dict[str, Any]:
        return self.model.describe_vectors()

    def budget_of(self, max_num_patches: int | str | None = None) -> int | str | None:
        if max_num_patches is None and self.processor.patch_budgets is not None:
            return self.model.manifest["image"]["max_num_patches"]
        return max_num_patches

    def __repr__(self) -> str:
        parts = (repr(self.name), self.title, f"D={self.embedding_size}", self.model.images, self.model.precisions)
        return f"{type(self).__name__}({', '.join(parts)})"

    def _image_vectors(self, model: OnnxModel, records: list[ImageRecord]) -> np.ndarray:
        return normalised(model.image_features(self.processor.collate_images([record.inputs for record in records])))

    def _text_vectors(self, model: OnnxModel, texts: list[RoleText]) -> np.ndarray:
        role = texts[0].role
        inputs = self.processor.tokenize([text.text for text in texts], role)
        return normalised(model.text_features(role, inputs["input_ids"]))

    def _vectors_and_maps(self, model: OnnxModel, records: list[ImageRecord]) -> tuple[np.ndarray, list[np.ndarray]]:
        inputs = self.processor.collate_images([record.inputs for record in records])
        pooled, dense = model.image_and_dense_features(inputs)  # (B, D), (B, N, D)
        maps = [
            patches[: height * width].reshape(height, width, -1)
            for patches, (height, width) in zip(dense, model.patch_grids(inputs).tolist(), strict=True)
        ]
        return normalised(pooled), maps

    def _array_of_map(self, dense: np.ndarray) -> np.ndarray:
        return dense

    def _region_vectors(self, model: OnnxModel, records: list[ImageRecord]) -> list[np.ndarray]:
        _, maps = self._vectors_and_maps(model, records)
        return [
            normalised(pool_regions(dense, record.boxes, record.image_size))  # (R_i, D)
            for dense, record in zip(maps, records, strict=True)
        ]

    def _heat_maps(
        self, model: OnnxModel, records: list[ImageRecord], text_vectors: np.ndarray, resize: bool, first_only: bool
    ) -> list[np.ndarray]:
        results = []
        _, dense_maps = self._vectors_and_maps(model, records)
        for dense, record in zip(dense_maps, records, strict=True):
            maps = np.ascontiguousarray(
                (normalised(dense) @ text_vectors.T).transpose(2, 0, 1)
            )  # (texts, height, width)
            if resize:
                small, maps = maps, np.empty((len(maps), *record.image_size), np.float32)
                for row, cosines in zip(maps, small, strict=True):  # copies of all at once may take gigabytes
                    row[:] = resize_map(cosines, record.image_size)
            results.append(maps[0] if first_only else maps)
        return results

    def windows_of_maps(
        self, maps: Sequence[np.ndarray], image_sizes: Sequence[tuple[int, int]], phrases: Sequence[np.ndarray]
    ) -> list[ImageWindows]:
        found = []
        for dense, (height, width), vectors in zip(maps, image_sizes, phrases, strict=True):
            cosines, boxes = best_windows(dense, vectors)
            found.append(ImageWindows(cosines, boxes * np.array([width, height] * 2, np.float32)))
        return found
