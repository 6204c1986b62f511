"""Exponential moving averages of a model's weights, which sample better than the last weights do."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from foodgen.core.registry import averages

Numbers = np.ndarray | np.float64


class Average:
    """A copy of the model, in eval mode, whose weights follow the model's.

    Batch norm's running statistics are averaged with the weights that they belong to; all other buffers
    (spectral norm's vectors, running means) are copied.
    """

    snapshot_step = 0  # steps between snapshots; 0 for none

    def __init__(self, model: nn.Module) -> None:
        self.source = model
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.averaged, self.followed = _weights_and_statistics(self.model), _weights_and_statistics(model)
        chosen = {id(own) for own in self.averaged}
        pairs = zip(self.model.buffers(), model.buffers(), strict=True)
        self.copied = [(own, new) for own, new in pairs if id(own) not in chosen]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model, after training step `step`."""
        self.move(step)
        for own, new in self.copied:
            own.copy_(new)

    def move(self, step: int) -> None:
        """Move what is averaged."""
        raise NotImplementedError

    def snapshots(self) -> dict[float, dict[str, Tensor]]:
        """The averages to keep for later, by length and by the weights' names."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """What resuming needs beside `model`."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up an earlier state. Raises KeyError if it lacks something."""


@averages.add_to_registry(name="exponential")
class ExponentialAverage(Average):
    """One average, which forgets at a constant rate.

    decay   share of the old average that a step keeps, lower at first: (1 + step) / (10 + step)
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: {decay} is not in [0, 1)")
        super().__init__(model)
        self.decay = decay

    def move(self, step: int) -> None:
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averaged, self.followed, share)


@averages.add_to_registry(name="power_function")
class PowerFunctionAverage(Average):
    """Averages that reach back over a share of the training so far (Karras 2023, section 3.1).

    lengths        the profiles' relative deviations (sigma_rel), each below 0.28; the first is drawn with
    snapshot_step  steps between the snapshots of which any length is made afterwards (`export.ema_length`)
    """

    def __init__(self, model: nn.Module, lengths: Sequence[float] = (0.05, 0.10), snapshot_step: int = 1000) -> None:
        if not lengths or len({*lengths}) < len(lengths):
            raise ValueError(f"lengths: {list(lengths)} are no different lengths")
        if snapshot_step < 0:
            raise ValueError(f"snapshot_step: {snapshot_step} is below 0")
        super().__init__(model)
        self.lengths, self.snapshot_step = list(lengths), snapshot_step
        self.exponents = [exponent_of(length) for length in lengths]
        self.others = [[weight.clone() for weight in self.averaged] for _ in lengths[1:]]
        chosen = {id(weight): index for index, weight in enumerate(self.averaged)}
        state = self.model.state_dict(keep_vars=True)
        self.names = {name: chosen[id(tensor)] for name, tensor in state.items() if id(tensor) in chosen}

    def move(self, step: int) -> None:
        for exponent, own in zip(self.exponents, [self.averaged, *self.others], strict=True):
            torch._foreach_lerp_(own, self.followed, 1 - (1 - 1 / step) ** (exponent + 1))  # equation 127

    def snapshots(self) -> dict[float, dict[str, Tensor]]:
        alls = [self.averaged, *self.others]
        return {
            length: {name: own[index] for name, index in self.names.items()}
            for length, own in zip(self.lengths, alls, strict=True)
        }

    def state_dict(self) -> dict[str, Tensor]:
        snapshots = self.snapshots()
        return {f"{length:g}:{name}": snapshots[length][name] for length in self.lengths for name in self.names}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for length, own in zip(self.lengths, [self.averaged, *self.others], strict=True):
            for name, index in self.names.items():
                own[index].copy_(state[f"{length:g}:{name}"])


def exponent_of(length: float) -> float:
    """The power function's exponent gamma of a relative deviation sigma_rel (algorithm 2). Raises ValueError."""
    if not 0 < length < 12**-0.5:
        raise ValueError(f"length: {length} is not between 0 and 0.288")
    ratio = length**-2
    return float(max(np.roots([1, 7, 16 - ratio, 12 - ratio]).real))


def combination(own: Sequence[tuple[float, float]], asked: tuple[float, float]) -> np.ndarray:
    """The weights, (len(kept),), with which own averages add up to the one asked for, by least squares (algorithm 3).

    own, asked  (step, exponent) of an average; the step asked for is at most the last own one
    """
    steps, exponents = (np.array(values, dtype=np.float64) for values in zip(*own, strict=True))
    matrix = overlap(steps[:, None], exponents[:, None], steps[None], exponents[None])
    target = overlap(steps, exponents, np.float64(asked[0]), np.float64(asked[1]))
    weights = np.linalg.lstsq(matrix, target, rcond=None)[0]
    return weights / weights.sum()  # few snapshots would shrink or stretch the weights otherwise


def overlap(step: Numbers, exponent: Numbers, other: Numbers, other_exponent: Numbers) -> np.ndarray:
    """The integral of the product of two averages' profiles over training (equation 151)."""
    ratio = step / other
    power = np.where(step < other, other_exponent, -exponent)
    above = (exponent + 1) * (other_exponent + 1) * ratio**power
    return above / ((exponent + other_exponent + 1) * np.maximum(step, other))


def _weights_and_statistics(model: nn.Module) -> list[Tensor]:
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    statistics = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var) if tensor is not None]
    return [*model.parameters(), *statistics]
