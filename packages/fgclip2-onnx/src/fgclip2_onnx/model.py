"""OnnxModel: the graphs of an exported folder, and what goes in and comes out of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ._fgclip2.checks import check_choice, check_flag, check_positive_integer
from ._fgclip2.files import sha256_of_file
from .manifest import path_of, read_manifest
from .runtimes import Graph, Runtime, check_runtime, open_graph

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
        providers: Execution providers of onnxruntime in the order of preference, names or (name, options); `None`: the
            CPU.
        verify: Read every file of the folder, and compare its SHA-256 with that in the manifest. Without it only sizes
            are compared, of files that are opened.
        runtime: What runs the graphs: `"onnxruntime"`, or `"openvino"`, on the CPU, where OpenVINO is installed.
        threads: How many threads one call uses; `None`: the run time's choice, as a rule one for each core.

    Attributes:
        folder: The folder.
        manifest: The content of `fgclip2_onnx.json`.
        precision, image_precision: The precisions of texts and of images.
        runtime: What runs the graphs.
        images: `"naflex"` or `"square"`.
        title: The name of the family.
        lacks: What there is no graph for, of "images", "regions", "dense features" and "pair scores" -> what to say of
            it.

    Raises:
        OSError: The folder is none of these, or a file of it is missing.
        ValueError: A file is damaged, the folder has no such precision or images, or the run time no such provider.
        ImportError: OpenVINO is asked for, and not installed.
    """

    device = "cpu"

    def __init__(
        self,
        folder: str | os.PathLike,
        precision: str | None = None,
        images: str | None = None,
        providers: Sequence[Any] | None = None,
        verify: bool = False,
        runtime: Runtime = "onnxruntime",
        threads: int | None = None,
    ):
        self.folder = Path(folder).absolute()  # files are opened later, maybe from another working folder
        self.manifest: dict[str, Any] = read_manifest(self.folder)
        check_flag("verify", verify)
        if verify:
            self._compare_digests()
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
        check_runtime(runtime, providers)
        if threads is not None:
            check_positive_integer("threads", threads)
        self.runtime, self._providers, self._threads = runtime, providers, threads
        self._lock = threading.Lock()
        self._graphs: dict[str, Graph] = {}
        score = self.manifest["score"]
        self.score_function: str = score["function"]
        self.score_scale_and_bias: tuple[float, float] = (score["scale"], score["bias"])
        self.region_logit_scale: float = score["region_scale"]
        self.embedding_size: int = self.manifest["embedding_size"]
        self._positions: dict[str, np.ndarray] = {}
        self.title: str = self.manifest["title"]
        self.lacks: dict[str, str] = {"pair scores": "no graph for pair scores: re-rank with the back end 'torch'"}
        if self.image_precision is None:
            missing = f"no graph for images in {self.folder}, only for texts: export it again with one"
            self.lacks |= dict.fromkeys(("images", "regions", "dense features"), missing)
        elif self._image_graph == "image_square":
            missing = "no graph for dense features of images='square': leave out images='square'"
            self.lacks |= dict.fromkeys(("regions", "dense features"), missing)
        elif "image_dense" not in graphs[self.image_precision]:
            missing = f"no graph for dense features in the precision {self.image_precision!r}: export it again with one"
            self.lacks |= dict.fromkeys(("regions", "dense features"), missing)

    def __reduce__(self) -> Any:
        """Copies and other processes get the settings, and open the graphs anew: open ones can't move."""
        return type(self), (
            self.folder,
            self.precision,
            self.images,
            self._providers,
            False,
            self.runtime,
            self._threads,
        )

    @property
    def precisions(self) -> str:
        """Return the precisions of texts and images as people read them, e.g. `"texts int8-fast, images int8"`."""
        if self.image_precision in (None, self.precision):
            return self.precision
        return f"texts {self.precision}, images {self.image_precision}"

    @property
    def is_exact(self) -> bool:
        """Whether vectors are those of the exported checkpoint within rounding, of images as it was trained on them."""
        return self.precisions == "fp32" and self.images == self.manifest["image"]["kind"]

    def describe_vectors(self) -> dict[str, Any]:
        """Return what [`BaseEmbedder.describe_vectors`] does."""
        described: dict[str, Any] = {
            "backend": "onnx" if self.runtime == "onnxruntime" else self.runtime,
            "precision": self.image_precision or self.precision,
            "images": self.images,
        }
        if self._image_graph == "image_square":  # whose size is the exporter's choice
            described["image_size"] = self.manifest["image_square"]["size"]
        return described

    def path_of(self, name: str) -> Path:
        """Return the path of a file that the manifest names.

        Raises:
            OSError: There is no such file.
            ValueError: The name leads out of the folder, or the file has not the size that it was written with.
        """
        return path_of(name, self.folder, self.manifest)

    def _compare_digests(self) -> None:
        for name, file in self.manifest["files"].items():
            path = self.path_of(name)
            if sha256_of_file(path) != file["sha256"]:
                raise ValueError(f"{path} is damaged, its SHA-256 is not {file['sha256']}: export the folder again")

    def _graph(self, precision: str, graph: str) -> Graph:
        name = self.manifest["precisions"][precision]["graphs"][graph]
        with self._lock:
            if name not in self._graphs:
                for file in self.manifest["files"]:  # the weights, too: without them run times say little
                    if Path(file).parent == Path(name).parent:
                        self.path_of(file)
                try:
                    self._graphs[name] = open_graph(self.path_of(name), self.runtime, self._providers, self._threads)
                except OSError:
                    raise
                except Exception as error:  # the classes of these errors are not public
                    raise ValueError(f"{self.folder / name} can't be run: {error}") from error
            return self._graphs[name]

    @cached_property
    def _token_table(self) -> np.ndarray:
        """The vectors of tokens (V, D), of which only the rows in use are read from the disk."""
        return np.load(self.path_of(self.manifest["precisions"][self.precision]["token_table"]), mmap_mode="r")

    def text_features(self, role: str, input_ids: np.ndarray) -> np.ndarray:
        """Embed texts.

        Args:
            role: What the texts are to the model.
            input_ids: Integers (B, T), from [`OnnxProcessor.tokenize`] with the same role.

        Returns:
            Float32 (B, E), not normalised.
        """
        settings = self.manifest["text"]
        one_by_one = self.manifest["precisions"][self.precision].get("one_by_one")
        if one_by_one and len(input_ids) > 1:
            # Products that round their inputs have one scale for all of them: each text would depend on the others.
            return np.concatenate([self.text_features(role, row[None]) for row in input_ids])
        if one_by_one and settings["needs_end_index"]:  # nor may it depend on how far they are padded
            input_ids = input_ids[:, : (input_ids == settings["eos_id"]).argmax() + 1]
        of_role = settings["roles"][role]
        name = of_role["positions"]
        if name not in self._positions:
            self._positions[name] = np.load(self.path_of(name))  # (length, D)
        positions = self._positions[name][: input_ids.shape[1]]
        inputs = {"inputs_embeds": self._token_table[input_ids].astype(np.float32) + positions}  # (B, T, D)
        if settings["needs_end_index"]:
            inputs["end_index"] = (input_ids == settings["eos_id"]).argmax(1).astype(np.int64)  # the first of each text
        (features,) = self._graph(self.precision, "text").run([of_role["output"]], inputs)
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

    def _run_images(self, graph: str, outputs: list[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if self.image_precision is None:
            raise ValueError(f"{self.title} has {self.lacks['images']}")
        opened = self._graph(self.image_precision, graph)
        # The image processor counts in int32, graphs in int64.
        return opened.run(outputs, {name: np.asarray(inputs[name], dtype) for name, dtype in opened.inputs.items()})
