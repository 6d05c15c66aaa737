"""Parameters of a training model: which are trained, in which groups, within which bounds, and how many there are."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from .estimates import ParameterCount
from .tasks.interface import TrainingModel

# What wrappers put before a parameter's name: DDP, PEFT, torch.compile.
_WRAPPER = re.compile(r"^(module\.|base_model\.model\.|_orig_mod\.)+")


def plain_name(name: str) -> str:
    """Return the name that a parameter has in the model itself, whatever wraps it."""
    return _WRAPPER.sub("", name)


def belongs_to(name: str, modules: Iterable[str]) -> bool:
    """Tell if a parameter of a model, wrapped or not, is one of some modules or parameters, or lies in one of them."""
    plain = plain_name(name)
    return any(plain == module or plain.startswith(f"{module}.") for module in modules)


def freeze(
    model: TrainingModel, names: Iterable[str] = (), vision_layers: int = 0, text_layers: int = 0
) -> list[nn.Parameter]:
    """Stop training parts of a model.

    Args:
        model: A training model, or PEFT's wrapper of it.
        names: Dotted names of modules or parameters.
        vision_layers, text_layers: How many of the first encoder layers, with the embeddings below them.

    Returns:
        What is frozen now and was not.

    Raises:
        ValueError: A name fits nothing, a tower has fewer layers, or nothing is left to train.
    """
    names = list(names)
    parameters = {plain_name(name): parameter for name, parameter in model.named_parameters()}
    for tower, layers in (("vision", vision_layers), ("text", text_layers)):
        embeddings, encoder = model.towers[tower]
        available = len(encoder_layers(parameters, encoder))
        if not 0 <= layers <= available:
            raise ValueError(
                f"`freeze_{tower}_layers` must be from 0 to {available}, the layers of {tower}_model, got {layers}"
            )
        if layers:
            names += [embeddings, *(f"{encoder}.{layer}" for layer in range(layers))]
    frozen = []
    for name in names:
        found = [parameter for own, parameter in parameters.items() if belongs_to(own, [name])]
        if not found:
            raise ValueError(
                f"`freeze` must name modules or parameters of the model, e.g. text_model or vision_model.encoder, got "
                f"{name!r}"
            )
        frozen += [parameter for parameter in found if parameter.requires_grad]
        for parameter in found:
            parameter.requires_grad_(False)
    if frozen and not any(parameter.requires_grad for parameter in parameters.values()):
        raise ValueError(f"freeze leaves nothing to train ({', '.join(names)}): freeze only a part of the model")
    return frozen


def encoder_layers(names: Iterable[str], encoder: str) -> dict[int, list[str]]:
    """Return the parameters of each layer of an encoder, of which `names` are those of the whole model, in order."""
    layers: dict[int, list[str]] = {}
    for name in names:
        if name.startswith(f"{encoder}."):
            number = int(name.removeprefix(f"{encoder}.").split(".")[0])
            layers.setdefault(number, []).append(name)
    return dict(sorted(layers.items()))


def count_parameters(model: TrainingModel) -> dict[str, ParameterCount]:
    """Count the values of a model, also of one on the meta device or in PEFT's wrapper, by part and in all (`total`).

    What LoRA adds is the part `adapters`.
    """
    sums: dict[str, list[int]] = {part: [0, 0] for part in (*model.parts, "adapters", "total")}
    for name, parameter in model.named_parameters():
        of = "adapters" if "lora_" in name else next(p for p, names in model.parts.items() if belongs_to(name, names))
        for part in (of, "total"):
            sums[part][0] += parameter.numel()
            sums[part][1] += parameter.numel() * parameter.requires_grad
    return {part: ParameterCount(*counts) for part, counts in sums.items() if counts[0]}


def layers_with_gradients(model: TrainingModel, tower: str) -> int:
    """Count a tower's encoder layers that keep activations: those with a trained parameter in or below them."""
    parameters = {plain_name(name): parameter for name, parameter in model.named_parameters()}
    embeddings, encoder = model.towers[tower]
    layers = encoder_layers(parameters, encoder)
    if any(parameter.requires_grad for name, parameter in parameters.items() if belongs_to(name, [embeddings])):
        return len(layers)
    trained = (number for number, names in layers.items() if any(parameters[name].requires_grad for name in names))
    return len(layers) - next(trained, len(layers))


def depth_below_heads(model: TrainingModel) -> dict[str, int]:
    """Return how far below the heads each parameter lies in its tower, by its plain name.

    0 is what stands above all encoder layers, and what is in no tower; the last layer has 1, and the embeddings one
    more than the first layer.
    """
    names = [plain_name(name) for name, _ in model.named_parameters()]
    depths = dict.fromkeys(names, 0)
    for embeddings, encoder in model.towers.values():
        layers = encoder_layers(names, encoder)
        for number, its in layers.items():
            depths |= dict.fromkeys(its, len(layers) - number)
        depths |= {name: len(layers) + 1 for name in names if belongs_to(name, [embeddings])}
    return depths


def parameter_groups(
    model: TrainingModel,
    decayed: Sequence[str],
    weight_decay: float,
    learning_rate: float,
    head_learning_rate: float | None = None,
    layer_decay: float | None = None,
) -> list[dict]:
    """Sort parameters into optimizer groups: with and without weight decay, by their learning rates.

    Args:
        model: The model.
        decayed: Names of parameters that decay, if they are neither scale nor bias.
        weight_decay: How much these decay.
        learning_rate: Of all that the next two say nothing of.
        head_learning_rate: Of heads, scales and bias; `None`: `learning_rate`.
        layer_decay: What the rate is multiplied by from each encoder layer to the one below it, down to the embeddings,
            the last layer included (layer-wise learning-rate decay as in BEiT, arXiv 2106.08254); `None`: nothing.

    Returns:
        Groups with `params`, `weight_decay` and `lr`; the first has parameters of `learning_rate`, if any have it.
    """
    groups: dict[tuple[bool, float, bool], dict] = {}
    decayed_names = set(decayed)
    depths = {} if layer_decay is None else depth_below_heads(model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = name in decayed_names and not belongs_to(name, model.scales)
        is_head = head_learning_rate is not None and belongs_to(name, (*model.heads, *model.scales))
        rate = learning_rate
        if head_learning_rate is not None and is_head:
            rate = head_learning_rate
        elif layer_decay is not None:
            rate *= layer_decay ** depths[plain_name(name)]
        group = {"params": [], "weight_decay": weight_decay if decays else 0.0, "lr": rate}
        groups.setdefault((is_head, rate, decays), group)["params"].append(parameter)
    # The trainer's log has the rate of the first group.
    return sorted(groups.values(), key=lambda group: group["lr"] != learning_rate)


@torch.no_grad()
def clamp_scales(model: TrainingModel, highest: float) -> None:
    """Keep `exp` of every logit scale at most at `highest`; works on sharded parameters too."""
    for name, parameter in model.named_parameters():
        if belongs_to(name, model.scales) and not name.endswith("_bias"):
            parameter.clamp_(max=math.log(highest))
