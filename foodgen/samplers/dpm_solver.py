"""DPM-Solver++(2M) (Lu 2022): second order from the previous prediction, one evaluation a step."""

import torch
from torch import Tensor

from foodgen.core.registry import samplers
from foodgen.samplers.sampler import DiffusionSampler, SamplerState


@samplers.add_to_registry(name="dpm_solver")
class DPMSolver(DiffusionSampler):
    """Exponential integrator in lambda = ln(alpha / sigma), on the denoised image (algorithm 2)."""

    def step(self, state: SamplerState, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        prediction = state.denoise(x, t)
        if last or not state.history:  # first order, which is Euler: lambda is infinite at the image
            state.history.append((t, prediction))
            return x + state.delta(prediction, t, s)
        previous_t, previous = state.history[-1]
        state.history[:] = [(t, prediction)]
        h = log_snr(state, s) - log_snr(state, t)
        previous_h = log_snr(state, t) - log_snr(state, previous_t)
        weight = (h / (2 * previous_h))[:, None, None, None]
        denoised = prediction.denoised + weight * (prediction.denoised - previous.denoised)
        sigma_ratio = (state.process.sigma(s) / state.process.sigma(t))[:, None, None, None]
        factor = (state.process.alpha(s) * torch.expm1(-h))[:, None, None, None]
        return sigma_ratio * x - factor * denoised


def log_snr(state: SamplerState, t: Tensor) -> Tensor:
    """lambda(t) = ln(alpha / sigma), half the log signal-to-noise ratio, (batch,)."""
    return (state.process.alpha(t) / state.process.sigma(t)).log()
