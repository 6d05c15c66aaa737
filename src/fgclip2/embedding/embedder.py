"""FGClip2Embedder: images, regions and texts in, L2-normalised numpy vectors out."""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..assets import embedded_checkpoint
from ..checkpoints import locate_checkpoint
from ..errors import UnreadableImageError
from ..modeling.image_processing_fgclip2 import check_max_num_patches
from ..modeling.modeling_fgclip2 import FGClip2Model
from ..modeling.processing_fgclip2 import FGClip2Processor
from ..modeling.tokenization_fgclip2 import check_text
from ..streams import batches_of_a_kind, bounded_map, chunks, progress_bar
from .devices import Device, default_device, resolve_devices, resolve_dtype
from .fingerprint import model_fingerprint
from .inputs import (
    Boxes,
    ImageInput,
    ImageRecord,
    Skipped,
    as_iterable,
    collate,
    is_image,
    make_record,
    pair_with_boxes,
)
from .labels import average_templates, fill_templates, normalised

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")
Outputs = TypeVar("Outputs")

# The released code compares regions with texts, in training and in evaluation, at this scale and by a softmax.
REGION_LOGIT_SCALE = 100.0

# A batch holds as many tokens (patches or text tokens) as `batch_size` images of this many patches.
PATCHES_PER_BATCH_ITEM = 256
TEXTS_PER_TOKENIZER_CALL = 1024
MAX_LOADING_THREADS = 8

# The tokenizer keeps padding and truncation of a call in its state, which threads would share.
_TOKENIZER_LOCK = threading.Lock()


class FGClip2Embedder:
    """Embed images, regions and texts (Chinese and English), compare them, label images and regions.

    Inputs are paths, PIL images, arrays or encoded images (`bytes`), alone or in any iterable; long iterables are read
    as the work proceeds. Vectors are float32 numpy arrays, L2-normalised, in the order of the inputs; a vector does not
    depend on what else was encoded with it (within 1e-5 in float32). A single input gives a result without the first
    axis, an empty list one of shape (0, D).

    Arguments that several methods share:
        max_num_patches: Patch budget of each image: `"auto"` (by its own size), an integer, or `None` for the
            processor's setting.
        batch_size: Images of 256 patches per forward pass; other images and texts come in batches of as many tokens.
        show_progress_bar: `None` shows one on a terminal from 256 inputs on.
        on_error: `"raise"` an [`UnreadableImageError`] that names the image, or `"skip"` it: then the method returns a
            pair, the result without the inputs that could not be used, and a list of [`Skipped`] (index, reason).

    Args:
        model: An [`FGClip2Model`]; public as `embedder.model`.
        processor: Its [`FGClip2Processor`]; public as `embedder.processor`.
        device: Where to run, or a list of devices that share the work; `None`: where the model is.
        dtype: What to compute in; `None`: the model's own.
        name: What to call the checkpoint in indexes and reports; `None`: what the model's configuration says.

    Raises:
        ValueError: The processor's vocabulary is not the model's.

    Example:
        >>> from fgclip2 import FGClip2Embedder
        >>> embedder = FGClip2Embedder.from_pretrained()
        >>> images = embedder.encode_images(["猫.jpg", "dog.png"])
        >>> texts = embedder.encode_texts(["一只黑猫", "a brown dog"])
        >>> embedder.similarity(images, texts).shape
        (2, 2)
        >>> embedder.classify("猫.jpg", ["猫", "狗"], templates="一张{}的照片")  # a probability for each label
    """

    def __init__(
        self,
        model: FGClip2Model,
        processor: FGClip2Processor,
        device: Device | Sequence[Device] | None = None,
        dtype: torch.dtype | None = None,
        name: str | None = None,
    ):
        vocab_size = model.config.text_config.vocab_size
        if len(processor.tokenizer) > vocab_size:
            raise ValueError(
                f"the tokenizer has {len(processor.tokenizer)} entries, but the model's vocab_size is {vocab_size}: "
                "load both from the same checkpoint"
            )
        self.processor = processor
        self.name = name or model.config._name_or_path or "unnamed"
        self.revision: str | None = getattr(model.config, "_commit_hash", None)
        # Before the model is cast: these must not depend on where and in what it runs.
        self.fingerprint = model_fingerprint(model)
        self.logit_scale, self.logit_bias = model.logit_scale.item(), model.logit_bias.item()
        model = model.eval().to(dtype or model.dtype)
        self.replicas = _replicate(model, resolve_devices(device, model.device))

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike | None = None,
        device: Device | Sequence[Device] | None = None,
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        **hub_arguments: Any,
    ) -> FGClip2Embedder:
        """Load a checkpoint.

        Args:
            name: Folder, hub id or `modelscope://namespace/name`, see [`locate_checkpoint`]; `None`: the small one
                inside this package.
            device: E.g. `"cpu"`, `"cuda:1"`, or a list such as `["cuda:0", "cuda:1"]`, which splits the work; `None`:
                the accelerator if there is one, else the CPU.
            dtype: A torch dtype or its name; `"auto"`: float32 on the CPU and on MPS, else bfloat16 (float16 where the
                device has none).
            revision: Branch, tag or commit on the hub.
            hub_arguments: `token`, `cache_dir`, `local_files_only`, `force_download` or `subfolder`.

        Raises:
            ValueError: The checkpoint lacks weights of the model, the dtype or the device is unknown.
            OSError: There is no such checkpoint.
        """
        devices = resolve_devices(device, default_device())
        run_dtype = resolve_dtype(dtype, devices[0])
        hub_arguments = {"revision": revision, **hub_arguments} if revision else hub_arguments
        source, hub_arguments = locate_checkpoint(embedded_checkpoint() if name is None else name, **hub_arguments)
        try:
            model, info = FGClip2Model.from_pretrained(source, dtype="auto", output_loading_info=True, **hub_arguments)
        except OSError as error:  # which does not always name the checkpoint
            raise OSError(f"can't load the checkpoint {source}: {error}") from error
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ValueError(f"{source} is no FG-CLIP 2 checkpoint: it lacks {len(missing)} weights, e.g. {missing[0]}")
        processor = FGClip2Processor.from_pretrained(source, **hub_arguments)
        return cls(model, processor, devices, run_dtype, "embedded" if name is None else str(name))

    @property
    def model(self) -> FGClip2Model:
        """The model, on the first of the devices."""
        return self.replicas[0]

    @property
    def embedding_size(self) -> int:
        """Length D of the vectors."""
        return self.model.config.vision_config.hidden_size

    # -----------------------------------------------------------------------------------------------------------------
    # Encoding
    # -----------------------------------------------------------------------------------------------------------------

    def encode_images(
        self,
        images: ImageInput | Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Any:
        """Embed images; compare with images and with texts of the walks `short` and `long`.

        Args:
            images: One image or an iterable of them; arrays as [`load_image`] takes them.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.

        Returns:
            Float32 (N, D), or (D,) for a single image; with `on_error="skip"` a pair (see the class).

        Raises:
            UnreadableImageError: An image can't be read.
        """
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)
        single = is_image(images)
        vectors, skipped = self._run_images(_image_vectors, images, None, options)
        return options.finish(self._stack(vectors), skipped, single)

    def stream_images(
        self,
        images: Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Iterator[tuple[int, np.ndarray | Skipped]]:
        """Embed images as [`encode_images`] does, for runs too long to hold in memory or to lose.

        Yields:
            (index, vector (D,)) as soon as they are done, so not in order; with `on_error="skip"` also
            (index, [`Skipped`]), at the end.
        """
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)
        return self._stream(_image_vectors, images, None, options)

    def encode_regions(
        self,
        images: ImageInput | Iterable[ImageInput],
        boxes: Boxes | Iterable[Boxes],
        box_format: str = "xyxy",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Any:
        """Embed regions; compare with texts of the walk `box` only. Each image runs through the model once.

        Args:
            images: One image or an iterable of them.
            boxes: For each image its boxes in pixels of the upright image, maybe none; for a single image its boxes.
            box_format: `"xyxy"` (x1, y1, x2, y2) or `"xywh"` (x, y, width, height).
            max_num_patches, batch_size, show_progress_bar, on_error: See the class; an image with a wrong box is
                skipped too.

        Returns:
            List of float32 (R_i, D), one per image; for a single image (R, D).

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: A box is not finite, inverted, of no area or outside its image.
        """
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error, box_format)
        single = is_image(images)
        vectors, skipped = self._run_images(_region_vectors, images, [boxes] if single else boxes, options)  # type: ignore[list-item, arg-type]
        return options.finish(vectors, skipped, single)

    def encode_texts(
        self,
        texts: str | Iterable[str],
        walk_type: str = "auto",
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
    ) -> np.ndarray:
        """Embed texts.

        Args:
            texts: One text or an iterable of them.
            walk_type: The text head: `"short"` (up to 64 tokens) or `"long"` (up to 196) to compare with images,
                `"box"` (64) to compare with regions and dense features; `"auto"`: for each text `"short"` if it fits,
                else `"long"`. What doesn't fit is cut, with a warning.
            batch_size, show_progress_bar: See the class.

        Returns:
            Float32 (N, D), or (D,) for a single text.

        Raises:
            ValueError: A text is no string or has no UTF-8 form, or the walk is unknown.
        """
        if walk_type not in ("auto", "short", "long", "box"):
            raise ValueError(f"walk_type={walk_type!r}; allowed: 'auto', 'short', 'long', 'box'")
        single = isinstance(texts, str)
        several: Iterable[str] = [texts] if isinstance(texts, str) else texts
        if not isinstance(several, Iterable):
            raise ValueError(f"texts is {type(texts).__name__}; allowed: a string or an iterable of strings")
        options = _Options(None, batch_size, show_progress_bar)
        lengths = {walk: self._text_length(walk) for walk in ("short", "long", "box")}
        items = self._choose_walks(several, walk_type, lengths)
        batches = batches_of_a_kind(items, lambda item: item.walk_type, lambda walk: options.capacity(lengths[walk]))
        results: dict[int, np.ndarray] = {}
        with progress_bar(several, show_progress_bar, "text") as bar:
            for batch, vectors in self._on_replicas(self._text_vectors, batches):
                results.update(zip((item.index for item in batch), vectors, strict=True))
                bar.update(len(batch))
        return options.finish(self._stack([results[index] for index in sorted(results)]), [], single)

    # -----------------------------------------------------------------------------------------------------------------
    # Comparing
    # -----------------------------------------------------------------------------------------------------------------

    @staticmethod
    def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cosine similarity of every vector of `a` with every vector of `b`; a zero vector gives 0, never NaN.

        Args:
            a: Shape (N, D) or (D,).
            b: Shape (M, D) or (D,).

        Returns:
            Float32 (N, M), without the axis of an input that was a single vector.

        Raises:
            ValueError: The shapes don't fit.
        """
        for name, vectors in (("a", a), ("b", b)):
            if not isinstance(vectors, np.ndarray) or vectors.ndim not in (1, 2):
                described = f"shape {vectors.shape}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
                raise ValueError(
                    f"{name} is {described}; allowed: an array (N, D) or (D,), e.g. one of the arrays that "
                    "encode_regions returns"
                )
        if a.shape[-1] != b.shape[-1]:
            raise ValueError(f"a has vectors of length {a.shape[-1]}, b of length {b.shape[-1]}")
        return normalised(a) @ normalised(b).T

    def probabilities(self, similarity: np.ndarray) -> np.ndarray:
        """Turn cosines of images and texts into the model's probabilities that they belong together.

        Returns:
            `sigmoid(exp(logit_scale) * similarity + logit_bias)`, same shape, float32. Each pair is judged by itself:
            the probabilities of several labels need not sum to 1.
        """
        logits = math.exp(self.logit_scale) * np.asarray(similarity, dtype=np.float64) + self.logit_bias
        return (0.5 * (1 + np.tanh(logits / 2))).astype(np.float32)

    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        walk_type: str = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Any:
        """Score images against labels.

        Args:
            images: One image or an iterable of them.
            labels: Names or descriptions, Chinese or English.
            templates: One or several texts with `{}` for the label, e.g. `"a photo of {}"`, `"一张{}的照片"`; a
                label's vector is the mean over templates.
            walk_type: As in [`encode_texts`], but not `"box"`, whose texts compare with regions.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.

        Returns:
            Float32 (N, labels), or (labels,) for a single image: [`probabilities`], not a distribution over the labels.

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: There are no labels, a template has no `{}`, or the walk is `"box"`.
        """
        if walk_type == "box":
            raise ValueError("walk_type='box' compares with regions, not with images: use 'auto' or classify_regions")
        label_vectors = self._label_vectors(labels, templates, walk_type)
        encoded = self.encode_images(images, max_num_patches, batch_size, show_progress_bar, on_error)
        vectors, skipped = encoded if on_error == "skip" else (encoded, None)
        scores = self.probabilities(self.similarity(vectors, label_vectors))
        return scores if skipped is None else (scores, skipped)

    def classify_regions(
        self,
        images: ImageInput | Iterable[ImageInput],
        boxes: Boxes | Iterable[Boxes],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        box_format: str = "xyxy",
        walk_type: str = "box",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Any:
        """Score regions against labels.

        Args:
            images, boxes, box_format: As in [`encode_regions`].
            labels, templates: As in [`classify`].
            walk_type: `"box"`, the only head whose texts compare with regions.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.

        Returns:
            List of float32 (R_i, labels), one per image; for a single image (R, labels). Each row is a softmax of 100
            times the cosines and sums to 1, for the region loss trains no bias that could say "none of these".

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: A box or the labels can't be used, or the walk is not `"box"`.
        """
        if walk_type != "box":
            raise ValueError(
                f"walk_type={walk_type!r}, but region features compare only with texts of walk_type='box': leave it out"
            )
        label_vectors = self._label_vectors(labels, templates, "box")
        encoded = self.encode_regions(
            images, boxes, box_format, max_num_patches, batch_size, show_progress_bar, on_error
        )
        regions, skipped = encoded if on_error == "skip" else (encoded, None)
        score = partial(_region_probabilities, label_vectors=label_vectors)
        scores = score(regions) if isinstance(regions, np.ndarray) else [score(vectors) for vectors in regions]
        return scores if skipped is None else (scores, skipped)

    def heatmap(
        self,
        image: ImageInput | Iterable[ImageInput],
        text: str | Sequence[str],
        resize: bool = True,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Any:
        """Show where in an image a text applies: the cosines of the dense features with the text (walk `box`).

        Args:
            image: One image or an iterable of them.
            text: A text, or several for one map each.
            resize: Interpolate to the size of the upright image in pixels; else the grid of patches is returned.
            max_num_patches: More patches give a finer map, up to 16384; `"auto"` or `None` as in the class.
            batch_size, show_progress_bar, on_error: See the class.

        Returns:
            For a single image float32 (height, width), for several texts (texts, height, width); for an iterable of
            images a list of these. Values are cosines; [`fgclip2.visualization.overlay_heatmap`] makes a picture.

        Raises:
            UnreadableImageError: An image can't be read.
        """
        if not isinstance(text, (str, Iterable)):
            raise ValueError(f"text is {type(text).__name__}; allowed: a string or an iterable of strings")
        texts = [text] if isinstance(text, str) else list(text)
        if not texts:
            raise ValueError("text is an empty list; pass at least one text")
        text_vectors = torch.from_numpy(self.encode_texts(texts, "box", batch_size, show_progress_bar=False))
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)
        forward = partial(_heat_maps, text_vectors=text_vectors, resize=resize)
        maps, skipped = self._run_images(forward, image, None, options)
        maps = [each[0] for each in maps] if isinstance(text, str) else maps
        return options.finish(maps, skipped, is_image(image))

    def stream_heatmaps(
        self,
        images: Iterable[ImageInput],
        vectors: np.ndarray,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Iterator[tuple[int, np.ndarray | Skipped]]:
        """Compare dense features with vectors that are there already, such as those of labels in templates.

        Args:
            images: An iterable of images.
            vectors: Float32 (M, D), L2-normalised, of texts of the walk `box`.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.

        Yields:
            (index, float32 (M, height, width)), the cosines on the grid of patches, as soon as they are done, so not in
            order; with `on_error="skip"` also (index, [`Skipped`]), at the end.

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: The vectors don't fit the model.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.embedding_size:
            raise ValueError(f"vectors has shape {vectors.shape}; allowed: (M, {self.embedding_size})")
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)
        forward = partial(_heat_maps, text_vectors=torch.from_numpy(vectors), resize=False)
        return self._stream(forward, images, None, options)

    # -----------------------------------------------------------------------------------------------------------------
    # How it runs
    # -----------------------------------------------------------------------------------------------------------------

    def _run_images(
        self,
        forward: Callable[[FGClip2Model, list[ImageRecord]], Iterable[np.ndarray]],
        images: ImageInput | Iterable[ImageInput],
        boxes: Iterable[Boxes] | None,
        options: _Options,
    ) -> tuple[list[np.ndarray], list[Skipped]]:
        """Put the results of [`_stream`] in order, those of skipped images apart."""
        results = dict(self._stream(forward, images, boxes, options))
        ordered = [results[index] for index in sorted(results)]
        skipped = [result for result in ordered if isinstance(result, Skipped)]
        return [result for result in ordered if not isinstance(result, Skipped)], skipped

    def _stream(
        self,
        forward: Callable[[FGClip2Model, list[ImageRecord]], Iterable[np.ndarray]],
        images: ImageInput | Iterable[ImageInput],
        boxes: Iterable[Boxes] | None,
        options: _Options,
    ) -> Iterator[tuple[int, np.ndarray | Skipped]]:
        """Load in threads, batch by patch budget, run on the replicas; yield (index, result) as they are done."""
        images = as_iterable(images)
        workers = min(MAX_LOADING_THREADS, os.cpu_count() or 1)
        ahead = max(workers, options.capacity(options.max_num_patches))
        skipped: list[Skipped] = []

        def prepare(item: tuple[int, ImageInput, Boxes]) -> ImageRecord | Skipped:
            try:
                return make_record(item, self.processor.image_processor, options.max_num_patches, options.box_format)
            except ValueError as error:
                if options.on_error == "raise":
                    raise
                return Skipped(item[0], str(error))

        def readable() -> Iterator[ImageRecord]:
            for record in bounded_map(prepare, pair_with_boxes(images, boxes), workers, ahead):
                if isinstance(record, Skipped):
                    skipped.append(record)
                else:
                    yield record

        batches = batches_of_a_kind(readable(), lambda record: record.budget, options.capacity)
        with progress_bar(images, options.show_progress_bar, "image") as bar:
            for batch, outputs in self._on_replicas(forward, batches):
                yield from zip((record.index for record in batch), outputs, strict=True)
                bar.update(len(batch))
            bar.update(len(skipped))
            yield from ((each.index, each) for each in skipped)

    def _on_replicas(
        self, function: Callable[[FGClip2Model, Batch], Outputs], batches: Iterable[Batch]
    ) -> Iterator[tuple[Batch, Outputs]]:
        """Yield each batch with `function(replica, batch)`; several replicas work in threads of their own."""
        if len(self.replicas) == 1:
            for batch in batches:
                yield batch, function(self.model, batch)
            return
        free: SimpleQueue[FGClip2Model] = SimpleQueue()
        for replica in self.replicas:
            free.put(replica)

        def run(batch: Batch) -> tuple[Batch, Outputs]:
            replica = free.get()
            try:
                return batch, function(replica, batch)
            finally:
                free.put(replica)

        yield from bounded_map(run, batches, len(self.replicas), 2 * len(self.replicas))

    def _choose_walks(self, texts: Iterable[str], walk_type: str, lengths: dict[str, int]) -> Iterator[_Text]:
        """Give each text its walk by its number of tokens, and warn once of those that will be cut."""
        cut = 0
        for chunk in chunks(enumerate(texts), TEXTS_PER_TOKENIZER_CALL):
            checked = [check_text(f"texts[{index}]", text) for index, text in chunk]
            ids = self._tokenize(checked, padding=False, truncation=False, verbose=False)["input_ids"]
            for (index, text), tokens in zip(chunk, ids, strict=True):
                fits = len(tokens) <= lengths["short"]
                walk = ("short" if fits else "long") if walk_type == "auto" else walk_type
                cut += len(tokens) > lengths[walk]
                yield _Text(index, text, walk)
        if cut:
            limit = lengths["long" if walk_type == "auto" else walk_type]
            hint = "; walk_type='auto' or 'long' takes longer ones" if walk_type == "short" else ""
            logger.warning("%d texts have more than %d tokens and were cut%s", cut, limit, hint)

    def _tokenize(self, texts: list[str], **kwargs: Any) -> Any:
        with _TOKENIZER_LOCK:
            return self.processor.tokenizer(texts, **kwargs)

    def _text_length(self, walk_type: str) -> int:
        tokenizer = self.processor.tokenizer
        return tokenizer.long_length if walk_type == "long" else tokenizer.short_length

    @torch.inference_mode()
    def _text_vectors(self, model: FGClip2Model, batch: list[_Text]) -> np.ndarray:
        walk_type = batch[0].walk_type
        inputs = self._tokenize([item.text for item in batch], walk_type=walk_type, return_tensors="pt")
        return unit_vectors(model.get_text_features(inputs["input_ids"].to(model.device), None, walk_type))

    def _label_vectors(self, labels: Sequence[str], templates: str | Sequence[str], walk_type: str) -> np.ndarray:
        """Encode each label in every template: (labels, D)."""
        if isinstance(labels, str) or not len(labels):
            raise ValueError(f"labels={labels!r}; allowed: a list of at least one label")
        templates = [templates] if isinstance(templates, str) else list(templates)
        labels = [check_text(f"labels[{index}]", label) for index, label in enumerate(labels)]
        templates = [check_text(f"templates[{index}]", template) for index, template in enumerate(templates)]
        if not templates or not all("{}" in template for template in templates):
            raise ValueError(f"templates={templates!r}; allowed: texts with {{}} where the label goes")
        vectors = self.encode_texts(fill_templates(labels, templates), walk_type, show_progress_bar=False)
        return average_templates(vectors, len(labels))

    def _stack(self, vectors: list[np.ndarray]) -> np.ndarray:
        return np.stack(vectors) if vectors else np.zeros((0, self.embedding_size), np.float32)


@dataclass(frozen=True)
class _Options:
    """What the methods on images have in common."""

    max_num_patches: int | str | None
    batch_size: int
    show_progress_bar: bool | None
    on_error: str = "raise"
    box_format: str = "xyxy"

    def __post_init__(self) -> None:
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size!r}; allowed: a positive integer")
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"on_error={self.on_error!r}; allowed: 'raise', 'skip'")
        if self.max_num_patches is not None:
            check_max_num_patches(self.max_num_patches)
        if self.box_format not in ("xyxy", "xywh"):
            raise ValueError(f"box_format={self.box_format!r}; allowed: 'xyxy', 'xywh'")

    def capacity(self, tokens: int | str | None) -> int:
        """How many items of so many tokens make a full batch; without a number, of 256."""
        tokens = tokens if isinstance(tokens, int) else PATCHES_PER_BATCH_ITEM
        return max(1, self.batch_size * PATCHES_PER_BATCH_ITEM // tokens)

    def finish(self, result: Any, skipped: list[Skipped], single: bool) -> Any:
        """Return what the caller asked for: without the first axis for a single input, with `skipped` if skipping."""
        if single and skipped:
            raise UnreadableImageError(f"{skipped[0].reason} (on_error='skip' needs a list of inputs)")
        result = result[0] if single else result
        return (result, skipped) if self.on_error == "skip" else result


class _Text(NamedTuple):
    index: int  # type: ignore[assignment]  # hides a method of tuple that nobody needs here
    text: str
    walk_type: str


# ---------------------------------------------------------------------------------------------------------------------
# Batches through the model
# ---------------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def _image_vectors(model: FGClip2Model, records: list[ImageRecord]) -> np.ndarray:
    return unit_vectors(model.get_image_features(**collate(records, model)))


@torch.inference_mode()
def _region_vectors(model: FGClip2Model, records: list[ImageRecord]) -> list[np.ndarray]:
    features = model.get_image_region_features(
        **collate(records, model),
        image_sizes=[record.image_size for record in records],
        region_infos=[record.boxes for record in records],
    )
    return [unit_vectors(each) for each in features]


@torch.inference_mode()
def _heat_maps(model: FGClip2Model, records: list[ImageRecord], text_vectors: Tensor, resize: bool) -> list[np.ndarray]:
    """For each image its maps, (texts, height, width)."""
    features = F.normalize(model.get_image_dense_feature(**collate(records, model)).float(), dim=-1)
    with torch.autocast(features.device.type, enabled=False):  # of a training run that this is part of
        cosines = (features @ text_vectors.to(model.device).T).cpu()  # (B, N, texts)
    maps = []
    for record, each in zip(records, cosines, strict=True):
        height, width = record.grid
        grid = each[: height * width].T.unflatten(1, (height, width))  # (texts, height, width)
        if resize:
            grid = F.interpolate(grid[None], record.image_size, mode="bilinear", antialias=True)[0]
        maps.append(grid.numpy())
    return maps


def unit_vectors(features: Tensor) -> np.ndarray:
    """L2-normalise (N, D) in float32.

    Raises:
        RuntimeError: Values are not finite.
    """
    vectors = F.normalize(features.float(), dim=-1).cpu().numpy()
    if not np.isfinite(vectors).all():
        raise RuntimeError("the model gave values that are not finite: its dtype may be too narrow, try 'float32'")
    return vectors


def _region_probabilities(regions: np.ndarray, label_vectors: np.ndarray) -> np.ndarray:
    logits = REGION_LOGIT_SCALE * FGClip2Embedder.similarity(regions, label_vectors)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _replicate(model: FGClip2Model, devices: list[torch.device]) -> list[FGClip2Model]:
    copies = [copy.deepcopy(model) for _ in devices[1:]]
    return [replica.to(device) for replica, device in zip([model, *copies], devices, strict=True)]  # type: ignore[arg-type]
