"""Fingerprints of a model and its processor: what makes the vectors of one checkpoint differ from all others."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from ..modeling.interface import DualEncoderProcessor
from ..modeling.weights import find_weights, read_floats, read_headers

# Capitals, accents, both widths of letters, digits, an emoji and white space: what normalisers treat apart.
PROBE_TEXTS = (
    "A black CAT, sitting on 2 of the 10 café tables.",
    "一只黑猫，坐在１０张咖啡桌中的 2 张上。",
    "  🐈\tＦＧ－ＣＬＩＰ\n",
)


def model_fingerprint(model: nn.Module) -> str:
    """Hash names, shapes and values (as float32) of every weight."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        values = weight.detach().float().cpu().contiguous().numpy()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(values.astype("<f4", copy=False).data)
    return digest.hexdigest()


def files_fingerprint(folder: str | os.PathLike) -> str:
    """Hash the files of a checkpoint as [`model_fingerprint`] hashes its model, without making that.

    Returns:
        The same SHA-256 if the files have the weights under the names that the model has for them.

    Raises:
        OSError: There are no weights.
        ValueError: A file is damaged.
    """
    headers = dict(sorted(read_headers(find_weights(folder)).items()))
    digest = hashlib.sha256()
    last = ""
    for name, values in read_floats(headers):
        if name != last:  # the first piece of a weight
            digest.update(f"{name}{headers[name][1].shape}".encode())
        digest.update(values.float().numpy().astype("<f4", copy=False).data)
        last = name
    return digest.hexdigest()


def checkpoint_fingerprint(weights: str, config: Any, processor: Any) -> str:
    """Hash all that the vectors of a checkpoint depend on: weights, sizes, preprocessing and vocabulary.

    It is the same wherever the checkpoint lies, in whatever dtype and on whatever device it runs, and whichever
    release of transformers wrote its files: these describe one tokenizer in several ways, so what counts is the
    vocabulary and the ids of [`PROBE_TEXTS`].

    Args:
        weights: [`model_fingerprint`] of the model, before it was cast.
        config: The model's configuration.
        processor: The model's processor: of this package, or of a model of transformers, with `tokenizer` and
            `image_processor`.

    Returns:
        A SHA-256 in hexadecimal.
    """
    if isinstance(processor, DualEncoderProcessor):
        texts: dict[str, Any] = {
            role: processor.tokenize(PROBE_TEXTS, role)["input_ids"].tolist() for role in processor.text_roles
        }
        # Ids that are not padded to the length of their head don't show where longer texts are cut.
        lengths = {role: processor.text_length(role) for role in texts}
        texts |= {f"{role} length": length for role, length in lengths.items() if len(texts[role][0]) != length}
    else:
        texts = {"any": processor.tokenizer(list(PROBE_TEXTS), padding=False, truncation=False)["input_ids"]}
    parts = {
        "weights": weights,
        "sizes": _settings(config),
        "images": _settings(processor.image_processor),
        "vocabulary": processor.tokenizer.get_vocab() if processor.tokenizer is not None else {},
        "texts": texts,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _settings(owner: Any) -> dict[str, Any]:
    """Return the settings that the constructor of a class names; what transformers adds changes with its release."""
    names = inspect.signature(type(owner).__init__).parameters
    named = {name: getattr(owner, name) for name in names if hasattr(owner, name)}
    if not named and hasattr(owner, "to_dict"):  # of transformers, whose constructors take whatever there is
        return owner.to_dict()
    return {name: _settings(value) if isinstance(value, PretrainedConfig) else value for name, value in named.items()}
