"""Starting weights, as the released scripts make them: of FG-CLIP 2 from SigLIP 2, of the first FG-CLIP from CLIP.

FG-CLIP 2 may also start from itself or from no weights, FG-CLIP from itself.
"""

from __future__ import annotations

import copy
import inspect
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers.models import Unigram
from torch import Tensor
from transformers.activations import ACT2FN
from transformers.configuration_utils import PretrainedConfig

from ..checks import check_choice, check_positive_integer, is_number, one_of
from ..files import new_folder, read_json
from ..modeling.configuration_fgclip import FGClipConfig
from ..modeling.configuration_fgclip2 import PRESETS, FGClip2Config, FGClip2TextConfig, FGClip2VisionConfig
from ..modeling.image_processing_fgclip2 import FGClip2ImageProcessor
from ..modeling.modeling_fgclip import FGClipModel
from ..modeling.modeling_fgclip2 import FGClip2Model
from ..modeling.processing_fgclip import FGClipProcessor
from ..modeling.processing_fgclip2 import FGClip2Processor
from ..modeling.text_tokenizer import TextTokenizer
from ..modeling.tokenization_fgclip2 import FGClip2Tokenizer
from ..tokenization.train_tokenizer import TextFiles, train_tokenizer
from .source_checkpoint import (
    FGCLIP_SOURCES,
    LONG_TABLES,
    POSITION_GRID,
    PROCESSOR_FILES,
    WEIGHT_FILES,
    image_processor,
    is_new,
    load_fgclip,
    load_model,
    local_folder,
    side_of,
    source_patches,
    stored_config,
)

STRETCH = 4
KEPT_ROWS = 20  # whatever config.keep_len says, as in the released script

# The size of the checkpoint inside this package: for trials on a CPU.
TINY_TEXT = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_VISION = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 6}

TOWER_FIELDS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps", "attention_dropout"),
)


@dataclass(frozen=True)
class StartWeights:
    """A model to train, and where its weights come from.

    Attributes:
        model: In float32, on the CPU, in evaluation mode.
        processor: With the source's tokenizer.
        kind: `"siglip"`, `"siglip2"`, `"fgclip2"` or `"scratch"` of FG-CLIP 2; `"clip"` or `"fgclip"` of FG-CLIP.
        parameters: Numbers of parameters by origin: `copied`, `resized` (position grid of the vision tower),
            `stretched` (long position tables), `copied_heads`, `random`.
        left_out: Tensors of the source that the model has no place for.
    """

    model: FGClip2Model | FGClipModel
    processor: FGClip2Processor | FGClipProcessor
    kind: str
    parameters: dict[str, int]
    left_out: list[str]

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write model and processor."""
        # In shards, for older releases of safetensors hold one once more in memory while they write it.
        self.model.save_pretrained(folder, max_shard_size="2GB")
        self.processor.save_pretrained(folder)

    def describe(self) -> dict[str, Any]:
        """Return numbers and texts that can be written as JSON."""
        total, config = sum(self.parameters.values()), self.model.config
        return {
            "kind": self.kind,
            "parameters": {**self.parameters, "total": total},
            "bytes": 4 * total,
            "left_out": self.left_out,
            "vocabulary": config.text_config.vocab_size,
            "position_grid": source_patches(config),
            "text_lengths": [self.processor.tokenizer.short_length, self.processor.tokenizer.long_length],
        }


# ---------------------------------------------------------------------------------------------------------------------
# What the released scripts do with a model of SigLIP 2 or CLIP
# ---------------------------------------------------------------------------------------------------------------------


def stretch_position_embedding(table: Tensor, keep_len: int = KEPT_ROWS) -> Tensor:
    """Stretch a position table to longer texts: leading rows stay, the others are interpolated to four times as many.

    Args:
        table: Float, shape (N, D).
        keep_len: Leading rows that are copied; at least two rows in all, and one to stretch.

    Returns:
        Shape (4 N - 3 keep_len, D): 196 rows from 64. The last steps continue the slope of the last two rows.

    Raises:
        ValueError: The table has too few rows.
    """
    if len(table) < max(2, keep_len + 1):
        raise ValueError(f"the position table must have at least {max(2, keep_len + 1)} rows, got {len(table)}")
    kept, rest = table[:keep_len], table[keep_len:]
    slopes = torch.cat([rest[1:] - rest[:-1], table[-1:] - table[-2:-1]])  # (R, D)
    steps = torch.arange(STRETCH, device=table.device, dtype=table.dtype) / STRETCH
    stretched = rest[:, None] + steps[:, None] * slopes[:, None]  # (R, 4, D)
    return torch.cat([kept, stretched.flatten(0, 1)])


@torch.no_grad()
def initialize_long_positions(model: FGClip2Model | FGClipModel) -> None:
    """Make, in place, both long position tables the stretched short one.

    Raises:
        ValueError: The stretched table does not have the model's `longtext_len` rows.
    """
    embeddings = model.text_model.embeddings
    stretched = stretch_position_embedding(embeddings.position_embedding.weight)
    if stretched.shape != embeddings.position_embedding_ori.weight.shape:
        raise ValueError(
            f"{len(embeddings.position_embedding.weight)} short positions stretch to {len(stretched)} long ones, but "
            f"text_config.longtext_len is {len(embeddings.position_embedding_ori.weight)}"
        )
    embeddings.position_embedding_ori.weight.copy_(stretched)
    embeddings.position_embedding_res.weight.copy_(stretched)


@torch.no_grad()
def initialize_heads_from_siglip2(model: FGClip2Model) -> None:
    """Fill, in place, what SigLIP 2 does not have from what it has.

    The long position tables become the stretched short one, the long and box heads the short text head, and the dense
    head the vision tower's pooling head.

    Raises:
        ValueError: As [`initialize_long_positions`].
    """
    initialize_long_positions(model)
    for head in (model.longtext_head, model.boxtext_head):
        head.load_state_dict(model.text_model.head.state_dict())
    model.dense_feature_head.load_state_dict(model.vision_model.head.state_dict())


@torch.no_grad()
def initialize_heads_from_clip(model: FGClipModel) -> None:
    """Fill, in place, what CLIP does not have from what it has.

    The long position tables become the stretched short one, the head of long texts that of short ones, and the scales
    of regions and hard negatives that of images.

    Raises:
        ValueError: As [`initialize_long_positions`].
    """
    initialize_long_positions(model)
    model.text_filip_projection.load_state_dict(model.text_projection.state_dict())
    for scale in (model.logit_scale_finegraind, model.logit_scale_hardneg):
        scale.copy_(model.logit_scale)


# ---------------------------------------------------------------------------------------------------------------------
# From a checkpoint
# ---------------------------------------------------------------------------------------------------------------------


def initialize_from_checkpoint(
    source: str | os.PathLike,
    num_patches: int | None = None,
    tokenizer: FGClip2Tokenizer | str | os.PathLike | None = None,
    revision: str | None = None,
) -> StartWeights:
    """Start from a checkpoint: FG-CLIP 2 from SigLIP 2, NaFlex or of fixed resolution, or from FG-CLIP 2 of any layout.

    From CLIP, or from FG-CLIP of any layout, it is the first FG-CLIP that starts.

    Short texts, and images whose grid is that of the position table, have the features that they had in the source. In
    memory are one copy of the weights and one tensor of the source.

    Args:
        source: Folder or hub id; what it holds is read from the `model_type` of its config.json.
        num_patches: Entries of the position grid, a square number (the official checkpoints have 256). `None`: as many
            as the source has, as it always is from CLIP and FG-CLIP; otherwise the grid is resized as for an image of
            so many patches.
        tokenizer: Tokenizer, its folder or its tokenizer.json, in place of the source's own; not of CLIP and FG-CLIP.
        revision: Branch, tag or commit on the hub.

    Raises:
        ValueError: The source is neither a folder nor a hub id, or another kind of model; its weights are pickled, cut
            short, or don't fit its configuration; or its tokenizer doesn't fit, or can't spell Chinese.

    Example:
        >>> start = initialize_from_checkpoint("google/siglip2-base-patch16-naflex")
        >>> start.model.save_pretrained("start"), start.processor.save_pretrained("start")
    """
    folder = local_folder(source, revision, PROCESSOR_FILES)
    kind, stored = stored_config(folder)
    if kind in FGCLIP_SOURCES:
        for name, value in (("num_patches", num_patches), ("tokenizer", tokenizer)):
            if value is not None:
                raise ValueError(f"`{name}` must be None for a checkpoint of {kind}, which keeps its own: leave it out")
        return _start_fgclip(local_folder(source, revision, WEIGHT_FILES), kind, stored)
    stored_patches = source_patches(stored)
    config = _fgclip2_config(stored, stored_patches if num_patches is None else num_patches)
    chosen = _load_tokenizer(folder if tokenizer is None else tokenizer, config)
    _check_vocabulary(chosen, config.text_config.vocab_size)
    # SigLIP 1, whose vocabularies are of another kind than SigLIP 2's, was trained on texts without punctuation.
    is_unigram = isinstance(chosen.backend_tokenizer.model, Unigram)
    if kind != "fgclip2" and is_unigram and chosen.tokenize("a cat, a dog.") != chosen.tokenize("a cat a dog"):
        raise ValueError(
            "the tokenizer keeps punctuation, without which SigLIP 1's texts were tokenized: take a SigLIP 2 "
            "checkpoint, or a tokenizer.json that drops punctuation"
        )
    _name_special_ids(config, chosen)
    folder = local_folder(source, revision, WEIGHT_FILES)
    model, left_out = load_model(folder, config, kind, stored_patches)
    if kind != "fgclip2":
        initialize_heads_from_siglip2(model)
    resized = config.vision_config.num_patches != stored_patches
    processor = FGClip2Processor(image_processor(folder, config.vision_config.patch_size), chosen)
    counts = _count_parameters(model, partial(_origin, kind, resized=resized))
    return StartWeights(model, processor, kind, counts, left_out)


def _start_fgclip(folder: Path, kind: str, stored: Any) -> StartWeights:
    """Start the first FG-CLIP from a folder of CLIP, or from one of its own."""
    config = _fgclip_config(stored) if kind == "clip" else stored
    processor = FGClipProcessor.from_pretrained(folder)
    _check_entries(processor.tokenizer, config.text_config.vocab_size)
    _name_special_ids(config, processor.tokenizer)
    model, left_out = load_fgclip(folder, config, kind)
    if kind == "clip":
        initialize_heads_from_clip(model)
    return StartWeights(model, processor, kind, _count_parameters(model, partial(_origin, kind)), left_out)


def _fgclip_config(stored: Any) -> FGClipConfig:
    """Return the sizes of a CLIP as a configuration of FG-CLIP; special tokens come from the tokenizer later."""
    text, vision = stored.text_config, stored.vision_config
    rows = text.max_position_embeddings
    text_fields = {name: getattr(text, name) for name in (*TOWER_FIELDS, "vocab_size", "max_position_embeddings")}
    vision_fields = {name: getattr(vision, name) for name in (*TOWER_FIELDS, "num_channels")}
    sides = {name: side_of(vision, name) for name in ("image_size", "patch_size")}
    return FGClipConfig(
        text_config={**text_fields, "longtext_len": _stretched_rows(rows), "keep_len": KEPT_ROWS},
        vision_config={**vision_fields, **sides},
        projection_dim=stored.projection_dim,
        logit_scale_init_value=stored.logit_scale_init_value,
    )


def _stretched_rows(rows: int) -> int:
    """Return how many rows [`stretch_position_embedding`] makes of so many."""
    if rows <= KEPT_ROWS:
        raise ValueError(f"text_config.max_position_embeddings must be at least {KEPT_ROWS + 1}, got {rows}")
    return STRETCH * rows - (STRETCH - 1) * KEPT_ROWS


def _origin(kind: str, name: str, resized: bool = False) -> str:
    """Return where a parameter comes from, as [`StartWeights`] counts it."""
    if is_new(name, kind):
        return "stretched" if name in LONG_TABLES else "copied_heads"
    return "resized" if resized and name == POSITION_GRID else "copied"


def _count_parameters(model: FGClip2Model | FGClipModel, origin: Callable[[str], str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[origin(name)] += parameter.numel()
    return dict(counts)


def _fgclip2_config(stored: Any, num_patches: int) -> FGClip2Config:
    """Return the sizes of a source as an FG-CLIP 2 configuration; special tokens come from the tokenizer later.

    SigLIP's configurations name none of their own: the ids there are defaults of the class, and other tokens' ids.
    """
    if num_patches < 1 or math.isqrt(num_patches) ** 2 != num_patches:
        raise ValueError(f"`num_patches` must be a square number, such as 256, got {num_patches}")
    text, vision = stored.text_config, stored.vision_config
    rows = text.max_position_embeddings
    stretched = _stretched_rows(rows)
    text_fields = {name: getattr(text, name) for name in (*TOWER_FIELDS, "vocab_size", "projection_size")}
    vision_fields = {name: getattr(vision, name) for name in (*TOWER_FIELDS, "num_channels")}
    return FGClip2Config(
        text_config={
            **text_fields,
            "max_position_embeddings": rows,
            "longtext_len": getattr(text, "longtext_len", stretched),
            "keep_len": getattr(text, "keep_len", KEPT_ROWS),
        },
        vision_config={
            **vision_fields,
            "patch_size": side_of(vision, "patch_size"),
            "num_patches": num_patches,
        },
    )


def write_start_weights(
    output: str | os.PathLike,
    source: str | os.PathLike | None = None,
    *,
    config: FGClip2Config | str | None = None,
    tokenizer: FGClip2Tokenizer | str | os.PathLike | None = None,
    num_patches: int | None = None,
    revision: str | None = None,
    texts: Sequence[Path] = (),
    vocab_size: int = 32000,
    seed: int = 0,
) -> StartWeights:
    """Write a checkpoint to start training from.

    Args:
        output: New folder.
        source: Checkpoint, as in [`initialize_from_checkpoint`]; `None`: from scratch, by `config`.
        config: Sizes or preset, as in [`initialize_from_scratch`].
        tokenizer, num_patches, revision, seed: As in these two functions.
        texts: UTF-8 files, one text per line, to train a tokenizer on that is none of a source's.
        vocab_size: Largest vocabulary to train.

    Raises:
        ValueError: The folder has something in it, or what [`initialize_from_checkpoint`] or
            [`initialize_from_scratch`] refuse.
    """
    with new_folder(output) as staging:  # before the work: a taken name should not cost it
        if source is not None:
            start = initialize_from_checkpoint(source, num_patches, tokenizer, revision)
        else:
            sizes = config if isinstance(config, FGClip2Config) else preset_config(config or "")
            if tokenizer is None:
                trained = train_tokenizer(TextFiles(texts), vocab_size).backend_tokenizer
                lengths = sizes.text_config.max_position_embeddings, sizes.text_config.longtext_len
                tokenizer = FGClip2Tokenizer(tokenizer_object=trained, short_length=lengths[0], long_length=lengths[1])
            start = initialize_from_scratch(sizes, tokenizer, seed)
        start.save_pretrained(staging)
    return start


# ---------------------------------------------------------------------------------------------------------------------
# Tokenizers
# ---------------------------------------------------------------------------------------------------------------------


def _load_tokenizer(tokenizer: FGClip2Tokenizer | str | os.PathLike, config: FGClip2Config) -> FGClip2Tokenizer:
    """Load a tokenizer whose lengths are those of the text tower.

    Raises:
        ValueError: There is no tokenizer.json, or the tokenizer given as an object has other lengths.
    """
    short, long = config.text_config.max_position_embeddings, config.text_config.longtext_len
    if isinstance(tokenizer, FGClip2Tokenizer):
        if (tokenizer.short_length, tokenizer.long_length) != (short, long):
            raise ValueError(
                f"the tokenizer has the lengths {tokenizer.short_length} and {tokenizer.long_length}, but the text "
                f"tower has {short} and {long} positions: pass FGClip2Tokenizer(..., short_length, long_length)"
            )
        return tokenizer
    path = Path(tokenizer)
    if path.is_file():
        return FGClip2Tokenizer(tokenizer_file=str(path), short_length=short, long_length=long)
    if not (path / "tokenizer.json").is_file():
        reason = (
            "; its spiece.model is SigLIP 1's vocabulary, which FGClip2Tokenizer can't read"
            if (path / "spiece.model").is_file()
            else ""
        )
        raise ValueError(f"{path} has no tokenizer.json{reason}: pass a tokenizer of the vocabulary of these weights")
    return FGClip2Tokenizer.from_pretrained(path, short_length=short, long_length=long)


def _vocabulary_size(tokenizer: TextTokenizer) -> int:
    return max(tokenizer.get_vocab().values()) + 1


def _check_entries(tokenizer: TextTokenizer, vocab_size: int) -> None:
    entries = _vocabulary_size(tokenizer)
    if entries > vocab_size:
        raise ValueError(f"the tokenizer has {entries} entries, but text_config.vocab_size is {vocab_size}")


def _check_vocabulary(tokenizer: FGClip2Tokenizer, vocab_size: int) -> None:
    """Refuse a tokenizer whose ids can't be those that the weights were trained with, or that can't spell Chinese."""
    _check_entries(tokenizer, vocab_size)
    for text in ("a black cat", "一只黑猫"):
        if tokenizer.unk_token_id in tokenizer.encode(text):
            raise ValueError(
                f"the tokenizer can't spell {text!r}: {tokenizer.tokenize(text)}. The English vocabulary of SigLIP 1 "
                "can't: take Gemma's, which SigLIP 2 and FG-CLIP 2 have, or another of both languages"
            )


def _name_special_ids(config: FGClip2Config | FGClipConfig, tokenizer: TextTokenizer) -> None:
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config.text_config, name, getattr(tokenizer, name))


# ---------------------------------------------------------------------------------------------------------------------
# From scratch
# ---------------------------------------------------------------------------------------------------------------------


def initialize_from_scratch(
    config: FGClip2Config | str, tokenizer: FGClip2Tokenizer | str | os.PathLike, seed: int = 0
) -> StartWeights:
    """Start from random weights; the same seed gives the same weights.

    Args:
        config: Sizes, from [`read_sizes`] or of your own, or the name of a preset: `"tiny"` (as the checkpoint inside
            this package), `"base"`, `"large"` or `"so400m"`. The size of the vocabulary and the special tokens are
            taken from the tokenizer.
        tokenizer: Tokenizer, its folder or its tokenizer.json.
        seed: Seed of the weights; the random state outside stays as it is.

    Raises:
        ValueError: An unknown preset, sizes that don't fit each other, or no tokenizer.
    """
    config = preset_config(config) if isinstance(config, str) else copy.deepcopy(config)
    chosen = _load_tokenizer(tokenizer, config)
    config.text_config.vocab_size = _vocabulary_size(chosen)
    _check_vocabulary(chosen, config.text_config.vocab_size)
    _name_special_ids(config, chosen)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = FGClip2Model(config).float().eval()
    processor = FGClip2Processor(FGClip2ImageProcessor(patch_size=config.vision_config.patch_size), chosen)
    return StartWeights(model, processor, "scratch", _count_parameters(model, lambda name: "random"), [])


def preset_config(name: str) -> FGClip2Config:
    """Return the configuration of a preset, `"tiny"` included.

    Raises:
        ValueError: `name` is no preset.
    """
    if name == "tiny":
        text = {**TINY_TEXT, "projection_size": TINY_VISION["hidden_size"]}
        return FGClip2Config(text_config=text, vision_config={**TINY_VISION, "num_patches": 64})
    if name not in PRESETS:
        raise ValueError(f"`preset` must be {one_of(('tiny', *PRESETS))}, got {name!r}")
    return FGClip2Config.from_preset(name)


def read_sizes(path: str | os.PathLike) -> FGClip2Config:
    """Read the sizes of a model from a JSON file with `text_config` and `vision_config`, as in a config.json.

    Fields left out are those of the base checkpoint, but for `projection_size`: the width of the vision tower.

    Raises:
        ValueError: The file is no such JSON, or has an unknown field, or a size that is no positive integer.
    """
    path = Path(path)
    content = read_json(path)
    _check_fields(f"{path}: ", content, FGClip2Config)
    text, vision = content.get("text_config", {}), content.get("vision_config", {})
    _check_fields(f"{path}: text_config.", text, FGClip2TextConfig)
    _check_fields(f"{path}: vision_config.", vision, FGClip2VisionConfig)
    width = FGClip2VisionConfig(**vision).hidden_size
    return FGClip2Config(text_config={"projection_size": width, **text}, vision_config=vision)


def _check_fields(where: str, sizes: Any, config_class: type[PretrainedConfig]) -> None:
    if not isinstance(sizes, dict):
        raise ValueError(f"{where.rstrip('.')} must be an object of sizes, got {sizes!r:.80}")
    parameters = inspect.signature(config_class.__init__).parameters.values()
    own = {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
    ignored = config_class().to_dict()  # what a config.json has besides
    for name, value in sizes.items():
        if name.endswith("_token_id"):
            continue  # the tokenizer's are taken
        if name not in own and name not in ignored:
            raise ValueError(f"{where}{name} is no field; there are {', '.join(own)}")
        if type(own.get(name)) is int:
            check_positive_integer(f"{where}{name}", value)
        if type(own.get(name)) is float and not is_number(value):
            raise ValueError(f"{where}{name} must be a number, got {value!r}")
        if name == "hidden_act":
            check_choice(f"{where}{name}", value, ACT2FN)
