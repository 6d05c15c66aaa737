"""Exported ONNX graphs as the model of an embedder, beside torch: what goes in and comes out are torch's tensors."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..._imports import require
from ...checks import check_choice
from ...modeling.auto import FAMILIES, Family, find_family
from ...modeling.image_processing_fgclip import FGClipImageProcessor
from ...modeling.layers import boxes_in_patches, pool_regions
from ...modeling.pixels import PIXEL_SETTINGS
from ...modeling.processing_fgclip import FGClipProcessor
from ...modeling.tokenization_fgclip2 import FGClip2Tokenizer
from ..fingerprint import files_fingerprint, model_fingerprint
from ..loading import load_checkpoint

MANIFEST = "fgclip2_onnx.json"  # of an exported folder
GRAPHS_BESIDE_WEIGHTS = "onnx"  # the folder in a checkpoint


class SquaresProcessor(FGClipProcessor):
    """Texts as FG-CLIP 2 takes them, images as squares of one size, for its graph of squares."""

    tokenizer_type: ClassVar[type[Any]] = FGClip2Tokenizer


class OnnxDualEncoder:
    """The graphs of an exported folder as a [`RegionEncoder`]: computed on the CPU, in float32 outside of them.

    Args:
        graphs: A `fgclip2_onnx.OnnxModel`.

    Attributes:
        fingerprint, weights_fingerprint: Those of the exported checkpoint.
        title, lacks: As of [`BaseEmbedder`].
        precisions: Of texts and images, as people read them.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, graphs: Any):
        self.graphs = graphs
        manifest = graphs.manifest
        self.fingerprint: str = manifest["fingerprint"]
        self.weights_fingerprint: str = manifest["weights_fingerprint"]
        self.title = f"{graphs.title} by {graphs.runtime}"
        self.lacks: dict[str, str] = graphs.lacks
        self.precisions: str = graphs.precisions
        self.score_function = graphs.score_function
        self.region_logit_scale = graphs.region_logit_scale
        self.embedding_size: int = graphs.embedding_size
        self.config = SimpleNamespace(_name_or_path=manifest["name"], _commit_hash=manifest["revision"])

    def eval(self) -> OnnxDualEncoder:
        """Return the model: graphs have no other mode."""
        return self

    def to(self, device: Any = None, dtype: Any = None) -> OnnxDualEncoder:
        """Return the model if it is asked for where and in what it computes.

        Raises:
            ValueError: Another device or dtype is asked for.
        """
        if (device is not None and torch.device(device).type != "cpu") or dtype not in (None, self.dtype):
            raise ValueError(f"graphs run on the device cpu in float32, got {device} and {dtype}")
        return self

    def __deepcopy__(self, memo: Any) -> OnnxDualEncoder:
        return self  # threads may run the same graphs

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Raise a `ValueError`: graphs are no checkpoint."""
        raise ValueError(f"graphs can't be saved as a checkpoint: copy the folder {self.graphs.folder} instead")

    def describe_vectors(self) -> dict[str, Any]:
        """Return what [`BaseEmbedder.describe_vectors`] does."""
        return self.graphs.describe_vectors()

    def get_score_scale_and_bias(self) -> tuple[float, float]:
        """Return scale and bias of `score_function(scale * cosine + bias)`."""
        return self.graphs.score_scale_and_bias

    def get_image_features(self, **images: Tensor) -> Tensor:
        """Embed images: (B, D), not normalised."""
        return torch.from_numpy(self.graphs.image_features(_arrays(images)))

    def get_role_features(self, role: str, input_ids: Tensor) -> Tensor:
        """Embed texts of a role: (B, D), not normalised."""
        return torch.from_numpy(self.graphs.text_features(role, input_ids.numpy()))

    def get_image_dense_feature(self, **images: Tensor) -> Tensor:
        """Embed patches: (B, N, D)."""
        return torch.from_numpy(self.graphs.dense_features(_arrays(images)))

    def get_image_and_dense_features(self, **images: Tensor) -> tuple[Tensor, Tensor]:
        """Return [`get_image_features`] and [`get_image_dense_feature`] of one pass."""
        image, dense = self.graphs.image_and_dense_features(_arrays(images))
        return torch.from_numpy(image), torch.from_numpy(dense)

    def get_patch_grids(self, **images: Tensor) -> Tensor:
        """Return the grids of patches that images are: integers (B, 2), (height, width) of each."""
        return torch.from_numpy(self.graphs.patch_grids(_arrays(images)))

    def get_image_region_features(self, image_sizes: Any, region_infos: Any, **images: Tensor) -> list[Tensor]:
        """Embed boxes: a list of (R_i, D), not normalised."""
        grids = self.get_patch_grids(**images)
        regions = pool_regions(
            self.get_image_dense_feature(**images), grids, boxes_in_patches(region_infos, image_sizes, grids)
        )  # (B, R, D)
        return [features[: len(boxes)] for features, boxes in zip(regions, region_infos, strict=True)]


def _arrays(images: dict[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in images.items()}


def load_graphs(
    folder: str | os.PathLike, precision: str | None, images: str | None, runtime: str
) -> tuple[OnnxDualEncoder, Any]:
    """Open an exported folder, or the folder `onnx` in a checkpoint whose weights are those that were exported.

    Args:
        folder: The folder.
        precision, images, runtime: As in `fgclip2_onnx.OnnxModel`.

    Returns:
        The model, and a processor of this package for it.

    Raises:
        OSError: There is no such folder, or a file of it is missing.
        ValueError: A file is damaged, there is no such precision, or the graphs are of other weights.
        ImportError: The extra `onnx`, or that of the run time, is not installed.
    """
    fgclip2_onnx = require("fgclip2_onnx", "onnx")
    if runtime == "openvino":
        require("openvino", "openvino")
    inner = Path(folder, GRAPHS_BESIDE_WEIGHTS)
    is_beside_weights = not Path(folder, MANIFEST).is_file() and inner.is_dir()
    source, threads = inner if is_beside_weights else folder, torch.get_num_threads()
    graphs = fgclip2_onnx.OnnxModel(source, precision, images, runtime=runtime, threads=threads)
    model = OnnxDualEncoder(graphs)
    if is_beside_weights:
        family = find_family(folder)
        if family is not None and not _has_weights(folder, family, model.weights_fingerprint):
            raise ValueError(
                f"the graphs in {inner} were exported from other weights than those in {folder}, which may have been "
                "trained since: export them again with `fgclip2 export OUT --format onnx`"
            )
    return model, _make_processor(model.graphs)


def _has_weights(folder: str | os.PathLike, family: Family, fingerprint: str) -> bool:
    """Return whether the weights in a checkpoint have a fingerprint, without making the model where files tell."""
    with suppress(OSError):  # an adapter has no weights of its own
        if files_fingerprint(folder) == fingerprint:
            return True
    # Official folders and adapters have other names in their files.
    return model_fingerprint(load_checkpoint(folder, family)[0]) == fingerprint


def _make_processor(graphs: Any) -> Any:
    manifest = graphs.manifest
    families = {known.model_type: known for known in FAMILIES}
    check_choice(f"family in {graphs.folder / MANIFEST}", manifest.get("family"), families)
    family: Family = families[manifest["family"]]
    text, image = manifest["text"], manifest["image"]
    tokenizer = family.processor.tokenizer_type(
        tokenizer_file=str(graphs.path_of(text["tokenizer"])),
        short_length=text["roles"]["caption"]["length"],
        long_length=text["roles"]["long_caption"]["length"],
        max_caption_tokens=text["max_caption_tokens"],
    )
    settings = {name: image[name] for name in PIXEL_SETTINGS}
    if image["kind"] == "naflex" and graphs.images == "square":
        height, width = manifest["image_square"]["size"]
        squares = FGClipImageProcessor(size={"height": height, "width": width}, **settings)
        return SquaresProcessor(squares, tokenizer)
    if image["kind"] == "naflex":
        settings |= {"max_num_patches": image["max_num_patches"], "patch_size": image["patch_size"]}
    else:
        height, width = image["size"]
        settings["size"] = {"height": height, "width": width}
    return family.processor(family.processor.image_processor_type(**settings), tokenizer)
