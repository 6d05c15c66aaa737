"""OnnxModel: the graphs of an exported folder, run by onnxruntime."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ._fgclip2.checks import check_choice
from ._fgclip2.files import read_json

MANIFEST = "fgclip2_onnx.json"
FORMAT = 1
# Asked for none, the first of these that a folder has; the others are smaller, and further from the model.
PREFERRED_PRECISIONS = ("fp32", "int8")


class OnnxModel:
    """The graphs of an exported folder. They are opened on first use, and threads may share them.

    Args:
        folder: Folder with a `fgclip2_onnx.json`, as `fgclip2 export OUT --format onnx` writes it.
        precision: One that the folder has, such as `"fp32"`, `"fp16"`, `"int8"` or `"int8-fast"`; `None`: `"fp32"`,
            else `"int8"`, else the first. The images of a precision that has graphs for texts only are run in `"int8"`,
            else in the first that has images.
        images: `"naflex"` (own size and aspect ratio) or `"square"`; `None`: what the family was trained with. Of
            FG-CLIP 2, squares give other vectors, which never compare with those of NaFlex.
        providers: Execution providers of onnxruntime in the order of preference; `None`: the CPU.

    Attributes:
        manifest: The content of `fgclip2_onnx.json`.
        precision, image_precision: The precisions of texts and of images.
        images: `"naflex"` or `"square"`.

    Raises:
        OSError: The folder is none of these, or a file of it is missing.
        ValueError: A file is damaged, or the folder has no such precision or images.
    """

    device = "cpu"

    def __init__(
        self,
        folder: str | os.PathLike,
        precision: str | None = None,
        images: str | None = None,
        providers: Sequence[str] | None = None,
    ):
        self.folder = Path(folder)
        if not (self.folder / MANIFEST).is_file():
            raise OSError(
                f"{folder} has no {MANIFEST}, so it is no ONNX folder: make one with `fgclip2 export OUT --format onnx`"
            )
        self.manifest: dict[str, Any] = read_json(self.folder / MANIFEST)
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            found = self.manifest.get("format") if isinstance(self.manifest, dict) else self.manifest
            raise ValueError(
                f"{self.folder / MANIFEST} must have the format {FORMAT}, got {found!r:.80}: export it again"
            )
        available = self.manifest["precisions"]
        preferred = next((name for name in PREFERRED_PRECISIONS if name in available), next(iter(available)))
        self.precision: str = preferred if precision is None else precision
        check_choice("precision", self.precision, available)
        own = self.manifest["image"]["kind"]
        self.images: str = own if images is None else images
        check_choice("images", self.images, (own, "square") if self.manifest.get("image_square") else (own,))
        self._image_graph = "image" if self.images == own else "image_square"
        # "int8" has the images that are meant for the texts of "int8-fast".
        having = [name for name in (self.precision, "int8", *available) if name in available]
        graphs = {name: available[name]["graphs"] for name in having}
        self.image_precision: str | None = next((name for name in having if self._image_graph in graphs[name]), None)
        self._providers = ["CPUExecutionProvider"] if providers is None else list(providers)
        self._lock = threading.Lock()
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        score = self.manifest["score"]
        self.score_function: str = score["function"]
        self.score_scale_and_bias: tuple[float, float] = (score["scale"], score["bias"])
        self.region_logit_scale: float = score["region_scale"]
        self.embedding_size: int = self.manifest["embedding_size"]
        self._positions: dict[str, np.ndarray] = {}

    def describe_vectors(self) -> dict[str, Any]:
        """Return what [`BaseEmbedder.describe_vectors`] does."""
        described: dict[str, Any] = {
            "backend": "onnx",
            "precision": self.image_precision or self.precision,
            "images": self.images,
        }
        if self._image_graph == "image_square":  # whose size is the exporter's choice
            described["image_size"] = self.manifest["image_square"]["size"]
        return described

    def _path(self, name: str) -> Path:
        """Return the path of a file of the folder, as large as it was written."""
        path = self.folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{self.folder / MANIFEST} names the file {name!r}, which lies outside its folder")
        if not path.is_file():
            raise OSError(f"{path} is missing: export the folder again")
        expected = self.manifest["files"].get(name, {}).get("bytes")
        if expected is not None and path.stat().st_size != expected:
            raise ValueError(f"{path} has {path.stat().st_size} bytes instead of {expected}: export the folder again")
        return path

    def _session(self, precision: str, graph: str) -> onnxruntime.InferenceSession:
        name = self.manifest["precisions"][precision]["graphs"][graph]
        with self._lock:
            if name not in self._sessions:
                for file in self.manifest["files"]:  # the weights, too: without them onnxruntime says little
                    if Path(file).parent == Path(name).parent:
                        self._path(file)
                options = onnxruntime.SessionOptions()
                options.log_severity_level = 3  # errors: warnings are about graphs, which their users don't make
                try:
                    session = onnxruntime.InferenceSession(str(self._path(name)), options, providers=self._providers)
                except OSError:
                    raise
                except Exception as error:  # the classes of onnxruntime's errors are not public
                    raise ValueError(f"{self.folder / name} can't be run: {error}") from error
                self._sessions[name] = session
            return self._sessions[name]

    @cached_property
    def _token_table(self) -> np.ndarray:
        """The vectors of tokens (V, D), of which only the rows in use are read from the disk."""
        return np.load(self._path(self.manifest["precisions"][self.precision]["token_table"]), mmap_mode="r")

    def text_features(self, role: str, input_ids: np.ndarray) -> np.ndarray:
        """Embed texts.

        Args:
            role: What the texts are to the model.
            input_ids: Integers (B, T), from [`OnnxProcessor.tokenize`] with the same role.

        Returns:
            Float32 (B, E), not normalised.
        """
        settings = self.manifest["text"]
        of_role = settings["roles"][role]
        name = of_role["positions"]
        if name not in self._positions:
            self._positions[name] = np.load(self._path(name))  # (length, D)
        positions = self._positions[name][: input_ids.shape[1]]
        inputs = {"inputs_embeds": self._token_table[input_ids].astype(np.float32) + positions}  # (B, T, D)
        if settings["needs_end_index"]:
            inputs["end_index"] = (input_ids == settings["eos_id"]).argmax(1).astype(np.int64)  # the first of each text
        (features,) = self._session(self.precision, "text").run([of_role["output"]], inputs)
        return features

    def image_features(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Embed images that [`OnnxProcessor.collate_images`] prepared: float32 (B, E), not normalised."""
        return self._run_images(self._image_graph, ["image"], inputs)[0]

    def dense_features(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Embed patches: float32 (B, N, E), row by row; those past the grid of an image mean nothing."""
        return self._run_images("image_dense", ["dense"], inputs)[0]

    def image_and_dense_features(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return what [`image_features`] and [`dense_features`] do, in one pass."""
        image, dense = self._run_images("image_dense", ["image", "dense"], inputs)
        return image, dense

    def patch_grids(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the grids of patches that images are: integers (B, 2), (height, width) of each."""
        if "spatial_shapes" in inputs:
            return inputs["spatial_shapes"]
        side = self.manifest["image"]["patch_size"]
        return np.array([[size // side for size in image.shape[1:]] for image in inputs["pixel_values"]])

    @property
    def has_dense_features(self) -> bool:
        """Return whether there is a graph for dense maps of such images."""
        graphs = self.manifest["precisions"].get(self.image_precision, {}).get("graphs", {})
        return self._image_graph == "image" and "image_dense" in graphs

    def _run_images(self, graph: str, outputs: list[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if self.image_precision is None:
            raise ValueError(f"{self.folder} has no graph for images in any precision: export it again with one")
        session = self._session(self.image_precision, graph)
        taken = {wanted.name: np.int64 if "int64" in wanted.type else np.float32 for wanted in session.get_inputs()}
        # The image processor counts in int32, graphs in int64.
        return session.run(outputs, {name: np.asarray(inputs[name], kind) for name, kind in taken.items()})
