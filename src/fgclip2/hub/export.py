"""Checkpoint folders that carry their own code, for users without this package."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..calibration import CALIBRATION_FILE, Calibration
from ..files import new_folder, read_json
from ..modeling import auto
from ..modeling.auto import FAMILIES, Family
from ._folders import check_shapes, needed_tensors, update_json
from .card import Facts, Score, license_of, model_card
from .onnx import export_onnx
from .onnx.folder import fingerprint_and_name
from .stock import name_stock_classes

CODE_FOLDER = Path(auto.__file__).parent
ZERO_SHOT = "zero-shot-image-classification"


def export_checkpoint(
    model: Any,
    processor: Any,
    folder: str | os.PathLike,
    license: str | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    results: Sequence[Score] = (),
    onnx: Sequence[str] = (),
    calibration: Calibration | None = None,
) -> Path:
    """Write weights, processor files, a model card and the code that loads them without this package.

    The folder loads by transformers' `AutoModel`, `AutoProcessor`, `AutoTokenizer`, `AutoImageProcessor` and `pipeline`
    with `trust_remote_code=True`, on transformers 4.57 and 5.18 or later; where this package is imported, without it.
    Where neither is so, `AutoTokenizer` and `AutoImageProcessor` give classes of transformers. Their ids are the same
    for `padding="max_length", truncation=True` in every call. Their pixels are the same for FG-CLIP 2 and an integer
    `max_num_patches`, and within one level of 255 for FG-CLIP v1 and R2D2.

    Args:
        model: An [`FGClip2Model`], [`FGClip2ForImageTextMatching`], [`FGClipModel`] or [`R2D2Model`]; scales that only
            training has are left out.
        processor: Its processor.
        folder: Where to write; new or empty.
        license: Licence of the weights, for the card; `None`: the one that the card of the checkpoint names which the
            model was loaded from, and `"unknown"` where it names none.
        base_model, datasets, results: What else the card says beside what the model itself shows, see [`Facts`].
        onnx: Precisions of ONNX graphs to write beside the weights, into the folder `onnx`, as [`export_onnx`] does;
            none: no graphs.
        calibration: What `fgclip2 calibrate` made of this model and processor, to lie in the folder.

    Returns:
        The folder.

    Raises:
        ValueError: `folder` has something in it, `model` or `processor` is not of this package, or the model has other
            tensors than its configuration says (an adapter that is not merged); the licence or another id for the
            card is none of the hub; graphs can't have one of the precisions; or the calibration is of other weights.
        ImportError: There are to be graphs, and the extra `onnx` is not installed.

    Example:
        >>> from fgclip2 import FGClip2Model, FGClip2Processor
        >>> from fgclip2.hub import export_checkpoint
        >>> model, processor = FGClip2Model.from_pretrained(path), FGClip2Processor.from_pretrained(path)
        >>> export_checkpoint(model, processor, "fgclip2-zh-en")
    """
    of_family = (family for family in FAMILIES if isinstance(model, family.model))
    family = next((family for family in of_family if isinstance(processor, family.processor)), None)
    if family is None:
        pairs = (f"an {known.model.__name__} and an {known.processor.__name__}" for known in FAMILIES)
        raise ValueError(
            f"`model` and `processor` must be {', or '.join(pairs)} (of an adapter: model.merge_and_unload()), got "
            f"{type(model).__name__} and {type(processor).__name__}"
        )
    if family.matching is not None and isinstance(model, family.matching):
        family = family.with_ranking_stage
    onnx = list(dict.fromkeys(onnx))
    facts = Facts(license_of(model) if license is None else license, base_model, datasets, results, onnx)
    state = needed_tensors(model.state_dict(), family)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    check_shapes(shapes, family, model.config, "the model", "Merge adapters first: model.merge_and_unload()")
    if calibration is not None:
        calibration.require_model(*fingerprint_and_name(model, processor))
    with new_folder(folder) as staging:
        if onnx:
            export_onnx(model, processor, staging / "onnx", onnx, calibration=calibration)
        model.save_pretrained(staging, state_dict=state)
        processor.save_pretrained(staging)
        write_code(staging, family)
        if calibration is not None:
            calibration.save(staging / CALIBRATION_FILE)
        card = model_card(Path(folder).absolute().name, facts, family, model, processor)
        (staging / "README.md").write_text(card, encoding="utf-8")
    return Path(folder)


def name_in_folder(cls: type) -> str:
    """Return what the JSON files of an exported folder call a class of its code."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def auto_maps(family: Family) -> dict[str, dict[str, Any]]:
    """Return by JSON file of an exported folder which classes transformers' Auto classes take from its code."""
    model, processor = name_in_folder(family.model), {"AutoProcessor": name_in_folder(family.processor)}
    image_processor = name_in_folder(family.processor.image_processor_type)
    # (slow, fast): releases differ in which of the two they take, and there is one class only.
    tokenizers = [name_in_folder(family.processor.tokenizer_type)] * 2
    return {
        "config.json": {
            "AutoConfig": name_in_folder(family.config),
            "AutoModel": model,
            "AutoModelForCausalLM": model,
            "AutoModelForZeroShotImageClassification": model,
        },
        "processor_config.json": processor,
        "preprocessor_config.json": {**processor, "AutoImageProcessor": image_processor},
        "tokenizer_config.json": {**processor, "AutoTokenizer": tokenizers},
    }


def code_files(family: Family) -> list[Path]:
    """Return the files of the classes that an exported folder names, and all that these import from beside them."""
    of_processor = (family.processor, family.processor.image_processor_type, family.processor.tokenizer_type)
    classes = filter(None, (family.config, family.model, *of_processor, family.pipeline))
    found: set[Path] = set()
    waiting = [cls.__module__.rpartition(".")[2] for cls in classes]
    while waiting:
        path = CODE_FOLDER / f"{waiting.pop()}.py"
        if path not in found:
            found.add(path)
            waiting += re.findall(r"^from \.(\w+) import", path.read_text(encoding="utf-8"), re.MULTILINE)
    return sorted(found)


def write_code(folder: Path, family: Family) -> None:
    """Put the code files beside a checkpoint that this package wrote, and name them in its JSON files.

    Tokenizer and image processor are named beside classes of transformers, which read the folder without its code.
    """
    name_stock_classes(folder, family)
    for path in code_files(family):
        shutil.copyfile(path, folder / path.name)
    maps = auto_maps(family)
    for name, auto_map in maps.items():
        update_json(folder / name, auto_map=auto_map)
    # Transformers 5 looks for the image processor in here first, and, without an entry of its own, makes up a video
    # processor's name from the image processor's and asks the user whether to run its code.
    nested = read_json(folder / "processor_config.json")["image_processor"]
    nested["auto_map"] = maps["preprocessor_config.json"]
    update_json(folder / "processor_config.json", image_processor=nested, video_processor={})
    update_json(folder / "config.json", architectures=[family.model.__name__])
    if family.pipeline is not None:
        implementation = {"impl": name_in_folder(family.pipeline), "pt": ["AutoModelForZeroShotImageClassification"]}
        pipelines = {ZERO_SHOT: {**implementation, "tf": [], "type": "multimodal"}}
        update_json(folder / "config.json", custom_pipelines=pipelines)
