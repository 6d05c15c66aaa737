"""The fingerprint that tells the weights of a model from all others."""

from __future__ import annotations

import hashlib

from torch import nn


def model_fingerprint(model: nn.Module) -> str:
    """Hash names, shapes and values (as float32) of every weight."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        values = weight.detach().float().cpu().contiguous().numpy()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(values.astype("<f4", copy=False).data)
    return digest.hexdigest()
