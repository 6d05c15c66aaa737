"""Reading a checkpoint to start from: its configuration, its image processor, and its weights tensor by tensor."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPConfig, PreTrainedModel, Siglip2Config, SiglipConfig
from transformers.configuration_utils import PretrainedConfig

from ..checkpoints import locate_checkpoint
from ..modeling.auto import read_model_type
from ..modeling.configuration_fgclip import FGClipConfig
from ..modeling.configuration_fgclip2 import FGClip2Config
from ..modeling.image_processing_fgclip2 import FGClip2ImageProcessor
from ..modeling.modeling_fgclip import FGClipModel
from ..modeling.modeling_fgclip2 import FGClip2Model, resize_position_grid
from ..modeling.weights import INDEX, WEIGHTS, differences, find_weights, read_headers, read_json_object

# Fixed-resolution SigLIP 2 checkpoints are published as `siglip`, NaFlex ones as `siglip2`.
SOURCE_CONFIGS: dict[str, type[PretrainedConfig]] = {
    "siglip": SiglipConfig,
    "siglip2": Siglip2Config,
    "fgclip2": FGClip2Config,
    "clip": CLIPConfig,
    "fgclip": FGClipConfig,
}
FGCLIP_SOURCES = ("clip", "fgclip")  # start the first FG-CLIP; the others FG-CLIP 2

# What SigLIP 2 and CLIP have none of.
LONG_TABLES = tuple(f"text_model.embeddings.position_embedding_{table}.weight" for table in ("ori", "res"))
NEW_HEADS = (
    *("longtext_head.", "boxtext_head.", "dense_feature_head."),
    *("text_filip_projection.", "logit_scale_finegraind", "logit_scale_hardneg"),
)

PATCH_WEIGHT = "vision_model.embeddings.patch_embedding.weight"
POSITION_GRID = "vision_model.embeddings.position_embedding.weight"

WEIGHT_DTYPES = {"F64", "F32", "F16", "BF16"}
PROCESSOR_FILES = ["*.json", "spiece.model", "merges.txt"]
WEIGHT_FILES = [WEIGHTS, INDEX, "model-*.safetensors"]

Shapes = dict[str, tuple[int, ...]]


def local_folder(source: str | os.PathLike, revision: str | None, patterns: list[str]) -> Path:
    """Return the folder itself, or that of the hub's cache, with the files of these patterns fetched into it."""
    if Path(source).is_dir():
        return Path(source)
    try:
        located, hub_arguments = locate_checkpoint(source, revision=revision)
        if Path(located).is_dir():  # that of ModelScope
            return Path(located)
        return Path(snapshot_download(located, allow_patterns=patterns, **hub_arguments))
    except (OSError, ValueError) as error:  # the hub's errors are of both kinds
        raise ValueError(f"{source} is no folder, and on the hub: {' '.join(str(error).split())}") from error


def stored_config(folder: Path) -> tuple[str, Any]:
    """Return the source's `model_type`, and its configuration with the defaults of that type filled in."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    content = read_json_object(path)
    kind = content.get("model_type")
    if kind in FGCLIP_SOURCES:
        kind = read_model_type(folder)  # official folders of FG-CLIP call themselves CLIP
    if kind not in SOURCE_CONFIGS:
        raise ValueError(f"{path}: model_type is {kind!r}; allowed: {', '.join(map(repr, SOURCE_CONFIGS))}")
    towers = {name: content.get(name, {}) for name in ("text_config", "vision_config")}
    for name, tower in towers.items():
        if not isinstance(tower, dict):
            raise ValueError(f"{path}: {name} is {tower!r:.80}; allowed: an object")
    try:
        if kind in FGCLIP_SOURCES:
            return kind, SOURCE_CONFIGS[kind].from_dict(content)
        # Not from_pretrained, which warns of the class's own default ids.
        stored = SOURCE_CONFIGS[kind](**towers)
    except StrictDataclassError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if not getattr(stored.vision_config, "vision_use_head", True):
        raise ValueError(f"{path}: vision_config.vision_use_head is false; allowed: a model with its pooling head")
    if math.isqrt(source_patches(stored)) ** 2 != source_patches(stored):
        raise ValueError(f"{path}: vision_config.num_patches is {source_patches(stored)}; allowed: a square number")
    return kind, stored


def source_patches(stored: Any) -> int:
    """Return the number of entries of the source's position grid."""
    vision = stored.vision_config
    if hasattr(vision, "num_patches"):
        return vision.num_patches
    return (side_of(vision, "image_size") // side_of(vision, "patch_size")) ** 2


def side_of(vision_config: Any, name: str) -> int:
    value = getattr(vision_config, name)
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1:
        raise ValueError(f"vision_config.{name} is {value}; allowed: squares")
    return sides.pop()


def is_new(name: str, kind: str) -> bool:
    """Tell if the source has no such tensor, so that it is made from others."""
    return kind not in ("fgclip2", "fgclip") and (name in LONG_TABLES or name.startswith(NEW_HEADS))


def image_processor(folder: Path, patch_size: int) -> FGClip2ImageProcessor:
    """Keep of another model's image processor the normalisation alone: the weights know no other."""
    stored: dict[str, Any] = {}
    for name in ("processor_config.json", "preprocessor_config.json"):
        if not stored and (folder / name).is_file():
            content = read_json_object(folder / name)
            stored = content.get("image_processor", content if name.startswith("pre") else {})
    if stored.get("image_processor_type") != FGClip2ImageProcessor.__name__:
        stored = {name: stored[name] for name in ("image_mean", "image_std") if name in stored}
    return FGClip2ImageProcessor.from_dict({**stored, "patch_size": patch_size})


def load_fgclip(folder: Path, config: FGClipConfig, kind: str) -> tuple[FGClipModel, list[str]]:
    """Build a model of the first FG-CLIP and fill it; as [`load_model`], but that nothing has another shape."""
    with torch.device("meta"):
        model = FGClipModel(config).float()
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if not is_new(name, kind)}
    return model, _fill(model, folder, expected, lambda name, tensor: tensor)


def load_model(folder: Path, config: FGClip2Config, kind: str, stored_patches: int) -> tuple[FGClip2Model, list[str]]:
    """Build a model and fill it tensor by tensor; what the source does not have stays as the memory was.

    Args:
        stored_patches: Entries of the source's position grid, which is resized if `config` has another number.

    Returns:
        The model, and names of tensors that it has no place for: the scales of the losses of a training checkpoint.
    """
    with torch.device("meta"):
        model = FGClip2Model(config).float()
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if not is_new(name, kind)}
    vision = config.vision_config
    expected[POSITION_GRID] = (stored_patches, vision.hidden_size)
    if kind == "siglip":
        expected[PATCH_WEIGHT] = (vision.hidden_size, vision.num_channels, vision.patch_size, vision.patch_size)
    return model, _fill(model, folder, expected, lambda name, tensor: _refit(name, tensor, vision.num_patches))


@torch.no_grad()
def _fill(model: PreTrainedModel, folder: Path, expected: Shapes, refit: Callable[[str, Tensor], Tensor]) -> list[str]:
    """Fill a model without memory by the expected tensors, each refitted; return names of what has no place in it."""
    # That of the class: an instance also has what each of its towers ignores of a whole checkpoint.
    files, left_out = _find_tensors(folder, expected, type(model)._keys_to_ignore_on_load_unexpected or ())
    model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        if name in files:
            # Opened anew each time: what was read of an open file stays in memory until it is closed.
            with safe_open(files[name], framework="pt") as tensors:
                tensor = tensors.get_tensor(name)
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"{folder} has weights that are not finite, e.g. {name}: it is damaged, get it again")
            parameter.copy_(refit(name, tensor))
    model.eval()
    return left_out


def _refit(name: str, tensor: Tensor, num_patches: int) -> Tensor:
    """Bring the two tensors that may have another layout into that of the NaFlex model."""
    if name == PATCH_WEIGHT and tensor.ndim == 4:
        return tensor.permute(0, 2, 3, 1).flatten(1)  # (D, C, P, P) -> (D, P P C), as patches are flattened
    if name == POSITION_GRID and len(tensor) != num_patches:
        side, new_side = math.isqrt(len(tensor)), math.isqrt(num_patches)
        grid = tensor.float().unflatten(0, (side, side))
        return resize_position_grid(grid, new_side, new_side)  # as the model does it for an image of that grid
    return tensor


def _find_tensors(folder: Path, expected: Shapes, ignored: Iterable[str]) -> tuple[dict[str, Path], list[str]]:
    """Find the file of each expected tensor by the headers alone, and what else the files hold that may be ignored.

    Raises:
        ValueError: A tensor is missing, unknown, or of another shape or dtype; the first few are named.
    """
    try:
        headers = read_headers(find_weights(folder))
    except OSError as error:
        raise ValueError(str(error)) from error
    left_out = sorted(name for name in headers if any(re.search(pattern, name) for pattern in ignored))
    for name in left_out:
        del headers[name]
    for name, (path, info) in headers.items():
        if info.dtype not in WEIGHT_DTYPES:
            allowed = ", ".join(sorted(WEIGHT_DTYPES))
            raise ValueError(f"{path}: {name} has the dtype {info.dtype}; allowed: {allowed}")
    wrong = differences({name: info.shape for name, (_, info) in headers.items()}, expected)
    if wrong:
        raise ValueError(f"{folder} has {len(wrong)} tensors that don't fit its config: {'; '.join(wrong[:3])}")
    return {name: headers[name][0] for name in expected}, left_out
