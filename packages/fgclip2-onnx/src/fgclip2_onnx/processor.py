"""OnnxProcessor: images and texts into the inputs of the graphs, bit-equal to the processors of fgclip2."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from ._fgclip2.modeling.inputs import check_max_num_patches, check_text
from ._fgclip2.modeling.pixels import (
    VALUE_SETTINGS,
    collate_patches,
    cut_into_patches,
    look_up_channels,
    lookup_table,
    naflex_size,
    patch_budget,
)
from .manifest import path_of

LONGEST_COUNTED_TEXT = 2**16  # characters, far more than any text head takes


class OnnxProcessor:
    """Images and texts into the inputs of the graphs. Threads may call it at the same time.

    Args:
        manifest: The content of `fgclip2_onnx.json`.
        folder: The folder that it is in.
        images: `"naflex"` or `"square"`.

    Attributes:
        text_roles: What texts may be to the model.
        patch_budgets: Numbers of patches from which `"auto"` chooses; `None`: every image becomes one square.
        tokenizer: The `tokenizers.Tokenizer`.
    """

    def __init__(self, manifest: Mapping[str, Any], folder: str | os.PathLike, images: str):
        self._text, self._image = manifest["text"], manifest["image"]
        self.text_roles = tuple(self._text["roles"])
        self.patch_budgets = tuple(self._image["patch_budgets"]) if images == "naflex" else None
        self._square = None
        if images == "square":
            size = self._image["size"] if self._image["kind"] == "square" else manifest["image_square"]["size"]
            self._square = tuple(size)  # (height, width) in pixels
        self._table = lookup_table(**{name: self._image[name] for name in VALUE_SETTINGS})
        path = path_of(self._text["tokenizer"], Path(folder), manifest)
        try:
            self.tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except OSError:
            raise
        except Exception as error:  # the library tokenizers has no class of its own for its errors
            raise ValueError(f"{path} is no tokenizer: {error}") from error
        # Texts are cut and padded below: the Rust tokenizer has one length for all threads.
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    @property
    def image_processor(self) -> Any:
        """There is none, which what indexes folders and runs benchmarks asks for."""
        raise AttributeError(
            "OnnxProcessor has no image processor of transformers: to index folders or to run benchmarks, open the "
            "folder by fgclip2, Embedder.from_pretrained(OUT, backend='onnx')"
        )

    @property
    def max_caption_tokens(self) -> int:
        """Return how many tokens a text has at most that is a short caption where the role is chosen by length."""
        return self._text["max_caption_tokens"]

    def text_length(self, role: str) -> int:
        """Return the most tokens that a text of this role may have, special tokens included."""
        return self._text["roles"][role]["length"]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if self._text["python_lowercase"]:
            # Before the tokenizer's own lower-casing, for added tokens are matched before that one.
            texts = [text.lower() for text in texts]
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

    def tokenize(self, texts: Sequence[str], role: str) -> dict[str, np.ndarray]:
        """Return `input_ids`, int64 (B, T), cut and padded as the role asks; special tokens stay.

        Raises:
            ValueError: A text is no string or has no UTF-8 form.
        """
        ids = self._encode([check_text(f"texts[{index}]", text) for index, text in enumerate(texts)])
        length = self.text_length(role)
        # The last token of each text is its end.
        ids = [[*text[: length - 1], text[-1]] if len(text) > length else text for text in ids]
        width = length if self._text["pad_to_length"] else max(map(len, ids))
        input_ids = np.full((len(ids), width), self._text["pad_id"], np.int64)
        for row, text in zip(input_ids, ids, strict=True):
            row[: len(text)] = text
        return {"input_ids": input_ids}

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text before it is cut or padded, special tokens included.

        Of texts longer than 65,536 characters only so many are counted, which no text head holds.
        """
        return [len(ids) for ids in self._encode([text[:LONGEST_COUNTED_TEXT] for text in texts])]

    def prepare_image(self, image: Image.Image, max_num_patches: int | str | None = None) -> dict[str, np.ndarray]:
        """Process one upright RGB image.

        Returns:
            `pixel_values`, float32 (budget, values), and `spatial_shapes`, int64 (2,); of squares `pixel_values`
            alone, float32 (3, height, width).

        Raises:
            ValueError: The patch budget is wrong, or given for squares.
        """
        if self._square is not None:
            if max_num_patches is not None:
                raise ValueError(f"max_num_patches must be None for squares of one size, got {max_num_patches!r}")
            height, width = self._square
            channels = np.empty((3, height, width), np.float32)
            look_up_channels(image.resize((width, height), self._image["resample"]), self._table, channels)
            return {"pixel_values": channels}
        patch = self._image["patch_size"]
        budget = self._image["max_num_patches"] if max_num_patches is None else max_num_patches
        check_max_num_patches(budget)
        if budget == "auto":
            budget = patch_budget(image.height, image.width, patch)
        height, width = naflex_size(image.height, image.width, patch, int(budget))
        # As long as the budget, by which the embedder makes its batches; the rest is padding.
        patches = np.zeros((int(budget), patch * patch * 3), np.float32)
        grid = np.array([height // patch, width // patch], np.int64)
        resized = image.resize((width, height), self._image["resample"])
        cut_into_patches(resized, patch, self._table, patches[: grid.prod()])
        return {"pixel_values": patches, "spatial_shapes": grid}

    def collate_images(self, images: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the inputs of the graph for a batch of prepared images."""
        if self._square is None:
            return collate_patches(images)
        return {"pixel_values": np.stack([image["pixel_values"] for image in images])}
