"""Opening a checkpoint, or an adapter together with the base model that it names."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..checkpoints import locate_checkpoint
from ..modeling.auto import FAMILIES, Family, has_ranking_stage, read_model_type
from ..modeling.weights import base_of_adapter


def choose_family(source: str | os.PathLike, user: str, only: Family | None = None, **hub_arguments: Any) -> Family:
    """Return the family of a checkpoint, or of the base model of an adapter.

    Args:
        source, hub_arguments: What [`locate_checkpoint`] returned.
        user: What is to run it, as the message names it.
        only: The family that this can run; `None`: any.

    Raises:
        ValueError: It is of no family that this package has, or not of the family `only`.
        OSError: There is no such checkpoint.
    """
    model_type = read_model_type(source, **hub_arguments)
    family = next((family for family in FAMILIES if family.model_type == model_type), None)
    if family is None:
        known = ", ".join(f"{family.title} ({family.model_type})" for family in FAMILIES)
        raise ValueError(
            f"{source} has the model type {model_type!r}, and this package has {known}: use transformers' "
            "AutoModel, or fgclip2.embedding.PairEmbedder around its functions"
        )
    if only not in (None, family):
        raise ValueError(
            f"{source} is a {family.title} checkpoint (model type {model_type!r}), which {user} can't run: "
            "use Embedder.from_pretrained"
        )
    return family


def load_checkpoint(source: str | os.PathLike, family: Family, **hub_arguments: Any) -> tuple[Any, Any]:
    """Load model and processor; an adapter is added to the weights of its base model.

    Args:
        source, hub_arguments: What [`locate_checkpoint`] returned.
        family: The family of the checkpoint.

    Returns:
        The model, in the dtype that its configuration names, or in float32 with an adapter; and its processor.

    Raises:
        ValueError: The checkpoint is damaged or not what its configuration says, or the adapter does not fit its base.
        OSError: The checkpoint or the base model is not there, or not whole.
        ImportError: There is an adapter, and PEFT is not installed.
    """
    base = base_of_adapter(source, **hub_arguments)
    if base is not None:
        adapter, of_adapter = source, hub_arguments
        # An adapter knows the revision of its base; the folder within a repository is that of the adapter.
        shared = {name: value for name, value in hub_arguments.items() if name not in ("revision", "subfolder")}
        source, hub_arguments = locate_checkpoint(base[0], revision=base[1] or "main", **shared)
    # A stage beside the base was trained on towers that an adapter changes.
    if base is None and has_ranking_stage(family, source, **hub_arguments):
        family = family.with_ranking_stage
    options = {"dtype": "auto" if base is None else torch.float32, "output_loading_info": True, **hub_arguments}
    model, info = family.model.from_pretrained(source, **options)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ValueError(
            f"{source} is no {family.title} checkpoint: it lacks {len(missing)} weights, e.g. {missing[0]}"
        )
    if info["unexpected_keys"]:
        extra = sorted(info["unexpected_keys"])
        raise ValueError(
            f"{source} has {len(extra)} weights that {family.title} has no place for, e.g. {extra[0]}: is it of "
            "another model?"
        )
    processor = family.processor.from_pretrained(source, **hub_arguments)
    if base is not None:
        from ..modeling.adapters import merge_adapter  # needs peft

        model = merge_adapter(model, adapter, **of_adapter)
        model.config._commit_hash = None  # that of the base, whose weights these are no more
    return model, processor
