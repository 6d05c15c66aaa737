"""Embeddings of a data set: made once, kept on disk, shared out over processes.

Items are encoded in blocks, the same ones for any number of processes and for a run that goes on where it was killed:
so are their embeddings, to the last bit where processes have the same number of threads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from .. import distributed
from ..checks import check_choice
from ..drawings import sources
from ..embedding import Skipped
from ..embedding.inputs import load_input
from ..embedding.reranker import WINDOW_SIDES, phrase_vectors
from ..errors import UnreadableImageError
from ..files import replacing
from ..modeling.inputs import check_boxes
from ..modeling.interface import Role
from .base import CROP_EDGES, ROLE_OF_METHOD, Box, Problem
from .image_files import StoredImage
from .models import BenchmarkModel, caption_role, configuration_digest, encode_texts, ignored_settings, run_on
from .released import keep_case, lower_cases

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

_QUIET = {"show_progress_bar": False}  # there is one for all blocks
_ROUNDING = 1e-9  # pixels: by less than this a width was changed when the corners of its box were computed
_FORMAT = "2"  # of blocks and their keys: the name of the folder that they are in
BLOCK_SIZE = 256  # items that are encoded, and lost when the process is killed, together
PACKAGES = (
    "fgclip2",
    "torch",
    "transformers",
    "tokenizers",
    "pillow",
    "numpy",
)  # whose releases may change an embedding


def default_cache() -> Path:
    """Return where embeddings are kept if the user names no other place."""
    return sources.default_cache().parent / "benchmarks"


class Encoded(NamedTuple):
    """Embeddings of items, without those that can't be read.

    Attributes:
        vectors: Float32 (V, D), L2-normalised, in the order of the items.
        rows: Int64 (N,): how many vectors each item has; 0 where it was left out.
        problems: What was left out, and why.
    """

    vectors: np.ndarray
    rows: np.ndarray
    problems: list[Problem]

    @property
    def owners(self) -> np.ndarray:
        """Int64 (V,): the item that each vector is of."""
        return np.repeat(np.arange(len(self.rows)), self.rows)

    def check_some(self, usable: int) -> None:
        """Raise a `ValueError` that names some of the problems if there is nothing to measure."""
        if not usable:
            some = "; ".join(map(str, self.problems[:3]))
            raise ValueError(f"no image can be used; {len(self.problems)} can't be read: {some}")


class Block(NamedTuple):
    """Embeddings of a block of items; `reasons` are by the item's index within it."""

    vectors: np.ndarray
    rows: list[int]
    reasons: dict[int, str]


@dataclass(frozen=True)
class Encoder:
    """Encodes with one model.

    Args:
        model: The model.
        cache: Folder of embeddings; `None`: nothing is kept. Nor is it for a model without a fingerprint.
        show_progress_bar: With the time left, on the first process.
    """

    model: BenchmarkModel
    cache: Path | None = None
    show_progress_bar: bool = True

    def texts(self, texts: Sequence[str], role: Role, lower_case: bool = True) -> np.ndarray:
        """Embed texts: float32 (N, D), a vector for each; those that the model reads alike are encoded once.

        Args:
            texts: N texts.
            role: What the texts are to the model.
            lower_case: `False`: FG-CLIP 2 reads them as they are written, see [`keep_case`].
        """
        role = caption_role(self.model, role)
        # Models of this package lower-case texts: one vector for all spellings, so that these tie to the bit.
        read = str.lower if lower_case and lower_cases(self.model) else str
        first: dict[str, str] = {}  # what is read -> the text that is encoded for all that read so
        for text in texts:
            first.setdefault(read(text), text)
        row = {key: index for index, key in enumerate(first)}
        model = self.model if lower_case else keep_case(self.model)
        work = _Work(
            kind="texts",
            settings={"role": role, "lower_case": lower_case},
            items=list(first.values()),
            read=str,
            digest=str,
            encode=lambda block: Block(encode_texts(model, block, role), [1] * len(block), {}),
        )
        encoded = self._run(work)
        return encoded.vectors[[row[read(text)] for text in texts]]

    def images(self, images: Sequence[StoredImage], max_num_patches: int | str | None) -> Encoded:
        """Embed images: a vector for each."""
        max_num_patches = self._meant(max_num_patches)

        def encode(block: list[bytes | UnreadableImageError]) -> Block:
            readable = _Readable(block)
            vectors, skipped = self.model.encode_images(readable.items, max_num_patches, on_error="skip", **_QUIET)
            return readable.block(vectors, [1] * len(readable.items), skipped)

        settings = {"max_num_patches": max_num_patches}
        return self._run(_Work("images", settings, images, _read, _digest_of_content, encode))

    def regions(
        self,
        images: Sequence[StoredImage],
        boxes: Sequence[Sequence[Box]],
        max_num_patches: int | str | None,
        method: str,
        crop_edges: str = "outward",
    ) -> Encoded:
        """Embed boxes: a vector for each.

        Args:
            images: N images.
            boxes: The boxes of each image.
            max_num_patches: Patch budget of the whole image (`roi`) or of each crop (`crop`).
            method: `"roi"`: region features, each image once through the model; `"crop"`: what is in the box is an
                image of its own, for models without region features.
            crop_edges: Which pixels of a box a crop has, see `CROP_EDGES`.

        Raises:
            ValueError: The method or the edges are unknown, or the model has no region features.
        """
        check_choice("method", method, ROLE_OF_METHOD)
        check_choice("crop_edges", crop_edges, CROP_EDGES)
        if method == "roi" and not hasattr(self.model, "encode_regions"):
            raise ValueError(f"{self.model.name} has no region features; take method='crop'")
        max_num_patches = self._meant(max_num_patches)

        def by_roi(contents: list[bytes], boxes: list[Sequence[Box]]) -> tuple[Any, list[Skipped]]:
            options = {"max_num_patches": max_num_patches, "show_progress_bar": False, "on_error": "skip"}
            with warnings.catch_warnings():
                # Published data have such boxes; a line for each block would be many.
                warnings.filterwarnings("ignore", "Number of boxes that ", UserWarning)
                vectors, skipped = self.model.encode_regions(contents, boxes, **options)  # type: ignore[attr-defined]
            return np.concatenate(vectors) if vectors else None, skipped

        def by_crop(contents: list[bytes], boxes: list[Sequence[Box]]) -> tuple[Any, list[Skipped]]:
            crops, skipped = _crops(contents, boxes, crop_edges)
            return self.model.encode_images(crops, max_num_patches, on_error="raise", **_QUIET), skipped

        def encode(block: list[tuple[bytes | UnreadableImageError, Sequence[Box]]]) -> Block:
            readable = _Readable([content for content, _ in block])
            its_boxes = [block[index][1] for index in readable.indices]
            vectors, skipped = (by_roi if method == "roi" else by_crop)(readable.items, its_boxes)
            return readable.block(vectors, [len(of_image) for of_image in its_boxes], skipped)

        settings: dict[str, Any] = {"max_num_patches": max_num_patches, "method": method}
        if method == "crop" and crop_edges != "outward":  # what was kept before there was a choice stays valid
            settings["crop_edges"] = crop_edges
        work = _Work(
            kind="regions",
            settings=settings,
            items=list(zip(images, boxes, strict=True)),
            read=lambda item: (_read(item[0]), item[1]),
            digest=lambda item: [_digest_of_content(item[0]), item[1]],
            encode=encode,
        )
        return self._run(work)

    def heatmaps(
        self,
        images: Sequence[StoredImage],
        masks: Sequence[StoredImage],
        vectors: np.ndarray,
        max_num_patches: int | str | None,
        measure: Callable[[np.ndarray, Any], np.ndarray],
        settings: dict[str, Any],
    ) -> Encoded:
        """Measure the heat maps of each image; the maps, which are large, are not kept.

        Args:
            images: N images.
            masks: The mask of each image.
            vectors: Float32 (M, D), L2-normalised; each gives a map.
            max_num_patches: Patch budget of each image.
            measure: Takes the maps of an image, float32 (M, height, width) on its grid of patches, and its mask;
                returns a row of the same length and dtype for every image.
            settings: What else the rows depend on, JSON.

        Returns:
            The rows in place of embeddings.

        Raises:
            ValueError: The model has no dense features.
        """
        if not hasattr(self.model, "stream_heatmaps"):
            raise ValueError(f"{self.model.name} has no dense features, for which a model needs stream_heatmaps")
        stream = self.model.stream_heatmaps
        max_num_patches = self._meant(max_num_patches)

        def encode(block: list[tuple[bytes | UnreadableImageError, StoredImage]]) -> Block:
            readable = _Readable([content for content, _ in block])
            rows: dict[int, np.ndarray] = {}
            skipped: list[Skipped] = []
            options = {"max_num_patches": max_num_patches, "show_progress_bar": False, "on_error": "skip"}
            for index, maps in stream(readable.items, vectors, **options):
                if isinstance(maps, Skipped):
                    skipped.append(maps)
                else:
                    rows[index] = measure(maps, block[readable.indices[index]][1])
            stacked = np.stack([rows[index] for index in sorted(rows)]) if rows else None
            return readable.block(stacked, [1] * len(readable.items), skipped)

        its_vectors = hashlib.sha256(vectors.tobytes()).hexdigest()
        work = _Work(
            kind="heatmaps",
            settings={"max_num_patches": max_num_patches, "vectors": its_vectors, **settings},
            items=list(zip(images, masks, strict=True)),
            read=lambda item: (_read(item[0]), item[1]),
            digest=lambda item: [_digest_of_content(item[0]), _digest_of_content(_read(item[1]))],
            encode=encode,
        )
        return self._run(work)

    def windows(
        self,
        images: Sequence[StoredImage],
        phrases: Sequence[Sequence[str]],
        max_num_patches: int | str | None,
        lower_case: bool = True,
    ) -> Encoded:
        """Compare phrases with the parts of images that fit them best.

        Args:
            images: N images.
            phrases: The phrases of each image.
            max_num_patches: Patch budget of each image.
            lower_case: As in [`texts`].

        Returns:
            A row (1,) with the cosine of each phrase in place of embeddings.

        Raises:
            ValueError: The model has no dense features.
        """
        if not hasattr(self.model, "stream_windows"):
            raise ValueError(f"{self.model.name} has no dense features, for which a model needs stream_windows")
        stream = self.model.stream_windows
        max_num_patches = self._meant(max_num_patches)
        vectors = phrase_vectors(phrases, lambda texts: self.texts(texts, "region_phrase", lower_case))

        def encode(block: list[tuple[bytes | UnreadableImageError, Sequence[str]]]) -> Block:
            readable = _Readable([content for content, _ in block])
            its_phrases = [block[index][1] for index in readable.indices]
            rows = [vectors(of_image) for of_image in its_phrases]  # (P_i, D) each
            options = {"max_num_patches": max_num_patches, "show_progress_bar": False, "on_error": "skip"}
            found = stream(readable.items, rows, **options)
            return readable.block_of_values(found, "cosines", [len(of_image) for of_image in its_phrases])

        settings = {"max_num_patches": max_num_patches, "lower_case": lower_case, "window_sides": list(WINDOW_SIDES)}
        work = _Work(
            kind="windows",
            settings=settings,
            items=list(zip(images, phrases, strict=True)),
            read=lambda item: (_read(item[0]), item[1]),
            digest=lambda item: [_digest_of_content(item[0]), list(item[1])],
            encode=encode,
        )
        return self._run(work)

    def pair_scores(
        self,
        images: Sequence[StoredImage],
        texts: Sequence[Sequence[str]],
        score: str,
        role: Role,
        max_num_patches: int | str | None,
        lower_case: bool = True,
    ) -> Encoded:
        """Score pairs of an image and a text by the ranking stage of the model.

        Args:
            images: N images.
            texts: The texts of each image.
            score: `"rank"` or `"match"`, see [`Embedder.stream_pair_scores`].
            role: What the texts are to the model.
            max_num_patches: Patch budget of each image.
            lower_case: As in [`texts`].

        Returns:
            A row (1,) with the score of each text in place of embeddings.

        Raises:
            ValueError: The model does not score pairs.
        """
        if not hasattr(self.model, "stream_pair_scores"):
            raise ValueError(f"{self.model.name} does not score pairs, for which a model needs stream_pair_scores")
        stream = (self.model if lower_case else keep_case(self.model)).stream_pair_scores  # type: ignore[attr-defined]
        role, max_num_patches = caption_role(self.model, role), self._meant(max_num_patches)

        def encode(block: list[tuple[bytes | UnreadableImageError, Sequence[str]]]) -> Block:
            readable = _Readable([content for content, _ in block])
            its_texts = [block[index][1] for index in readable.indices]
            options = {"max_num_patches": max_num_patches, "show_progress_bar": False, "on_error": "skip"}
            found = stream(readable.items, its_texts, score=score, role=role, **options)
            return readable.block_of_values(found, "scores", [len(of_image) for of_image in its_texts])

        work = _Work(
            kind="pair_scores",
            settings={"score": score, "role": role, "max_num_patches": max_num_patches, "lower_case": lower_case},
            items=list(zip(images, texts, strict=True)),
            read=lambda item: (_read(item[0]), item[1]),
            digest=lambda item: [_digest_of_content(item[0]), list(item[1])],
            encode=encode,
        )
        return self._run(work)

    def _meant(self, max_num_patches: int | str | None) -> int | str | None:
        """Return a patch budget, or `None` where it means nothing to the model, which may refuse any other."""
        return None if "max_num_patches" in ignored_settings(self.model) else max_num_patches

    def _run(self, work: _Work) -> Encoded:
        """Encode this process's blocks, or find them in the cache, and gather those of all."""
        starts = range(0, len(work.items), BLOCK_SIZE)
        own: dict[int, Block] = {}
        hidden = not self.show_progress_bar or distributed.rank() > 0
        with tqdm(total=len(work.items), desc=work.kind, unit="item", disable=hidden) as bar:
            for number in range(distributed.rank(), len(starts), distributed.world_size()):
                items = work.items[starts[number] : starts[number] + BLOCK_SIZE]
                own[number] = self._block(work, [work.read(item) for item in items])
                bar.update(min(len(items) * distributed.world_size(), bar.total - bar.n))
        blocks = _gathered(own)
        problems = []
        for start, block in zip(starts, blocks, strict=True):
            for index, reason in sorted(block.reasons.items()):
                item = work.items[start + index]
                source = str(item[0] if isinstance(item, tuple) else item)  # the image, without its boxes or mask
                problems.append(Problem(source, reason.removeprefix(f"{source}: ")))
        vectors = [block.vectors for block in blocks if len(block.vectors)]
        return Encoded(
            np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32),
            np.array([row for block in blocks for row in block.rows], dtype=np.int64),
            problems,
        )

    @cached_property
    def _blocks(self) -> Path | None:
        """Return the folder of the blocks; if it is new, but there are some of an earlier release, the log says so."""
        if self.cache is None:
            return None
        folder = self.cache / _FORMAT
        if not folder.exists() and any(self.cache.glob("??/*.safetensors")):
            logger.warning(
                "%s has embeddings that an earlier release kept, without digests and under fingerprints of weights; "
                "they are encoded again, and its folders of two letters may be deleted",
                self.cache,
            )
        return folder

    @cached_property
    def _origin(self) -> dict[str, Any]:
        """Return what embeddings depend on besides items and settings."""
        return {
            "model": self.model.fingerprint,
            **run_on(self.model),
            "configuration": configuration_digest(self.model),
            "packages": {name: version(name) for name in PACKAGES},
        }

    def _block(self, work: _Work, items: list) -> Block:
        if self._blocks is None or self.model.fingerprint is None:
            return work.encode(items)
        description = {
            **self._origin,
            "kind": work.kind,
            "settings": work.settings,
            "items": [work.digest(item) for item in items],
        }
        key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
        path = self._blocks / key[:2] / f"{key}.safetensors"
        block = _load_block(path)
        if block is None:  # only this block's rows are lost
            block = work.encode(items)
            _save_block(path, block)
        return block


@dataclass(frozen=True)
class _Work(Generic[Item]):
    """Items to be encoded, and how."""

    kind: str
    settings: dict[str, Any]
    items: Sequence[Any]
    read: Callable[[Any], Item]
    digest: Callable[[Item], Any]  # JSON
    encode: Callable[[list[Item]], Block]


class _Readable:
    """The readable ones of a block of images."""

    def __init__(self, contents: list[bytes | UnreadableImageError]):
        self._size = len(contents)
        self._reasons = {index: str(item) for index, item in enumerate(contents) if not isinstance(item, bytes)}
        self.indices = [index for index in range(len(contents)) if index not in self._reasons]
        self.items: list[bytes] = [contents[index] for index in self.indices]  # type: ignore[misc]

    def block(self, vectors: np.ndarray | None, rows: list[int], skipped: Sequence[Skipped]) -> Block:
        """Put together what was encoded of the readable ones; those skipped have no vectors."""
        reasons: dict[int, str] = {}
        for index, reason in skipped:  # without the place in its batch, which says nothing beside the image
            reason = reason.removeprefix(f"images[{index}]: ").replace(f"boxes[{index}][", "boxes[", 1)
            reasons[self.indices[index]] = reason
        reasons |= self._reasons
        all_rows = dict(zip(self.indices, rows, strict=True))
        kept = [0 if index in reasons else all_rows[index] for index in range(self._size)]
        return Block(np.zeros((0, 0), np.float32) if vectors is None else vectors, kept, reasons)

    def block_of_values(self, results: Iterable[tuple[int, Any]], name: str, rows: list[int]) -> Block:
        """Put together one value for each text of an image: the attribute `name` of a stream's results, (T_i,) each."""
        values: dict[int, np.ndarray] = {}
        skipped: list[Skipped] = []
        for index, found in results:
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                values[index] = getattr(found, name)[:, None]  # (T_i, 1)
        stacked = np.concatenate([values[index] for index in sorted(values)]) if values else None
        return self.block(stacked, rows, skipped)


def _read(image: StoredImage) -> bytes | UnreadableImageError:
    try:
        return image.read()
    except UnreadableImageError as error:
        return error


def _digest_of_content(content: bytes | UnreadableImageError) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else f"unreadable: {content}"


def _crops(contents: list[bytes], boxes: list[Sequence[Box]], edges: str) -> tuple[list[Image.Image], list[Skipped]]:
    """Return what is in each box, at least one pixel, and the images that can't be decoded."""
    crops: list[Image.Image] = []
    skipped: list[Skipped] = []
    for index, (content, its_boxes) in enumerate(zip(contents, boxes, strict=True)):
        try:
            image = load_input(index, content)
            check_boxes(its_boxes, image.height, image.width, f"boxes[{index}]")
        except ValueError as error:
            skipped.append(Skipped(index, str(error)))
        else:
            for x1, y1, x2, y2 in its_boxes:
                left, right = _pixels(max(x1, 0), min(x2, image.width), edges)
                top, bottom = _pixels(max(y1, 0), min(y2, image.height), edges)
                crops.append(image.crop((left, top, max(right, left + 1), max(bottom, top + 1))))
    return crops, skipped


def _pixels(low: float, high: float, edges: str) -> tuple[int, int]:
    """Return the first pixel and the one after the last of a side from `low` to `high`, see `CROP_EDGES`."""
    first = math.floor(low)
    if edges == "outward":
        return first, math.ceil(high)
    if edges == "whole-corners":
        return first, math.floor(high)
    return first, first + math.floor(high - low + _ROUNDING)


def _load_block(path: Path) -> Block | None:
    """Return a block from the cache; `None` if it is not there, or damaged, which is said in the log."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            arrays = {"vectors": file.get_tensor("vectors"), "rows": file.get_tensor("rows")}
        reasons = metadata["reasons"]
        if metadata["sha256"] != _block_digest(arrays, reasons):
            raise ValueError("the content does not fit its digest")
        reasons_by_index = {int(index): reason for index, reason in json.loads(reasons).items()}
        return Block(arrays["vectors"], arrays["rows"].tolist(), reasons_by_index)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        logger.warning("%s is damaged (%s): its items are encoded again", path, error)
        return None


def _save_block(path: Path, block: Block) -> None:
    """Write a block whole or not at all; processes may write the same one at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"vectors": np.ascontiguousarray(block.vectors), "rows": np.array(block.rows, dtype=np.int64)}
    reasons = json.dumps(block.reasons)
    with replacing(path) as unfinished:
        save_file(arrays, unfinished, metadata={"reasons": reasons, "sha256": _block_digest(arrays, reasons)})


def _block_digest(arrays: dict[str, np.ndarray], reasons: str) -> str:
    """Return the SHA-256 of all that a block holds, and of the shapes and types it is read as."""
    digest = hashlib.sha256(reasons.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _gathered(own: dict[int, Block]) -> list[Block]:
    """Return the blocks of all processes, in order, on each of them."""
    if distributed.world_size() == 1:
        return [own[number] for number in sorted(own)]
    shapes = distributed.gather_objects({n: (b.vectors.shape, b.rows, b.reasons) for n, b in own.items()})
    width = max((shape[1] for of_rank in shapes for shape, _, _ in of_rank.values()), default=0)
    counts = [sum(shape[0] for shape, _, _ in of_rank.values()) for of_rank in shapes]
    vectors = [torch.from_numpy(own[number].vectors) for number in own if len(own[number].vectors)]
    dtypes = distributed.gather_objects(vectors[0].dtype if vectors else None)
    dtype = next((dtype for dtype in dtypes if dtype is not None), torch.float32)
    stacked = torch.cat(vectors) if vectors else torch.zeros(0, width, dtype=dtype)
    rows = distributed.gather_rows(stacked.to(distributed.device()), counts).cpu().numpy()
    blocks: dict[int, Block] = {}
    for of_rank in shapes:
        for number, (shape, row_counts, reasons) in of_rank.items():
            blocks[number], rows = Block(rows[: shape[0]], row_counts, reasons), rows[shape[0] :]
    return [blocks[number] for number in sorted(blocks)]
