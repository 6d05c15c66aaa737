"""From the official layout to ours."""

import os
import shutil
from pathlib import Path

from ..files import new_folder, read_json
from ..modeling.auto import FAMILIES, find_family
from ..modeling.weights import INDEX, WEIGHTS, find_weights, read_headers
from ._folders import check_shapes

DOCUMENTS = ("LICENSE*", "NOTICE*", "README.md")


def convert_checkpoint(source: str | os.PathLike, output: str | os.PathLike) -> Path:
    """Rewrite a folder in the official layout so that transformers' Auto classes are right on it.

    An official folder's JSON files name tokenizer and image-processor classes of other models, and code files that run
    on old releases only; those of the first FG-CLIP say that it is CLIP. The new folder has this package's processor
    files and a configuration without foreign code; the weight files are copied byte for byte, and so are licence,
    notice and model card.

    Args:
        source: Folder with config.json, tokenizer files and safetensors weights, in one file or in shards with an
            index. It stays as it is.
        output: Where to write; new or empty. It appears when it is complete, or not at all.

    Returns:
        The new folder.

    Raises:
        ValueError: `source` is of no family that this package has, has no (whole) safetensors weights, weights that
            don't fit its configuration, or an index that names files elsewhere; or `output` has something in it.
    """
    source = Path(source)
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder; download a checkpoint first: hf download REPO --local-dir FOLDER")
    if not (source / "config.json").is_file():
        raise ValueError(f"{source / 'config.json'} is missing: {source} is no checkpoint folder")
    settings = read_json(source / "config.json")
    family = find_family(source) if isinstance(settings, dict) else None
    if family is None:
        known = " or ".join(repr(known.model_type) for known in FAMILIES)
        model_type = settings.get("model_type") if isinstance(settings, dict) else None
        raise ValueError(f"{source / 'config.json'}: `model_type` must be {known}, got {model_type!r}")
    config = family.config.from_pretrained(source)
    config.architectures = [family.model.__name__]
    try:
        weights = find_weights(source)
    except OSError as error:
        raise ValueError(str(error)) from error
    shapes = {name: info.shape for name, (_, info) in read_headers(weights).items()}
    check_shapes(shapes, family, config, str(source), "Is it complete, and of the same model?")
    if not (source / WEIGHTS).is_file():
        weights.append(source / INDEX)
    processor = family.processor.from_pretrained(source)
    with new_folder(output) as staging:
        processor.save_pretrained(staging)
        documents = [path for pattern in DOCUMENTS for path in source.glob(pattern) if path.is_file()]
        for path in [*weights, *documents]:
            shutil.copyfile(path, staging / path.name)  # follows the links of the hub's cache
        config.save_pretrained(staging)
    return Path(output)
