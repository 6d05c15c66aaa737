"""Which parameters are trained, in which groups, and within which bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from .modeling import SCALES
from .objective import ObjectiveSettings

_HEAD = re.compile(r"(^|\.)(text_model\.head|longtext_head|boxtext_head|vision_model\.head|dense_feature_head)\.")
_WRAPPER = re.compile(r"^(module\.|base_model\.model\.|_orig_mod\.)+")


def is_head(name: str) -> bool:
    """Whether a parameter belongs to the heads, scales or bias, rather than to the towers."""
    return bool(_HEAD.search(name) or is_scale(name))


def is_scale(name: str) -> bool:
    """Whether a parameter is a scale or the bias: these are not decayed."""
    return name.rsplit(".", 1)[-1] in SCALES


def freeze(
    model: nn.Module, names: Iterable[str] = (), vision_layers: int = 0, text_layers: int = 0
) -> list[nn.Parameter]:
    """Stop training parts of a model.

    Args:
        model: [`FGClip2ForTraining`], or PEFT's wrapper of it.
        names: Dotted names of modules or parameters.
        vision_layers, text_layers: So many first encoder layers, with the embeddings below them.

    Returns:
        What is frozen now and was not.

    Raises:
        ValueError: A name fits nothing, a tower has fewer layers, or nothing is left to train.
    """
    names = list(names)
    parameters = {_WRAPPER.sub("", name): parameter for name, parameter in model.named_parameters()}
    for tower, layers in (("vision_model", vision_layers), ("text_model", text_layers)):
        available = len({n.split(".")[3] for n in parameters if n.startswith(f"{tower}.encoder.layers.")})
        if not 0 <= layers <= available:
            field = f"freeze_{tower.removesuffix('_model')}_layers"
            raise ValueError(f"{field}={layers}; allowed: 0 to {available}, the layers of {tower}")
        if layers:
            names += [f"{tower}.embeddings", *(f"{tower}.encoder.layers.{layer}" for layer in range(layers))]
    frozen = []
    for name in names:
        found = [p for n, p in parameters.items() if n == name or n.startswith(f"{name}.")]
        if not found:
            raise ValueError(
                f"freeze has {name!r}, which the model has not; allowed: e.g. text_model, vision_model.encoder"
            )
        frozen += [parameter for parameter in found if parameter.requires_grad]
        for parameter in found:
            parameter.requires_grad_(False)
    if frozen and not any(parameter.requires_grad for parameter in parameters.values()):
        raise ValueError(f"freeze leaves nothing to train ({', '.join(names)}); allowed: to freeze a part")
    return frozen


def unused_parameters(settings: ObjectiveSettings) -> list[str]:
    """Names of what an objective gives no gradient to, for [`freeze`]: DDP would wait for it."""
    unused = ["dense_feature_head.probe"]
    if not settings.uses_regions and not settings.uses_hard_negatives:
        unused += ["dense_feature_head", "boxtext_head"]
    if not settings.region_weight:
        unused.append("logit_scale_finegraind")
    if not settings.uses_hard_negatives:
        unused.append("logit_scale_hardneg")
    if not settings.long_weight:
        embeddings = "text_model.embeddings.position_embedding"
        unused += ["longtext_head", f"{embeddings}_ori", f"{embeddings}_res"]
    if not settings.short_weight:
        unused.append("text_model.head")
        if not settings.uses_regions and not settings.uses_hard_negatives:
            unused.append("text_model.embeddings.position_embedding")
    if not settings.short_weight and not settings.long_weight:
        unused += ["vision_model.head", "logit_scale", "logit_bias"]
    return unused


def parameter_groups(
    model: nn.Module, decayed: Sequence[str], weight_decay: float, head_learning_rate: float | None
) -> list[dict]:
    """Optimizer groups: with and without weight decay, towers and heads apart.

    Args:
        model: The model.
        decayed: Names of parameters that decay, if they are neither scale nor bias.
        weight_decay: For these.
        head_learning_rate: Of [`is_head`] parameters; `None`: the optimizer's own for all.
    """
    groups: dict[tuple[bool, bool], dict] = {}
    decayed_names = set(decayed)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays, head = name in decayed_names and not is_scale(name), head_learning_rate is not None and is_head(name)
        group = {"params": [], "weight_decay": weight_decay if decays else 0.0}
        if head:
            group["lr"] = head_learning_rate
        groups.setdefault((head, decays), group)["params"].append(parameter)
    return list(groups.values())


@torch.no_grad()
def clamp_scales(model: nn.Module, highest: float) -> None:
    """Keep `exp` of every logit scale at most at `highest`; works on sharded parameters too."""
    for name, parameter in model.named_parameters():
        if is_scale(name) and not name.endswith("logit_bias"):
            parameter.clamp_(max=math.log(highest))
