"""Optimizers of torch under their names, and the learning rate's course over training."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from foodgen.core.registry import optimizers, schedules
from foodgen.training.scaling import LossScaler


class Optimizer:
    """One or several torch optimizers that step together, each parameter group at its own learning rate."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        self.base_lrs = [[group["lr"] for group in part.param_groups] for part in parts]
        self.scaler = LossScaler()

    def step(self, lr_scale: float) -> bool:
        """Update the weights at `lr_scale` times the base learning rates, then forget the gradients.

        Returns whether they were updated: with a loss scaler, a step whose gradients are not finite is skipped.
        """
        for part, bases in zip(self.parts, self.base_lrs, strict=True):
            for group, base in zip(part.param_groups, bases, strict=True):
                group["lr"] = base * lr_scale
        updated = self.scaler.step(self.parts)
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
        muon = torch.optim.Muon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay)
        super().__init__([muon, _adamw(others, adamw_lr, adamw_betas, weight_decay)])


def _adamw(weights: list[nn.Parameter], lr: float, betas: tuple[float, float], decay: float) -> torch.optim.AdamW:
    fused = bool(weights) and weights[0].device.type in ("cuda", "cpu")
    return torch.optim.AdamW(weights, lr=lr, betas=betas, weight_decay=decay, fused=fused)


class Schedule:
    """Factor of the learning rate: it rises evenly over `warmup` steps, then follows `after`.

    steps   of the whole training
    warmup  steps
    """

    after: Callable[[float], float]

    def __init__(self, steps: int, warmup: int = 500) -> None:
        if warmup < 0:
            raise ValueError(f"warmup: {warmup} steps is below 0")
        self.steps, self.warmup = steps, warmup

    def __call__(self, step: int) -> float:
        """The factor at step 1, 2, ..., `steps`."""
        if step <= self.warmup:
            return step / (self.warmup + 1)
        return self.after((step - self.warmup - 1) / max(1, self.steps - self.warmup))


@schedules.add_to_registry(name="constant")
class Constant(Schedule):
    """The full rate until the end."""

    after = staticmethod(lambda share: 1.0)


@schedules.add_to_registry(name="cosine")
class Cosine(Schedule):
    """Half a cosine down to zero."""

    after = staticmethod(lambda share: (1 + math.cos(math.pi * share)) / 2)


@schedules.add_to_registry(name="linear")
class Linear(Schedule):
    """Straight down to zero."""

    after = staticmethod(lambda share: 1 - share)


@schedules.add_to_registry(name="inverse_sqrt")
class InverseSqrt(Schedule):
    """The full rate until step `reference`, then falling like the root of 1 / step (EDM2, equation 67).

    steps      of the whole training
    warmup     steps
    reference  step
    """

    def __init__(self, steps: int, warmup: int = 500, reference: int = 10_000) -> None:
        super().__init__(steps, warmup)
        if reference < 1:
            raise ValueError(f"reference: step {reference} is below 1")
        self.reference = reference

    def __call__(self, step: int) -> float:
        """The factor at step 1, 2, ..."""
        return min(1.0, step / (self.warmup + 1), (self.reference / step) ** 0.5)
