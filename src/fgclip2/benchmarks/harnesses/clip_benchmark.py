"""Models of this package in LAION's CLIP_benchmark: classification, retrieval, caption selection.

CLIP_benchmark stacks images into one tensor and passes texts through a tokenizer that knows nothing of the others'
lengths. Images of a family with patch budgets keep their own size and budget all the same: each is packed into a tensor
of one shape, which `encode_image` unpacks. Texts stay texts, for each goes through the text head of its own length.

Written for clip-benchmark 1.6, which is not imported here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...embedding import Embedder, unit_vectors
from ...embedding.inputs import ImageInput, load_input
from ...modeling.interface import DualEncoderProcessor


class Texts(list[str]):
    """Texts in the place of a tensor of tokens."""

    def to(self, device: Any) -> Texts:
        """Stay here: `encode_text` moves what it makes of them."""
        return self


class ClipBenchmarkModel:
    """`model`, `transform` and `tokenizer` of CLIP_benchmark.

    The model computes in its own dtype, also with CLIP_benchmark's `amp`, which then rounds only the similarities; to
    compare without rounding pass `amp=False`. The device to pass is the embedder's.

    Args:
        embedder: The model; of several devices images use the first.
        max_num_patches: Patch budget of each image: `"auto"` (by its own size), an integer, or `None` for the
            processor's setting, the only choice of families without budgets. A packed image of FG-CLIP 2 has 3 KB a
            patch, with `"auto"` always 3 MB.

    Attributes:
        transform: From an image to a float32 tensor, see [`pack_image`]; workers of a data loader may call it.
        tokenizer: From texts to [`Texts`].

    Example:
        >>> from clip_benchmark.metrics import zeroshot_classification
        >>> model = ClipBenchmarkModel(FGClip2Embedder.from_pretrained("qihoo360/fg-clip2-base", "cuda"))
        >>> data = torchvision.datasets.ImageFolder("照片", transform=model.transform)
        >>> loader = torch.utils.data.DataLoader(data, batch_size=64)
        >>> templates = ["一张{c}的照片。", "a photo of a {c}."]
        >>> zeroshot_classification.evaluate(model, loader, model.tokenizer, data.classes, templates, "cuda")
    """

    def __init__(self, embedder: Embedder, max_num_patches: int | str | None = None):
        self.embedder = embedder
        self.transform: Callable[[ImageInput], Tensor] = partial(
            pack_image, processor=embedder.processor, max_num_patches=max_num_patches
        )

    @staticmethod
    def tokenizer(texts: str | Sequence[str]) -> Texts:
        """Keep texts as they are."""
        return Texts([texts] if isinstance(texts, str) else texts)

    def eval(self) -> ClipBenchmarkModel:
        """Do nothing: an embedder's model always is in evaluation mode."""
        return self

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Embed packed images.

        Args:
            images: Float32 (B, ...), B results of `transform`.

        Returns:
            Float32 (B, D), L2-normalised, on the embedder's device.

        Raises:
            ValueError: `images` does not come from `transform`.
        """
        model, images = self.embedder.model, images.to(self.embedder.device)
        inputs = {"pixel_values": images} if self.embedder.processor.patch_budgets is None else unpack_images(images)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        with torch.autocast(model.device.type, enabled=False):
            return torch.from_numpy(unit_vectors(model.get_image_features(**inputs))).to(model.device)

    def encode_text(self, texts: Texts) -> Tensor:
        """Embed texts as captions if they fit, else as long ones: float32 (B, D), L2-normalised."""
        device = self.embedder.model.device
        with torch.autocast(device.type, enabled=False):
            return torch.from_numpy(self.embedder.encode_texts(texts, show_progress_bar=False)).to(device)


def load_clip(
    model_name: str,
    pretrained: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    device: str | torch.device = "cuda",
) -> tuple[ClipBenchmarkModel, Callable[[ImageInput], Tensor], Callable[..., Texts]]:
    """A loader for `clip_benchmark.models.TYPE2FUNC`, through which its command finds models.

    Args:
        model_name: Folder or hub id (`--model`).
        pretrained: Branch, tag or commit of the hub (`--pretrained`); of a folder it means nothing.
        cache_dir: Where the hub's files are kept (`--model_cache_dir`).
        device: Where to run.

    Returns:
        The model, its transform and its tokenizer.

    Raises:
        OSError: There is no such checkpoint.
    """
    model = ClipBenchmarkModel(Embedder.from_pretrained(model_name, device, "auto", pretrained, cache_dir=cache_dir))
    return model, model.transform, model.tokenizer


def pack_image(image: ImageInput, processor: DualEncoderProcessor, max_num_patches: int | str | None = None) -> Tensor:
    """Put an image's patches and its grid into a tensor whose shape is the same for all images.

    Returns:
        Float32 (1, 1 + N, P), a channel as high as there are rows: one that begins with height and width of the
        grid, then the patches of P numbers, then zeros. N is the budget, with `"auto"` the largest one. Of a family
        without budgets the square (3, S, S) itself.

    Raises:
        ValueError: The image can't be used, or the budget is wrong.
    """
    inputs = processor.prepare_image(load_input(0, image), max_num_patches)
    if processor.patch_budgets is None:
        return torch.from_numpy(inputs["pixel_values"])
    patches = inputs["pixel_values"]  # (budget of this image, P)
    budget = processor.image_processor.max_num_patches if max_num_patches is None else max_num_patches
    rows = budget if isinstance(budget, int) else processor.patch_budgets[-1]
    packed = torch.zeros(1, 1 + rows, patches.shape[1])
    packed[0, 0, :2] = torch.from_numpy(inputs["spatial_shapes"])
    packed[0, 1 : 1 + len(patches)] = torch.from_numpy(patches)
    return packed


def unpack_images(packed: Tensor) -> dict[str, Any]:
    """The model's inputs from a batch of [`pack_image`], padded to its own longest image.

    Args:
        packed: Float32 (B, 1, 1 + N, P).

    Returns:
        Tensors `pixel_values` (B, longest, P), `pixel_attention_mask` (B, longest) and `spatial_shapes` (B, 2).

    Raises:
        ValueError: It is no such batch.
    """
    if packed.ndim != 4 or packed.shape[1] != 1:
        raise ValueError(f"images has shape {tuple(packed.shape)}; it must be what the model's own transform makes")
    rows = packed[:, 0]  # (B, 1 + N, P)
    grids = rows[:, 0, :2].long()  # (B, 2)
    counts = grids.prod(1)
    if not ((grids > 0).all() and (counts < rows.shape[1]).all()):
        raise ValueError(f"images have grids {grids.tolist()}; they must be what the model's own transform makes")
    longest = int(counts.max())
    mask = torch.arange(longest, device=packed.device) < counts[:, None]
    return {
        "pixel_values": rows[:, 1 : 1 + longest],
        "pixel_attention_mask": mask.int(),
        "spatial_shapes": grids,
    }
