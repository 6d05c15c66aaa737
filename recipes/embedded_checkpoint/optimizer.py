"""Muon for the matrices of the encoders and heads, AdamW for everything else, in one torch optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Coefficients of the quintic iteration of Muon (Jordan et al. 2024), chosen for the steepest slope at zero.
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Move all singular values of each matrix close to 1 by the Newton-Schulz iteration.

    In float32 and for a whole stack at once: `torch.optim.Muon` works in bfloat16, which most CPUs only emulate.

    Args:
        matrices: Shape (B, rows, columns).
        steps: Iterations.

    Returns:
        The same shape.
    """
    a, b, c = _QUINTIC
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if is_tall else x


class MuonAdamW(torch.optim.Optimizer):
    """AdamW, but groups with `use_muon=True` take orthogonalised momentum steps.

    The steps of Muon are scaled to the root mean square of AdamW's (0.2 sqrt(max(rows, columns)), Liu et al. 2025).

    Args:
        groups: Parameter groups; each has `lr`, `weight_decay` and `use_muon`.
        momentum: Of Muon (Nesterov).
        betas, eps: Of AdamW.
        newton_schulz_steps: Iterations of [`orthogonalize`].
    """

    def __init__(
        self,
        groups: Iterable[dict],
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        newton_schulz_steps: int = 4,
    ):
        defaults = {"momentum": momentum, "betas": betas, "eps": eps, "newton_schulz_steps": newton_schulz_steps}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            if group["use_muon"]:
                self._step_muon(group, parameters)
            else:
                self._step_adam(group, parameters)

    def _step_muon(self, group: dict, parameters: list[Tensor]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        for shape, same in by_shape.items():
            buffers = [self._state(parameter, "momentum_buffer") for parameter in same]
            gradients = [parameter.grad for parameter in same]
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            nesterov = torch._foreach_lerp(gradients, buffers, group["momentum"])
            updates = orthogonalize(torch.stack(nesterov), group["newton_schulz_steps"])
            scale = -group["lr"] * 0.2 * max(shape) ** 0.5
            torch._foreach_add_(same, list(updates.unbind()), alpha=scale)

    def _step_adam(self, group: dict, parameters: list[Tensor]) -> None:
        gradients = [parameter.grad for parameter in parameters]
        first = [self._state(parameter, "exp_avg") for parameter in parameters]
        second = [self._state(parameter, "exp_avg_sq") for parameter in parameters]
        steps = []
        for parameter in parameters:
            self.state[parameter]["step"] = self.state[parameter].get("step", 0) + 1
            steps.append(self.state[parameter]["step"])
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta2)
        denominators = torch._foreach_div(second, [1 - beta2**step for step in steps])
        torch._foreach_sqrt_(denominators)
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_addcdiv_(parameters, first, denominators, [-group["lr"] / (1 - beta1**step) for step in steps])

    def _state(self, parameter: Tensor, name: str) -> Tensor:
        if name not in self.state[parameter]:
            self.state[parameter][name] = torch.zeros_like(parameter)
        return self.state[parameter][name]


def build_optimizer(model: nn.Module, muon_lr: float, adam_lr: float, weight_decay: float) -> MuonAdamW:
    """Sort the parameters: matrices of layers and heads to Muon, the rest (embeddings, norms, scales) to AdamW."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        is_layer = any(part in name for part in (".layers.", ".head.", "dense_feature_head.", "text_head"))
        (matrices if is_layer and parameter.ndim == 2 else others).append(parameter)
    return MuonAdamW(
        [
            {"params": matrices, "lr": muon_lr, "weight_decay": weight_decay, "use_muon": True},
            {"params": others, "lr": adam_lr, "weight_decay": 0.0, "use_muon": False},
        ]
    )
