"""Embedder: models of any family of this package, run by torch."""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...assets import embedded_checkpoint
from ...calibration.stored import CALIBRATION_FILE
from ...checkpoints import locate_checkpoint
from ...checks import check_choice
from ...files import new_folder
from ...modeling.auto import FAMILIES, Family
from ...modeling.interface import DualEncoder, DualEncoderProcessor, PairScorer
from ...modeling.weights import find_file
from ...streams import chunks
from ..devices import Device, default_device, resolve_devices, resolve_dtype, warn_of_slow_bfloat16
from ..embedder import NOT_FINITE, BaseEmbedder, RoleText
from ..fingerprint import checkpoint_fingerprint, model_fingerprint
from ..inputs import ImageRecord
from ..loading import choose_family, load_checkpoint
from ..reranker import ImageWindows, PairScores
from ..windows import windows_of_maps
from .onnx import MANIFEST, OnnxDualEncoder, load_graphs

AnyEmbedder = TypeVar("AnyEmbedder", bound="Embedder")

# Methods that a model may lack.
METHOD_OF_CAPABILITY = {"dense features": "get_image_dense_feature", "regions": "get_image_region_features"}


class Embedder(BaseEmbedder):
    """Embed images, regions and texts, compare them, label images and regions.

    What inputs and results are, and the arguments that several methods share, is said in [`BaseEmbedder`].

    Args:
        model: Any [`DualEncoder`]; public as `embedder.model`.
        processor: Its [`DualEncoderProcessor`]; public as `embedder.processor`.
        device: Where to run, or a list of devices that share the work; `None`: where the model is.
        dtype: What to compute in; `None`: the model's own.
        name: What to call the checkpoint in indexes and reports; `None`: what the model's configuration says.

    Example:
        >>> from fgclip2 import Embedder
        >>> embedder = Embedder.from_pretrained()
        >>> images = embedder.encode_images(["猫.jpg", "dog.png"])
        >>> texts = embedder.encode_texts(["一只黑猫", "a brown dog"])
        >>> embedder.similarity(images, texts).shape
        (2, 2)
    """

    family: Family | None = None  # of a subclass for one family
    weights_fingerprint: str
    out_of_memory = torch.OutOfMemoryError

    def __init__(
        self,
        model: DualEncoder,
        processor: DualEncoderProcessor,
        device: Device | Sequence[Device] | None = None,
        dtype: torch.dtype | None = None,
        name: str | None = None,
    ):
        self.processor = processor
        self.name = name or getattr(model.config, "_name_or_path", None) or "unnamed"
        self.revision: str | None = getattr(model.config, "_commit_hash", None)
        # Before the model is cast: these must not depend on where and in what it runs.
        self.replicas = [model]
        self.title, self.lacks = title_and_lacks(model)
        if isinstance(model, OnnxDualEncoder):  # whose weights are those of the checkpoint that it was exported from
            self.weights_fingerprint, self.fingerprint = model.weights_fingerprint, model.fingerprint
        else:
            self.weights_fingerprint = model_fingerprint(self.model)
            self.fingerprint = checkpoint_fingerprint(self.weights_fingerprint, model.config, processor)
        self.score_scale_and_bias = model.get_score_scale_and_bias()
        self.model.eval()
        self.to(device, dtype)

    @classmethod
    def from_pretrained(
        cls: type[AnyEmbedder],
        name: str | os.PathLike | None = None,
        device: Device | Sequence[Device] | None = None,
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        max_caption_tokens: int | None = None,
        backend: Literal["torch", "onnx", "openvino"] = "torch",
        precision: str | None = None,
        images: str | None = None,
        **hub_arguments: Any,
    ) -> AnyEmbedder:
        """Load a checkpoint of any family that this package has, or an adapter, which is merged into its base model.

        A `calibration.json` beside the weights is used, see [`use_calibration`].

        Args:
            name: Folder, hub id or `modelscope://namespace/name`, see [`locate_checkpoint`]; `None`: the small one
                inside this package.
            device: E.g. `"cpu"`, `"cuda:1"`, or a list such as `["cuda:0", "cuda:1"]`, which splits the work; `None`:
                the accelerator if there is one, else the CPU.
            dtype: A torch dtype or its name; `"auto"`: float32 on the CPU and on MPS, else bfloat16 (float16 where the
                device has none).
            revision: Branch, tag or commit on the hub.
            max_caption_tokens: Texts of more tokens are long captions to the automatic role, see [`encode_texts`];
                `None`: what the checkpoint says, which is all that a short caption may have unless it was measured.
            backend: What runs the model: `"torch"`; or on the CPU `"onnx"`, which is onnxruntime, or `"openvino"`. For
                these `name` is a folder that `fgclip2 export OUT --format onnx` wrote, or a checkpoint with such a
                folder `onnx` in it. They use as many threads as torch does (`torch.set_num_threads`, OMP_NUM_THREADS).
            precision: Of graphs, one that the folder has; `None`: `"fp32"` if it is there.
            images: Of graphs, `"naflex"` or `"square"`; `None`: what the family was trained with.
            hub_arguments: `token`, `cache_dir`, `local_files_only`, `force_download` or `subfolder`.

        Raises:
            ValueError: The checkpoint is of another family, damaged or not what its configuration says; the dtype or
                the device is unknown; or graphs are of other weights than those beside them.
            OSError: There is no such checkpoint, or it is not whole.
            ImportError: It is an adapter, and PEFT is not installed; or the extra `onnx` or `openvino` is not.
        """
        check_choice("backend", backend, ("torch", "onnx", "openvino"))
        if backend != "torch":
            if max_caption_tokens is not None:
                raise ValueError(
                    f"max_caption_tokens={max_caption_tokens!r} is a setting of backend='torch': leave it out, for "
                    "exported folders say it themselves"
                )
            if cls.family is not None:
                raise ValueError(
                    f"{cls.__name__} runs a model of torch: use Embedder.from_pretrained(OUT, backend={backend!r})"
                )
            if name is None:
                raise ValueError(
                    f"backend={backend!r} needs an exported folder: Embedder.from_pretrained(OUT, backend={backend!r})"
                )
            given = [*hub_arguments, *(["revision"] if revision is not None else [])]
            if given:
                raise ValueError(
                    f"backend={backend!r} opens a folder, which takes no {' or '.join(given)}: leave it out"
                )
            runtime = "onnxruntime" if backend == "onnx" else backend
            graphs, processor = load_graphs(name, precision, images, runtime)
            embedder = cls(graphs, processor, device, None if dtype == "auto" else resolve_dtype(dtype, graphs.device))
            if Path(name, CALIBRATION_FILE).is_file():
                embedder._take_calibration_beside(Path(name, CALIBRATION_FILE), graphs.graphs.is_exact)
            return embedder
        if precision is not None or images is not None:
            raise ValueError(
                f"precision={precision!r} and images={images!r} are settings of graphs: leave them out, or add "
                "backend='onnx'"
            )
        if name is not None and Path(name, MANIFEST).is_file():
            raise ValueError(f"{name} is an exported ONNX folder: add backend='onnx'")
        devices = resolve_devices(device, default_device())
        run_dtype = resolve_dtype(dtype, devices[0])
        hub_arguments = {"revision": revision, **hub_arguments} if revision else hub_arguments
        source, hub_arguments = locate_checkpoint(embedded_checkpoint() if name is None else name, **hub_arguments)
        try:
            family = choose_family(source, cls.__name__, cls.family, **hub_arguments)
            model, processor = load_checkpoint(source, family, **hub_arguments)
            calibration = find_file(source, CALIBRATION_FILE, **hub_arguments)
        except OSError as error:  # which does not always name the checkpoint
            raise OSError(f"can't load the checkpoint {source}: {error}") from error
        if max_caption_tokens is not None:
            processor.tokenizer.max_caption_tokens = max_caption_tokens
        embedder = cls(model, processor, devices, run_dtype, "embedded" if name is None else str(name))
        if calibration is not None:
            embedder._take_calibration_beside(calibration)
        return embedder

    def save_pretrained(self, folder: str | os.PathLike) -> Path:
        """Write model and processor into a new or empty folder, from which [`from_pretrained`] loads them again.

        The weights are written as they are now: cast to bfloat16, they stay so.

        Returns:
            The folder.

        Raises:
            ValueError: `folder` is a file, or has something in it; or graphs run the model, which are no checkpoint.
        """
        with new_folder(folder) as staging:
            self.model.save_pretrained(staging)
            self.processor.save_pretrained(staging)
        return Path(folder)

    def to(self: AnyEmbedder, device: Device | Sequence[Device] | None = None, dtype: Any = None) -> AnyEmbedder:
        """Move the model to a device, or copies of it to several, and cast it.

        Args:
            device: As in [`from_pretrained`]; `None`: where it is.
            dtype: A torch dtype or its name; `None`: as it is.
        """
        here = [replica.device for replica in self.replicas]
        devices = here if device is None else resolve_devices(device, here[0])
        run_dtype = self.dtype if dtype is None else resolve_dtype(dtype, devices[0])
        for run_device in devices:
            warn_of_slow_bfloat16(run_device, run_dtype)
        model = self.model.to(devices[0], run_dtype)
        self.replicas = [model, *(copy.deepcopy(model).to(copy_device) for copy_device in devices[1:])]
        return self

    @property
    def model(self) -> Any:
        """The model, on the first of the devices."""
        return self.replicas[0]

    @property
    def device(self) -> torch.device:
        """The first of the devices that the model runs on."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        return self.model.dtype

    def describe_vectors(self) -> dict[str, Any]:
        if hasattr(self.model, "describe_vectors"):
            return self.model.describe_vectors()
        images = "square" if self.processor.patch_budgets is None else "naflex"
        return {"backend": "torch", "precision": str(self.dtype).removeprefix("torch."), "images": images}

    def __repr__(self) -> str:
        devices = ", ".join(str(replica.device) for replica in self.replicas)
        precision = getattr(self.model, "precisions", str(self.dtype).removeprefix("torch."))
        return f"{type(self).__name__}({self.name!r}, {self.title}, D={self.embedding_size}, {devices}, {precision})"

    @torch.inference_mode()
    def _image_vectors(self, model: Any, records: list[ImageRecord]) -> np.ndarray:
        inputs = self.processor.collate_images([record.inputs for record in records])
        features = model.get_image_features(**inputs.to(model.device, model.dtype))  # (B, D)
        return F.normalize(features.float(), dim=-1).cpu().numpy()

    @torch.inference_mode()
    def _region_vectors(self, model: Any, records: list[ImageRecord]) -> list[np.ndarray]:
        inputs = self.processor.collate_images([record.inputs for record in records])
        features = model.get_image_region_features(
            **inputs.to(model.device, model.dtype),
            image_sizes=[record.image_size for record in records],
            region_infos=[record.boxes for record in records],
        )
        vectors = F.normalize(torch.cat(features).float(), dim=-1).cpu().numpy()  # (R, D), of all images
        return np.split(vectors, np.cumsum([len(regions) for regions in features[:-1]], dtype=int))  # (R_i, D) each

    @torch.inference_mode()
    def _heat_maps(
        self, model: Any, records: list[ImageRecord], text_vectors: np.ndarray, resize: bool, first_only: bool
    ) -> list[np.ndarray]:
        inputs = self.processor.collate_images([record.inputs for record in records]).to(model.device, model.dtype)
        features = model.get_image_dense_feature(**inputs)
        features = F.normalize(features.float(), dim=-1)  # (B, N, D)
        vectors = torch.from_numpy(text_vectors).to(model.device)
        with torch.autocast(features.device.type, enabled=False):  # of a training run that this is part of
            cosines = (features @ vectors.T).cpu()  # (B, N, texts)
        maps = []
        grids = model.get_patch_grids(**inputs).tolist()
        for record, patches, (height, width) in zip(records, cosines, grids, strict=True):
            grid = patches[: height * width].T.unflatten(1, (height, width))  # (texts, height, width)
            image_maps = grid.numpy()
            if resize:
                image_maps = np.empty((len(grid), *record.image_size), np.float32)
                for row, small in zip(
                    image_maps, grid, strict=True
                ):  # one text at a time: copies of all take gigabytes
                    row[:] = F.interpolate(small[None, None], record.image_size, mode="bilinear", antialias=True)[0, 0]
            maps.append(image_maps[0] if first_only else image_maps)
        return maps

    @torch.inference_mode()
    def _vectors_and_maps(self, model: Any, records: list[ImageRecord]) -> tuple[np.ndarray, list[Tensor]]:
        inputs = self.processor.collate_images([record.inputs for record in records]).to(model.device, model.dtype)
        pooled, dense = model.get_image_and_dense_features(**inputs)  # (B, D), (B, N, D)
        grids = model.get_patch_grids(**inputs).tolist()
        maps = [
            patches[: height * width].unflatten(0, (height, width))
            for patches, (height, width) in zip(dense, grids, strict=True)
        ]
        return F.normalize(pooled.float(), dim=-1).cpu().numpy(), maps

    def _array_of_map(self, dense: Tensor) -> np.ndarray:
        return dense.float().cpu().numpy()

    @torch.inference_mode()
    def windows_of_maps(
        self, maps: Sequence[Any], image_sizes: Sequence[tuple[int, int]], phrases: Sequence[np.ndarray]
    ) -> list[ImageWindows]:
        tensors = [
            torch.from_numpy(dense).to(self.device) if isinstance(dense, np.ndarray) else dense for dense in maps
        ]
        return windows_of_maps(tensors, image_sizes, phrases)

    @torch.inference_mode()
    def _pair_scores(
        self,
        model: Any,
        records: list[ImageRecord],
        texts: Sequence[Sequence[str]],
        roles: Mapping[str, str],
        score: str,
        batch_size: int,
    ) -> list[PairScores]:
        inputs = self.processor.collate_images([record.inputs for record in records]).to(model.device, model.dtype)
        features, tokens = model.get_image_features_and_tokens(**inputs)  # (B, D), (B, N, image width)
        method = model.rank_scores if score == "rank" else model.match_probability
        # Image tokens stay until all their texts are scored; of texts, only a batch of tokens is kept at a time.
        uses: dict[str, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for row, record in enumerate(records):
            for place, text in enumerate(texts[record.index]):
                uses[roles[text]][text].append((row, place))
        scores = [np.empty(len(texts[record.index]), np.float32) for record in records]
        for role, of_texts in uses.items():
            for some in chunks(of_texts, batch_size):
                text_inputs = self.processor.tokenize(some, role).to(model.device)
                text_tokens = model.get_text_tokens(**text_inputs)  # (texts, T, text width)
                mask = text_inputs.get("attention_mask")
                pairs = ((row, place, number) for number, text in enumerate(some) for row, place in of_texts[text])
                for batch in chunks(sorted(pairs), batch_size):
                    rows, places, numbers = map(list, zip(*batch, strict=True))
                    its_mask = None if mask is None else mask[numbers]
                    values = method(tokens[rows], text_tokens[numbers], its_mask)  # (pairs,)
                    for row, place, value in zip(rows, places, values.tolist(), strict=True):
                        scores[row][place] = value
        vectors = F.normalize(features.float(), dim=-1).cpu().numpy()
        return list(map(PairScores, scores, vectors))

    @torch.inference_mode()
    def _text_vectors(self, model: Any, texts: list[RoleText]) -> np.ndarray:
        role = texts[0].role
        inputs = self.processor.tokenize([text.text for text in texts], role)
        features = model.get_role_features(role, **inputs.to(model.device))  # (B, D)
        return F.normalize(features.float(), dim=-1).cpu().numpy()


def title_and_lacks(model: Any) -> tuple[str, dict[str, str]]:
    """Return `title` and `lacks` of a [`BaseEmbedder`] with this model, which may have them itself."""
    if hasattr(model, "lacks"):
        return model.title, model.lacks
    lacks = {
        what: f"no {what}, it embeds whole images"
        for what, method in METHOD_OF_CAPABILITY.items()
        if not hasattr(model, method)
    }
    if not isinstance(model, PairScorer):
        lacks["pair scores"] = "no pair scores, it compares vectors only"
    elif not model.scores_pairs:
        lacks["pair scores"] = "no pair scores, as this checkpoint has no cross encoders"
    titles = [family.title for family in FAMILIES if isinstance(model, family.model)]
    return titles[0] if titles else type(model).__name__, lacks


def unit_vectors(features: Tensor) -> np.ndarray:
    """L2-normalise (N, D) in float32.

    Raises:
        RuntimeError: Values are not finite.
    """
    vectors = F.normalize(features.float(), dim=-1).cpu().numpy()
    if not np.isfinite(vectors).all():
        raise RuntimeError(NOT_FINITE)
    return vectors
