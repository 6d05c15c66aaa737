"""Parts that the processors of all families share: texts, images and boxes into a model's inputs."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.tokenization_utils_base import BatchEncoding

from .configurations import WALK_OF_ROLE
from .inputs import DoubtfulBoxes, check_boxes, load_images
from .text_tokenizer import LONG_TEXT
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


class TwoTowerProcessor(ProcessorMixin):
    """An image processor and a tokenizer in one object."""

    attributes = ["image_processor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"

    image_processor_type: ClassVar[type[Any]]
    tokenizer_type: ClassVar[type[Any]]
    # Of each line, a folder must have a file.
    needed_files: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("tokenizer.json",),
        ("preprocessor_config.json", "processor_config.json"),
    )
    text_roles = tuple(WALK_OF_ROLE)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """Load from a folder or a hub id.

        Args:
            pretrained_model_name_or_path: Folder or hub id, in the official layout or ours.
            kwargs: Arguments of the hub (`revision`, `token`, `cache_dir`, ...); fields of the image processor override
                what is stored.

        Raises:
            OSError: There is no such checkpoint, or it lacks the files of its tokenizer or image processor.
            ValueError: Their files are damaged.
        """
        hub_arguments = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        for name in ("trust_remote_code", "code_revision", "_from_auto", "use_fast"):
            kwargs.pop(name, None)
        source = pretrained_model_name_or_path
        try:
            image_processor = cls.image_processor_type.from_pretrained(source, **hub_arguments, **kwargs)
            return cls(image_processor, cls.tokenizer_type.from_pretrained(source, **hub_arguments))
        except Exception as error:  # the library tokenizers has no class of its own for its errors
            for names in cls.needed_files:
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
            Path(save_directory, name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @property
    def max_caption_tokens(self) -> int:
        """Return how many tokens a text has at most that is a short caption where the role is chosen by length."""
        return self.tokenizer.max_caption_tokens

    def text_length(self, role: str) -> int:
        """Return how many tokens a text of this role has at most, special tokens included."""
        return self.tokenizer.long_length if WALK_OF_ROLE[role] == "long" else self.tokenizer.short_length

    def tokenize(self, texts: Sequence[str], role: str) -> BatchEncoding:
        """Tokenize texts for the model's `get_role_features`: `input_ids`, int64 (B, T)."""
        return self.tokenizer.encode_texts(texts, WALK_OF_ROLE[role])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text before it is cut or padded, special tokens included.

        Of texts longer than 65,536 characters only so many are counted, which no text head holds.
        """
        counted = [text[:LONG_TEXT] for text in texts]
        ids = self.tokenizer(counted, padding=False, truncation=False, verbose=False)["input_ids"]
        return [len(tokens) for tokens in ids]

    @property
    def model_input_names(self) -> list[str]:
        return [*self.tokenizer.model_input_names, *self.image_processor.model_input_names]

    def _process(
        self,
        images: Any,
        text: str | Sequence[str] | None,
        boxes: Sequence[Sequence[Sequence[float]]] | None,
        walk_type: str | None,
        return_tensors: str | None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Process images, texts or both; the arguments are those of `__call__`."""
        text_kwargs, images_kwargs, return_tensors = _merge_kwargs(kwargs, walk_type, return_tensors)
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


class SquareProcessor(TwoTowerProcessor):
    """The processor of a family whose image processor makes squares of one size."""

    # Every image becomes one square, for the parts of the package that know no family by name.
    patch_budgets = None

    def prepare_image(self, image: Image.Image, max_num_patches: int | str | None = None) -> dict[str, np.ndarray]:
        """Process one upright RGB image: `pixel_values`, float32 (3, S, S).

        Raises:
            ValueError: `max_num_patches` is given, which means nothing to squares of one size.
        """
        return {"pixel_values": self.process_images([image], max_num_patches)["pixel_values"][0].numpy()}

    def collate_images(self, images: Sequence[dict[str, np.ndarray]]) -> BatchFeature:
        """Stack prepared images: `pixel_values`, float32 (B, 3, S, S)."""
        return BatchFeature({"pixel_values": torch.from_numpy(np.stack([image["pixel_values"] for image in images]))})

    def process_images(
        self, images: Sequence[Image.Image], max_num_patches: int | str | None = None, normalized: bool = True
    ) -> BatchFeature:
        """Process a batch of upright RGB images at once: what [`collate_images`] gives for them.

        With `normalized=False` `pixel_values` stay as they are in the images, uint8.
        """
        if max_num_patches is not None:
            raise ValueError(
                f"`max_num_patches` must be None for a family whose images are squares of one size, got "
                f"{max_num_patches!r}: leave it out"
            )
        return self.image_processor(list(images), return_tensors="pt", normalized=normalized)


def _merge_kwargs(
    kwargs: dict[str, Any], walk_type: str | None, return_tensors: str | None
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
