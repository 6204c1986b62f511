"""Euler and Heun along the probability-flow ODE; Euler on the DDPM process is DDIM (Song 2021)."""

from torch import Tensor

from foodgen.core.registry import samplers
from foodgen.core.types import Prediction
from foodgen.samplers.sampler import DiffusionSampler, SamplerState


@samplers.add_to_registry(name="euler")
class Euler(DiffusionSampler):
    """First order: one evaluation a step."""

    def step(self, state: SamplerState, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        return x + state.delta(state.denoise(x, t), t, s)


@samplers.add_to_registry(name="heun")
class Heun(DiffusionSampler):
    """Second order: two evaluations a step, the trapezoidal rule (EDM, algorithm 1)."""

    def step(self, state: SamplerState, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        current = state.denoise(x, t)
        x_next = x + state.delta(current, t, s)
        if last:
            return x_next
        following = state.denoise(x_next, s)
        mean = Prediction((current.denoised + following.denoised) / 2, (current.eps + following.eps) / 2)
        return x + state.delta(mean, t, s)
