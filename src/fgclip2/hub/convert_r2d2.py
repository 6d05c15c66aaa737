"""From a released R2D2 checkpoint, which is a pickle, to a folder of safetensors."""

import os
import zipfile
from collections import Counter
from pathlib import Path
from string import Template
from typing import Any

import torch
from huggingface_hub import ModelCardData
from safetensors.torch import save_file
from torch import Tensor

from ..files import new_folder, printable, read_json
from ..modeling.configuration_r2d2 import PRESETS, R2D2Config
from ..modeling.image_processing_r2d2 import R2D2ImageProcessor
from ..modeling.modeling_r2d2 import R2D2Model
from ..modeling.processing_r2d2 import R2D2Processor
from ..modeling.tokenization_r2d2 import R2D2Tokenizer
from ..modeling.weights import WEIGHTS, check_finite, differences, shapes_of
from .card import UNKNOWN

# Before it, a pickle could corrupt memory in spite of `weights_only` (CVE-2026-24747).
SAFE_TORCH = "2.10"

_CARD = Template("""---
$front_matter
---

# $name

R2D2 ([arXiv 2205.03860](https://arxiv.org/abs/2205.03860)), converted from the pickle `$source` by `fgclip2 convert`.
It loads by `fgclip2.R2D2Model` and `fgclip2.R2D2Processor`. Under which licence the weights are is unknown: their
authors' repository does not say.

R2D2（[arXiv 2205.03860](https://arxiv.org/abs/2205.03860)），由 `fgclip2 convert` 从 pickle 文件
`$source` 转换而来，用 `fgclip2.R2D2Model` 和 `fgclip2.R2D2Processor` 加载。
权重采用什么许可未知：作者的仓库没有说明。

Tensors of that file that the model does not need, and that were left out ($count):

该文件中模型不需要、因而没有保留的张量（$count）：

$left_out
""")


def convert_r2d2(
    source: str | os.PathLike,
    output: str | os.PathLike,
    vocabulary: str | os.PathLike,
    config: R2D2Config | str | os.PathLike | None = None,
) -> list[str]:
    """Read a released checkpoint of R2D2 once, and write what [`R2D2Model`] and [`R2D2Processor`] load.

    The file is a pickle. It is read by `weights_only` of torch 2.10 or newer, which makes tensors and plain containers
    of it and runs nothing. The new folder has the weights under the official names, and a card that calls their licence
    unknown.

    Args:
        source: File that `torch.save` wrote: the weights, alone or under `"model"`. It stays as it is.
        output: Folder to write; new or empty. It appears when it is complete, or not at all.
        vocabulary: BERT's `vocab.txt`, or a `tokenizer.json`, that the model was trained with.
        config: Name of a preset (`"base"`, `"large"`, `"prd2"`), path of a config.json, or a configuration; `None`: the
            preset of the sizes in the file. Other sizes need one, for numbers of heads can't be seen in weights.

    Returns:
        Names of the tensors in the file that the model does not need, sorted; the card lists them too.

    Raises:
        ValueError: The file is no such pickle, lacks weights, has others than the configuration says or values that are
            not finite; the vocabulary is broken or another than the model's; or `output` has something in it.
        OSError: A file is not there.
        ImportError: torch is older than 2.10, which does not read pickles safely.
    """
    source = Path(source)
    weights = read_weights(source)
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    chosen = preset_of(found, source) if config is None else read_config(config)
    expected = shapes_of(lambda: R2D2Model(chosen))
    wrong = differences({name: shape for name, shape in found.items() if name in expected}, expected)
    if wrong:
        raise ValueError(f"{source} has {len(wrong)} tensors that don't fit the configuration: {'; '.join(wrong[:3])}")
    needed = with_own_memory({name: weights[name] for name in expected}, source)
    check_finite(needed.items(), source)
    left_out = sorted(found.keys() - expected.keys())
    tokenizer = read_tokenizer(Path(vocabulary), chosen)
    processor = R2D2Processor(R2D2ImageProcessor(size=chosen.vision_config.image_size), tokenizer)
    chosen.architectures = [R2D2Model.__name__]
    with new_folder(output) as staging:
        chosen.save_pretrained(staging)
        processor.save_pretrained(staging)
        save_file(needed, staging / WEIGHTS, {"format": "pt"})
        data = ModelCardData(license=UNKNOWN, language=["zh"], library_name="fgclip2", tags=["r2d2"])
        card = _CARD.substitute(
            front_matter=data.to_yaml(),
            name=Path(output).absolute().name,
            source=shown_as_code(source.name),
            count=len(left_out),
            left_out="\n".join(f"- `{shown_as_code(name)}`" for name in left_out) or "-",
        )
        (staging / "README.md").write_text(card, encoding="utf-8")
    return left_out


def shown_as_code(name: str) -> str:
    """Return a name from outside as it can stand between two backticks of a card."""
    return printable(name).replace("`", "'")


def read_weights(source: Path) -> dict[str, Tensor]:
    """Return the tensors by their names, as they lie in the file."""
    if torch.__version__ < SAFE_TORCH:
        raise ImportError(
            f"pickles are read by torch {SAFE_TORCH} or newer (CVE-2026-24747), this is {torch.__version__}: upgrade"
        )
    try:
        # Mapped into memory where the format allows it: beside the weights there may be an optimizer's state.
        content: Any = torch.load(source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source))
    except OSError:
        raise
    except Exception as error:  # bytes that are no pickle end in errors of any kind
        # Without torch's message, which advises to read the file unsafely.
        raise ValueError(why_unreadable(source)) from error
    weights = content.get("model", content) if isinstance(content, dict) else None
    named = weights.items() if isinstance(weights, dict) else ()
    tensors = {name: value for name, value in named if torch.is_tensor(value) and not value.is_nested}
    if not tensors:
        raise ValueError(f"{source} must have tensors by their names, alone or under 'model', got none")
    for name in tensors:
        if not isinstance(name, str):
            raise ValueError(f"{source} must have tensors by their names, got one by {name!r:.80}")
    return tensors


def why_unreadable(source: Path) -> str:
    """Return what is wrong with a file that torch does not read as weights alone."""
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(source)
    except Exception:  # no zip file, or a broken one
        unsafe = []
    if unsafe:
        names = ", ".join(map(printable, sorted(unsafe)[:3]))
        return (
            f"{source} has objects other than tensors and plain containers ({names}), which may run code when loaded, "
            "and is not read"
        )
    return f"{source} is damaged, or no file of torch.save (an HTML page that a download service gave in its place?)"


def with_own_memory(weights: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return weights as safetensors takes them: dense real numbers, none in the memory of another."""
    for name, tensor in weights.items():
        if tensor.layout != torch.strided or not tensor.is_floating_point() or tensor.device.type != "cpu":
            raise ValueError(
                f"{source}: {name} must be a dense tensor of floating-point numbers, got {tensor.dtype}, "
                f"{tensor.layout}, on {tensor.device}"
            )
    users = Counter(tensor.untyped_storage().data_ptr() for tensor in weights.values())
    return {
        name: (tensor.clone() if users[tensor.untyped_storage().data_ptr()] > 1 else tensor).contiguous()
        for name, tensor in weights.items()
    }


def preset_of(found: dict[str, tuple[int, ...]], source: Path) -> R2D2Config:
    """Return the preset whose widths and cross encoders a file has."""
    patches = found.get("visual_encoder.embeddings.patch_embedding.weight")
    has_cross_encoders = any(name.startswith("text_joint_layer.") for name in found)
    for name in PRESETS:
        config = R2D2Config.from_preset(name)
        vision = config.vision_config
        sizes = (vision.hidden_size, vision.num_channels, vision.patch_size, vision.patch_size)
        if sizes == patches and config.has_cross_encoders == has_cross_encoders:
            return config
    raise ValueError(
        f"{source} has the sizes of no preset ({', '.join(PRESETS)}), its patch embedding being {patches}: pass "
        "`config`, a config.json with its sizes and numbers of heads"
    )


def read_config(config: R2D2Config | str | os.PathLike) -> R2D2Config:
    """Return the configuration of a preset or of a file."""
    if isinstance(config, R2D2Config):
        return config
    if str(config) in PRESETS:
        return R2D2Config.from_preset(str(config))
    if not Path(config).is_file():
        known = ", ".join(PRESETS)
        raise ValueError(f"`config` must be one of {known}, or the path of a config.json, got {str(config)!r}")
    return R2D2Config.from_dict(read_json(Path(config)))


def read_tokenizer(path: Path, config: R2D2Config) -> R2D2Tokenizer:
    """Return the tokenizer of a vocabulary that the model has embeddings for."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no vocabulary {path}: give the vocab.txt that the model was trained with")
    is_whole = path.suffix == ".json"  # a tokenizer.json
    try:
        tokenizer = R2D2Tokenizer(
            tokenizer_file=str(path) if is_whole else None,
            vocab_file=None if is_whole else str(path),
            short_length=config.max_length,
        )
    except Exception as error:  # the library tokenizers has no class of its own for its errors
        raise ValueError(f"{path} is no vocabulary: {error}") from error
    rows, ids = config.text_config.vocab_size, set(tokenizer.get_vocab().values())
    if ids != set(range(rows)):
        raise ValueError(
            f"{path} has {len(ids)} tokens, up to id {max(ids)}, and the model {rows}: it is the vocabulary of another"
        )
    return tokenizer
