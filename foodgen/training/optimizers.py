"""Optimizers of torch under their names."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core.devices import has_bf16
from foodgen.core.registry import optimizers
from foodgen.training.scaling import LossScaler

log = logging.getLogger("foodgen")


class Optimizer:
    """One or several torch optimizers that step together, each parameter group at its own learning rate."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        self.base_lrs = [[group["lr"] for group in part.param_groups] for part in parts]
        self.scaler = LossScaler()

    def step(self, lr_scale: float, finite: Tensor) -> Tensor:
        """Update the weights at `lr_scale` times the base learning rates, then forget the gradients.

        finite  whether all gradients are, (); if not, the step is skipped

        Returns whether the weights were updated, ().
        """
        for part, bases in zip(self.parts, self.base_lrs, strict=True):
            for group, base in zip(part.param_groups, bases, strict=True):
                group["lr"] = base * lr_scale
        updated = self.scaler.step(self.parts, finite)
        for part in self.parts:
            part.zero_grad(set_to_none=True)
        return updated

    def lr(self) -> float:
        """The learning rate of the first group, as last used."""
        return float(self.parts[0].param_groups[0]["lr"])

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Take up the moments of an earlier run; rates, betas and the like stay the configuration's."""
        for part, state in zip(self.parts, states, strict=True):
            own = [{key: value for key, value in group.items() if key != "params"} for group in part.param_groups]
            part.load_state_dict(state)
            for group, values in zip(part.param_groups, own, strict=True):
                group.update(values)


@optimizers.add_to_registry(name="adamw")
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov 2017).

    network       whose weights are updated
    lr            learning rate
    betas         of the two moments
    weight_decay  a step, times the learning rate
    """

    def __init__(
        self, network: nn.Module, lr: float = 2e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        super().__init__([_adamw(weights, lr, betas, weight_decay)])


@optimizers.add_to_registry(name="muon")
class Muon(Optimizer):
    """Muon (Jordan 2024) for matrices, AdamW for embeddings and all that is not a matrix.

    network   whose weights are updated
    lr        learning rate of the matrices
    momentum  of the matrices
    adamw_lr, adamw_betas, weight_decay  of the rest (the decay of both)
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float = 0.02,
        momentum: float = 0.95,
        adamw_lr: float = 3e-4,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
    ) -> None:
        tables = {id(layer.weight) for layer in network.modules() if isinstance(layer, nn.Embedding)}
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        matrices = [weight for weight in weights if weight.ndim == 2 and id(weight) not in tables]
        chosen = {id(weight) for weight in matrices}
        others = [weight for weight in weights if id(weight) not in chosen]
        if not matrices:
            raise ValueError("muon moves matrices, and this network has none; use adamw")
        if matrices[0].device.type == "cpu" and not has_bf16(matrices[0].device):
            log.warning("muon computes in bf16, which this processor emulates slowly: adamw is faster here")
        muon = torch.optim.Muon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay)
        super().__init__([muon, _adamw(others, adamw_lr, adamw_betas, weight_decay)])


def _adamw(weights: list[nn.Parameter], lr: float, betas: tuple[float, float], decay: float) -> torch.optim.AdamW:
    fused = bool(weights) and weights[0].device.type in ("cuda", "cpu")
    return torch.optim.AdamW(weights, lr=lr, betas=betas, weight_decay=decay, fused=fused)
