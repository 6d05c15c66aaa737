"""Checkpoint folders that carry their own code, for users without this package."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, cast

from ..files import new_folder, read_json
from ..modeling import modeling_fgclip2
from ..modeling.configuration_fgclip2 import FGClip2Config
from ..modeling.modeling_fgclip2 import TRAINING_SCALES, FGClip2Model
from ..modeling.processing_fgclip2 import FGClip2Processor
from ._folders import check_shapes, update_json
from .card import model_card

CODE_FOLDER = Path(modeling_fgclip2.__file__).parent
MODEL_CLASS = "modeling_fgclip2.FGClip2Model"
PROCESSOR_CLASS = "processing_fgclip2.FGClip2Processor"
IMAGE_PROCESSOR_CLASS = "image_processing_fgclip2.FGClip2ImageProcessor"
# (slow, fast): releases differ in which of the two they take, and there is one class only.
TOKENIZER_CLASSES = ["tokenization_fgclip2.FGClip2Tokenizer", "tokenization_fgclip2.FGClip2Tokenizer"]

AUTO_MAP: dict[str, dict[str, Any]] = {
    "config.json": {
        "AutoConfig": "configuration_fgclip2.FGClip2Config",
        "AutoModel": MODEL_CLASS,
        "AutoModelForCausalLM": MODEL_CLASS,
        "AutoModelForZeroShotImageClassification": MODEL_CLASS,
    },
    "processor_config.json": {"AutoProcessor": PROCESSOR_CLASS},
    "preprocessor_config.json": {"AutoProcessor": PROCESSOR_CLASS, "AutoImageProcessor": IMAGE_PROCESSOR_CLASS},
    "tokenizer_config.json": {"AutoProcessor": PROCESSOR_CLASS, "AutoTokenizer": TOKENIZER_CLASSES},
}
CUSTOM_PIPELINES = {
    "zero-shot-image-classification": {
        "impl": "pipeline_fgclip2.FGClip2ZeroShotImageClassificationPipeline",
        "pt": ["AutoModelForZeroShotImageClassification"],
        "tf": [],
        "type": "multimodal",
    }
}


def export_checkpoint(
    model: FGClip2Model, processor: FGClip2Processor, folder: str | os.PathLike, license: str = "apache-2.0"
) -> Path:
    """Write weights, processor files, a model card and the code that loads them without this package.

    The folder loads by transformers' `AutoModel`, `AutoProcessor`, `AutoTokenizer`, `AutoImageProcessor` and `pipeline`
    with `trust_remote_code=True`, on transformers 4.57 and 5.18 or later; where this package is imported, without it.

    Args:
        model: The model; log-scales of the region losses (of a model in training) are left out.
        processor: Its processor.
        folder: Where to write; new or empty.
        license: Licence of the weights for the card, an identifier of the hub.

    Returns:
        The folder.

    Raises:
        ValueError: `folder` has something in it, `model` or `processor` is not of this package, or the model has other
            tensors than its configuration says (an adapter that is not merged).

    Example:
        >>> from fgclip2 import FGClip2Model, FGClip2Processor
        >>> from fgclip2.hub import export_checkpoint
        >>> model, processor = FGClip2Model.from_pretrained(path), FGClip2Processor.from_pretrained(path)
        >>> export_checkpoint(model, processor, "fgclip2-zh-en")
    """
    if not isinstance(model, FGClip2Model) or not isinstance(processor, FGClip2Processor):
        raise ValueError(
            "`model` and `processor` must be an FGClip2Model (of an adapter: model.merge_and_unload()) and an "
            f"FGClip2Processor, got {type(model).__name__} and {type(processor).__name__}"
        )
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in TRAINING_SCALES}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    check_shapes(
        shapes, cast(FGClip2Config, model.config), "the model", "Merge adapters first: model.merge_and_unload()"
    )
    with new_folder(folder) as staging:
        model.save_pretrained(staging, state_dict=state)
        processor.save_pretrained(staging)
        write_code(staging)
        card = model_card(Path(folder).absolute().name, license, read_json(staging / "config.json"))
        (staging / "README.md").write_text(card, encoding="utf-8")
    return Path(folder)


def code_files() -> list[Path]:
    """Return the files of the classes that an exported folder names, and all that these import from beside them."""
    named = json.dumps([AUTO_MAP, CUSTOM_PIPELINES])
    found: set[Path] = set()
    waiting = re.findall(r'"(\w+_fgclip2)\.\w+"', named)
    while waiting:
        path = CODE_FOLDER / f"{waiting.pop()}.py"
        if path not in found:
            found.add(path)
            waiting += re.findall(r"^from \.(\w+) import", path.read_text(encoding="utf-8"), re.MULTILINE)
    return sorted(found)


def write_code(folder: Path) -> None:
    """Put the code files beside a checkpoint that this package wrote, and name them in its JSON files."""
    for path in code_files():
        shutil.copyfile(path, folder / path.name)
    for name, auto_map in AUTO_MAP.items():
        update_json(folder / name, auto_map=auto_map)
    # Transformers 5 looks for the image processor in here first, and, without an entry of its own, makes up a video
    # processor's name from the image processor's and asks the user whether to run its code.
    nested = read_json(folder / "processor_config.json")["image_processor"]
    nested["auto_map"] = AUTO_MAP["preprocessor_config.json"]
    update_json(folder / "processor_config.json", image_processor=nested, video_processor={})
    update_json(folder / "config.json", architectures=["FGClip2Model"], custom_pipelines=CUSTOM_PIPELINES)
