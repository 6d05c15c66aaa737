"""Processor of FG-CLIP 2: texts, images and boxes into the model's inputs."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.tokenization_utils_base import BatchEncoding

from .configuration_fgclip2 import WALK_OF_ROLE
from .image_processing_fgclip2 import PATCH_BUDGETS, FGClip2ImageProcessor
from .inputs import MIN_BOX_SIDE, DoubtfulBoxes, check_boxes, load_images
from .tokenization_fgclip2 import LONG_TEXT, FGClip2Tokenizer
from .weights import HUB_ARGUMENTS, find_file

# How sentence-transformers (6.2 or later) uses the checkpoint, by modules of its own: texts by the walk "short".
_FEATURES = {"method_output_name": "pooler_output"}
SENTENCE_TRANSFORMERS_FILES: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Normalize",
            "type": "sentence_transformers.base.modules.normalize.Normalize",
        },
    ],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "module_output_name": "sentence_embedding",
        "modality_config": {
            "text": {"method": "get_text_features", **_FEATURES},
            "image": {"method": "get_image_features", **_FEATURES},
        },
    },
    "config_sentence_transformers.json": {
        "model_type": "SentenceTransformer",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
}


class FGClip2Processor(ProcessorMixin):
    """One object for the model's inputs: an [`FGClip2ImageProcessor`] and an [`FGClip2Tokenizer`].

    `from_pretrained` gives these classes for every folder, official ones included, whose own JSON files name
    classes that are silently wrong for this model.

    Example:
        >>> from fgclip2 import FGClip2Processor
        >>> processor = FGClip2Processor.from_pretrained(path)
        >>> inputs = processor(text=["a dog", "一只狗"], images=["狗.jpg"])
        >>> inputs["input_ids"].shape
        torch.Size([2, 64])
        >>> regions = processor(images=["狗.jpg"], boxes=[[[10, 20, 200, 180]]])
        >>> features = model.get_image_region_features(**regions)
    """

    attributes = ["image_processor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        image_processor: FGClip2ImageProcessor | None = None,
        tokenizer: FGClip2Tokenizer | None = None,
        **kwargs: Any,
    ):
        super().__init__(image_processor or FGClip2ImageProcessor(), tokenizer)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "FGClip2Processor":
        """Load from a folder or a hub id.

        Args:
            pretrained_model_name_or_path: Folder or hub id, in the official layout or ours.
            kwargs: Arguments of the hub (`revision`, `token`, `cache_dir`, ...); fields of the image processor override
                what is stored.

        Raises:
            OSError: There is no such checkpoint, or it has no tokenizer or no image processor.
            ValueError: Their files are damaged.
        """
        hub_arguments = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        for name in ("trust_remote_code", "code_revision", "_from_auto", "use_fast"):
            kwargs.pop(name, None)
        source = pretrained_model_name_or_path
        try:
            image_processor = FGClip2ImageProcessor.from_pretrained(source, **hub_arguments, **kwargs)
            return cls(image_processor, FGClip2Tokenizer.from_pretrained(source, **hub_arguments))
        except Exception as error:  # the library tokenizers has no class of its own for its errors
            for names in (("tokenizer.json",), ("preprocessor_config.json", "processor_config.json")):
                if all(find_file(source, name, **hub_arguments) is None for name in names):
                    raise OSError(
                        f"{source} has no {' or '.join(names)}: copy it from where the weights come from"
                    ) from error
            if isinstance(error, OSError):
                raise
            raise ValueError(f"the tokenizer or image processor of {source} can't be read: {error}") from error

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Write the processor's files, with those of older transformers and of sentence-transformers."""
        if self._auto_class is not None:  # running as remote code: each file has to name its class and carry its code
            self.image_processor.register_for_auto_class()
            self.tokenizer.register_for_auto_class()
        # First, for transformers 5 pushes at the end of its own save.
        self.image_processor.save_pretrained(save_directory)
        for name, content in SENTENCE_TRANSFORMERS_FILES.items():
            text = json.dumps(content, indent=2) + "\n"
            Path(save_directory, name).write_text(text, encoding="utf-8")
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    # Patches that an image may have, for the parts of the package that know no family by name.
    patch_budgets = PATCH_BUDGETS
    text_roles = tuple(WALK_OF_ROLE)

    def text_length(self, role: str) -> int:
        """Return how many tokens a text of this role has at most, its end token included."""
        return self.tokenizer.long_length if WALK_OF_ROLE[role] == "long" else self.tokenizer.short_length

    def tokenize(self, texts: Sequence[str], role: str) -> BatchEncoding:
        """Tokenize texts for `FGClip2Model.get_role_features`: `input_ids`, int64 (B, T)."""
        return self.tokenizer(list(texts), walk_type=WALK_OF_ROLE[role], return_tensors="pt")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text before it is cut or padded, its end token included.

        Of texts longer than 65,536 characters only so many are counted, which no text head holds.
        """
        counted = [text[:LONG_TEXT] for text in texts]
        ids = self.tokenizer(counted, padding=False, truncation=False, verbose=False)["input_ids"]
        return [len(tokens) for tokens in ids]

    def prepare_image(self, image: Image.Image, max_num_patches: int | str | None = None) -> dict[str, np.ndarray]:
        """Process one image.

        Args:
            image: Upright RGB image.
            max_num_patches: Patch budget; `None`: the image processor's own setting.

        Returns:
            `pixel_values`, float32 (budget, 768), and `spatial_shapes`, int64 (2,): (height, width) of the grid.
        """
        inputs = self.image_processor(image, max_num_patches=max_num_patches, return_tensors="np")
        return {name: inputs[name][0] for name in ("pixel_values", "spatial_shapes")}

    def collate_images(self, images: Sequence[dict[str, np.ndarray]]) -> BatchFeature:
        """Pad prepared images to the longest of them, not to their budget: padding is masked and changes nothing.

        Returns:
            `pixel_values` float32 (B, N, 768), `pixel_attention_mask` int32 (B, N) and `spatial_shapes` int64 (B, 2).
        """
        shapes = np.stack([image["spatial_shapes"] for image in images])
        counts = shapes.prod(1)
        pixel_values = torch.zeros(len(images), counts.max(), images[0]["pixel_values"].shape[1])
        mask = torch.zeros(len(images), counts.max(), dtype=torch.int32)
        for row, (image, count) in enumerate(zip(images, counts, strict=True)):
            pixel_values[row, :count] = torch.from_numpy(image["pixel_values"][:count])
            mask[row, :count] = 1
        return BatchFeature(
            {"pixel_values": pixel_values, "pixel_attention_mask": mask, "spatial_shapes": torch.from_numpy(shapes)}
        )

    def process_images(self, images: Sequence[Image.Image], max_num_patches: int | str | None = None) -> BatchFeature:
        """Process a batch of images at once: what [`collate_images`] gives for them, without the copies between.

        Args:
            images: Upright RGB images, at least one.
            max_num_patches: As in [`prepare_image`].
        """
        inputs = self.image_processor(list(images), max_num_patches=max_num_patches, return_tensors="pt")
        longest = int(inputs["pixel_attention_mask"].sum(1).max())  # beyond it all is padding
        for name in ("pixel_values", "pixel_attention_mask"):
            inputs[name] = inputs[name][:, :longest]  # (B, budget, ...) -> (B, longest, ...)
        return inputs

    @property
    def model_input_names(self) -> list[str]:
        return [*self.tokenizer.model_input_names, *self.image_processor.model_input_names]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        boxes: Sequence[Sequence[Sequence[float]]] | None = None,
        walk_type: str | None = None,
        max_num_patches: int | str | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Process images, texts or both.

        Args:
            images: An image or a list of them (see [`load_image`]).
            text: A text or a list of them.
            boxes: For each image a list of boxes (x1, y1, x2, y2) in pixels of the upright image; may be empty.
            walk_type: `"short"` (the default), `"box"` or `"long"`: how far texts are padded.
            max_num_patches: Integer or `"auto"`; `None`: the image processor's own setting.
            return_tensors: `"pt"` or `"np"`.
            kwargs: `padding`, `truncation` and `max_length` of the tokenizer, or transformers' `text_kwargs`,
                `images_kwargs` and `common_kwargs`.

        Returns:
            `input_ids` for texts; `pixel_values`, `pixel_attention_mask` and `spatial_shapes` for images; with boxes
            also `image_sizes` and `region_infos`, as [`FGClip2Model.get_image_region_features`] takes them.

        Raises:
            ValueError: Nothing is given, or an image, text or box can't be used; the message names it.
        """
        text_kwargs, images_kwargs, return_tensors = _merge_kwargs(kwargs, walk_type, max_num_patches, return_tensors)
        if images is None and text is None:
            raise ValueError("pass images, text or both")
        if boxes is not None and images is None:
            raise ValueError("boxes are given without images")
        features: dict[str, Any] = {}
        if text is not None:
            features.update(self.tokenizer(text, return_tensors=return_tensors, **text_kwargs))
        if images is not None:
            images = load_images(images)
            features.update(self.image_processor(images, return_tensors=return_tensors, **images_kwargs))
        batch = BatchFeature(features)
        if boxes is not None:
            # After the conversion to tensors: images have different numbers of boxes.
            batch["image_sizes"] = [(image.height, image.width) for image in images]
            batch["region_infos"] = _check_boxes_of_images(boxes, batch["image_sizes"])
        return batch


def _merge_kwargs(
    kwargs: dict[str, Any], walk_type: str | None, max_num_patches: int | str | None, return_tensors: str | None
) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Sort flat arguments and transformers' nested ones into those of the tokenizer and of the image processor."""
    common = kwargs.pop("common_kwargs", None) or {}
    text_kwargs = dict(kwargs.pop("text_kwargs", None) or {})
    images_kwargs = dict(kwargs.pop("images_kwargs", None) or {})
    for name in ("audio_kwargs", "videos_kwargs"):
        kwargs.pop(name, None)
    for name in ("padding", "truncation", "max_length"):
        if name in kwargs:
            text_kwargs[name] = kwargs.pop(name)
    if "do_resize" in kwargs:
        images_kwargs["do_resize"] = kwargs.pop("do_resize")
    if kwargs:
        raise ValueError(f"unknown arguments: {', '.join(sorted(kwargs))}")
    if walk_type is not None:
        text_kwargs["walk_type"] = walk_type
    if max_num_patches is not None:
        images_kwargs["max_num_patches"] = max_num_patches
    tensors = {text_kwargs.pop("return_tensors", None), images_kwargs.pop("return_tensors", None)} - {None}
    return text_kwargs, images_kwargs, next(iter(tensors), common.get("return_tensors", return_tensors))


def _check_boxes_of_images(
    boxes: Sequence[Sequence[Sequence[float]]], image_sizes: Sequence[tuple[int, int]]
) -> list[list[list[float]]]:
    if len(boxes) != len(image_sizes):
        raise ValueError(
            f"boxes has {len(boxes)} entries for {len(image_sizes)} images; allowed: one list of boxes each"
        )
    checked = []
    doubtful = DoubtfulBoxes()
    for index, (image_boxes, (height, width)) in enumerate(zip(boxes, image_sizes, strict=True)):
        check_boxes(image_boxes, height, width, f"boxes[{index}]")
        checked.append([[float(value) for value in box] for box in image_boxes])
        doubtful.add(checked[-1], height, width, f"boxes[{index}]")
    doubtful.warn()
    return checked


__all__ = ["MIN_BOX_SIDE", "FGClip2Processor", "check_boxes"]
