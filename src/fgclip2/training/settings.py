"""Settings of a run beside its arguments: which model, which data; and their file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arguments import FGClip2TrainingArguments


@dataclass
class ModelSettings:
    """What to train. The fields are options of `fgclip2 train`."""

    model: str | None = field(
        default=None, metadata={"aliases": ["-m"], "help": "Checkpoint or adapter to start from: folder or hub id"}
    )
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model on the hub"})
    lora: bool = field(default=False, metadata={"help": "Train low-rank matrices, heads and scales only (PEFT)"})
    lora_rank: int = field(default=16, metadata={"help": "Rank of the LoRA matrices"})
    lora_alpha: float = field(
        default=32.0, metadata={"help": "The LoRA matrices are multiplied by this number divided by their rank"}
    )
    lora_dropout: float = field(
        default=0.0, metadata={"help": "Dropout probability applied to the input of the LoRA layers"}
    )
    lora_target: str = field(
        default="attention_and_mlp",
        metadata={"help": "Layers with LoRA: attention_and_mlp, attention, all-linear or a pattern of names"},
    )
    lora_train_heads: bool = field(default=True, metadata={"help": "Train the heads in full, and save them"})


@dataclass
class DataSettings:
    """What to train on. With several sources, `data_format`, `images_folder` and `language` are one or one for each.

    The fields are options of `fgclip2 train`.
    """

    train_data: list[str] | None = field(
        default=None, metadata={"help": "Files or folders to train on; several are joined"}
    )
    eval_data: list[str] | None = field(
        default=None,
        metadata={"help": "Paths to evaluate on, or NAME=PATH for several sets"},
    )
    sampling_rates: list[float] | None = field(
        default=None,
        metadata={"help": "How many times an epoch takes each source, e.g. 1 0.25"},
    )
    data_format: list[str] | None = field(
        default=None,
        metadata={
            "help": "finehard, fineregion-cn, ccmb, flickr30k-cna, zero, pairs, folder or shards; "
            "by default seen from the files"
        },
    )
    images_folder: list[str] | None = field(
        default=None, metadata={"help": "Folder with the images; by default that of the records"}
    )
    eval_images_folder: list[str] | None = field(
        default=None, metadata={"help": "Folder with the images of eval_data; by default images_folder"}
    )
    language: list[str] | None = field(
        default=None, metadata={"help": "Language of all records, en or zh; by default that of each, or detected"}
    )
    image_column: str | None = field(
        default=None, metadata={"help": "Column or key of the image, in pairs; by default image, else filepath"}
    )
    short_caption_column: str | None = field(
        default=None,
        metadata={
            "help": "Column or key of short captions, in pairs; by default short_caption, else caption, else title"
        },
    )
    long_caption_column: str | None = field(
        default=None,
        metadata={"help": "Column or key of long captions, in pairs; by default long_caption, else caption"},
    )
    language_column: str | None = field(
        default=None, metadata={"help": "Column or key of languages, in pairs; by default language"}
    )
    label_column: str | None = field(
        default=None,
        metadata={"help": "Column or key of labels in pairs, 1 where image and caption match, else 0"},
    )
    follow_links: bool = field(
        default=False, metadata={"help": "Read what links in the folders of the data lead to outside them too"}
    )
    shuffle_buffer: int = field(default=1000, metadata={"help": "Samples of shards that each worker shuffles among"})


@dataclass
class RunSettings:
    """All that a run needs.

    Attributes:
        model, data: Model and data sets.
        args: Arguments of the trainer.
        changed: What differs from the defaults, as `settings.yaml` in the folder of the run keeps it.
    """

    model: ModelSettings
    data: DataSettings
    args: FGClip2TrainingArguments
    changed: dict[str, Any] = field(default_factory=dict)


_NAME = re.compile(r"[\w-]+")  # as it stands in the names of numbers: eval_NAME_loss


def split_name(source: str) -> tuple[str | None, str]:
    """Split `NAME=PATH` into name and path; the name is `None` where there is none, or the whole is a path itself."""
    name, found, path = source.partition("=")
    if not found or not _NAME.fullmatch(name) or Path(source).exists():
        return None, source
    return name, path


def join_names(paths_of: dict[str, Any]) -> list[str]:
    """Write a mapping of names to a path, or a list of paths, as `NAME=PATH`, one for each path.

    Raises:
        ValueError: A name has other characters than letters, digits, `_` and `-`.
    """
    for name in paths_of:
        if not _NAME.fullmatch(str(name)):
            raise ValueError(f"a set of `eval_data` must have a name of letters, digits, '_' and '-', got {name!r}")
    return [
        f"{name}={path}" for name, paths in paths_of.items() for path in (paths if isinstance(paths, list) else [paths])
    ]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read settings.

    Raises:
        ValueError: There is no such file, it is not YAML, no mapping, or has a key twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            keys = [key.value for key, _ in node.value]
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} given twice", node.start_mark)
            return super().construct_mapping(node, deep)

    if not path.is_file():
        raise ValueError(f"{path}: no such file; pass a YAML file, then flags (fgclip2 train --help)")
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read as YAML in UTF-8: {error}; correct it there") from error
    if not isinstance(content, dict):
        found = f"{type(content).__name__} {content!r:.40}" if content is not None else "nothing"
        raise ValueError(f"{path} must hold settings, lines such as `learning_rate: 1e-6`, got {found}")
    return content


def write_yaml(path: Path, settings: dict[str, Any]) -> None:
    """Write settings that `fgclip2 train` reads."""
    import yaml

    # Left out: objects, which transformers made of texts; and secrets, for the folder may be published.
    plain = {
        name: value
        for name, value in settings.items()
        if isinstance(value, (str, int, float, list, dict)) and not name.endswith("_token")
    }
    path.write_text(yaml.safe_dump(plain, allow_unicode=True, sort_keys=False), encoding="utf-8")
