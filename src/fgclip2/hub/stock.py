"""Settings that transformers' own tokenizers and image processors read, for users who run no code of a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..files import read_json
from ..modeling.auto import Family
from ._folders import update_json

STOCK_TOKENIZER = "PreTrainedTokenizerFast"  # it takes tokenizer.json as it is, in transformers 4 and 5
STOCK_BUDGET = 256  # what SigLIP 2's processor has by itself; it knows no "auto"


def _naflex(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings by which SigLIP 2's image processor gives the pixels of FG-CLIP 2's, but for "auto"."""
    budget = settings["max_num_patches"]
    stock = budget if isinstance(budget, int) else STOCK_BUDGET
    return {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": stock, "own_max_num_patches": budget}


def _squares(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings by which CLIP's image processor squashes images to squares, and cuts nothing off."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": False,
        "do_convert_rgb": True,
        "crop_size": settings["size"],
    }


# By model type: the settings of our image processor -> what has to change for one of transformers' own.
_IMAGE_PROCESSORS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "fgclip2": _naflex,
    "fgclip": _squares,
    "r2d2": _squares,
}


def name_stock_classes(folder: Path, family: Family) -> None:
    """Let the JSON files of a folder name classes of transformers, beside ours in `auto_map`, and hold what these need.

    `AutoTokenizer` and `AutoImageProcessor` give ours with `trust_remote_code=True` or where this package is imported,
    and transformers' own otherwise. These know no default length: they need `padding="max_length", truncation=True`.

    Args:
        folder: A folder that this package's processor was saved to.
        family: The family of the checkpoint.
    """
    change = _IMAGE_PROCESSORS[family.model_type]
    path = folder / "preprocessor_config.json"
    update_json(path, **change(read_json(path)))
    # Transformers 5 looks for the image processor in here first.
    nested = read_json(folder / "processor_config.json")["image_processor"]
    update_json(folder / "processor_config.json", image_processor={**nested, **change(nested)})

    settings = read_json(folder / "tokenizer_config.json")
    length = settings["short_length"]
    update_json(folder / "tokenizer_config.json", tokenizer_class=STOCK_TOKENIZER, model_max_length=length)
    # For what reads tokenizer.json alone. Our class, and transformers' own, set both anew in each call.
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pad_token = settings["pad_token"]
    backend.enable_truncation(length)
    backend.enable_padding(length=length, pad_id=backend.token_to_id(pad_token), pad_token=pad_token)
    backend.save(str(folder / "tokenizer.json"))
