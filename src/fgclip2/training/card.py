"""The card of an adapter or of a trained checkpoint: what it was made of, without paths of this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from string import Template

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from torch import nn

from ..assets import embedded_checkpoint

_CARD = Template("""---
license: $license
language: $languages
library_name: $library
${base_model}pipeline_tag: zero-shot-image-classification
tags: $tags
---

# $name

[中文](#中文)

$what of $about, trained with the package `fgclip2`.

- Base model: $base
- Data: $data
- Licence of the weights: $license
- Languages: $language_names

```python
from fgclip2 import Embedder

embedder = Embedder.from_pretrained(".")  # this folder, or its name on the hub
vectors = embedder.encode_texts($texts)
```

## 中文

$about_zh的$what_zh，用软件包 `fgclip2` 训练。

- 基础模型：$base_zh
- 数据：$data_zh
- 权重许可：$license
- 语言：$language_names_zh

```python
from fgclip2 import Embedder

embedder = Embedder.from_pretrained(".")  # 本文件夹，或它在 hub 上的名称
vectors = embedder.encode_texts($texts)
```
""")

# What the card of one family says, and that of another does not, by model type.
_OF_FAMILY = {
    "fgclip2": {
        "license": "apache-2.0",
        "languages": "[en, zh]",
        "tags": "[fgclip2, $tag, bilingual]",
        "about": "FG-CLIP 2, a bilingual image-text model",
        "about_zh": "中英双语图文模型 FG-CLIP 2 ",
        "language_names": "English and Chinese",
        "language_names_zh": "英语和中文",
        "texts": '["a brown dog", "一只棕色的狗"]',
    },
    "fgclip": {
        "license": "apache-2.0",
        "languages": "[en]",
        "tags": "[fgclip, $tag]",
        "about": "FG-CLIP, the first version, an image-text model",
        "about_zh": "图文模型 FG-CLIP 第一版",
        "language_names": "English",
        "language_names_zh": "英语",
        "texts": '["a brown dog", "two cats"]',
    },
    "r2d2": {
        "license": "unknown",  # as the hub calls what nobody has named
        "languages": "[zh]",
        "tags": "[r2d2, $tag]",
        "about": "R2D2, a Chinese image-text model that ranks in two stages",
        "about_zh": "分两步排序的中文图文模型 R2D2 ",
        "language_names": "Chinese",
        "language_names_zh": "中文",
        "texts": '["一只棕色的狗", "两只猫"]',
    },
}


def is_hub_id(name: str) -> bool:
    """Return whether a checkpoint's name means the same on other machines: an id of the hub, and no folder here."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name and not Path(name).exists()


def base_name(model: nn.Module) -> str | None:
    """Return name or path of the checkpoint that a model, or the base of an adapter, was loaded from."""
    for config in getattr(model, "peft_config", {}).values():
        if config.base_model_name_or_path:
            return config.base_model_name_or_path
    return getattr(getattr(model, "config", None), "_name_or_path", None)


def check_base_is_public(model: nn.Module) -> None:
    """Make sure that others can load an adapter.

    Raises:
        ValueError: The base model is a folder of this machine.
    """
    base = base_name(model)
    if not base or not is_hub_id(base):
        raise ValueError(
            f"adapter_config.json would name the base model {base!r}, which is no id of the hub: nobody else could "
            "load the adapter. Start from the id, or publish the merged model (fgclip2 export OUT --model ADAPTER)"
        )


def write_card(
    folder: str | os.PathLike,
    base: str | None,
    is_adapter: bool,
    data: Sequence[str] = (),
    license: str | None = None,
    model_type: str = "fgclip2",
) -> None:
    """Write README.md into a folder, unless it has one.

    Args:
        folder: Folder of the adapter or checkpoint, whose name is the title.
        base: Name of the model that the training started from. Of a folder of this machine, only its own name is told.
        is_adapter: Whether the folder holds an adapter or a whole checkpoint.
        data: Names or paths of the data sets; of paths the last part is told.
        license: Licence of the weights, an identifier of the hub; `None`: that of the family's published weights.
        model_type: Family of the model, as in its config.json.
    """
    readme = Path(folder) / "README.md"
    if readme.exists():
        return
    names = ", ".join(f"`{Path(name).name}`" for name in data)
    if base and is_hub_id(base):
        base_text = base_zh = f"`{base}`"
    elif base and Path(base).resolve() == Path(embedded_checkpoint()).resolve():
        base_text, base_zh = "the checkpoint inside the package `fgclip2`", "软件包 `fgclip2` 内置的检查点"
    elif base:
        base_text, base_zh = f"a checkpoint in a folder `{Path(base).name}`", f"文件夹 `{Path(base).name}` 中的检查点"
    else:
        base_text, base_zh = "not stated", "未注明"
    facts = _OF_FAMILY[model_type] | ({} if license is None else {"license": license})
    text = Template(_CARD.safe_substitute(facts)).substitute(
        name=Path(folder).absolute().name,
        library="peft" if is_adapter else "transformers",
        tag="lora" if is_adapter else "clip",
        base_model=f"base_model: {base}\n" if base and is_hub_id(base) else "",
        what="An adapter (LoRA)" if is_adapter else "A checkpoint",
        what_zh="适配器（LoRA）" if is_adapter else "检查点",
        base=base_text,
        base_zh=base_zh,
        data=names or "not stated",
        data_zh=names or "未注明",
    )
    readme.write_text(text, encoding="utf-8")
