"""Ancestral sampling (DDPM, algorithm 2), on any process."""

from torch import Tensor

from foodgen.core.registry import samplers
from foodgen.samplers.sampler import DiffusionSampler, SamplerState


@samplers.add_to_registry(name="ancestral")
class Ancestral(DiffusionSampler):
    """Samples x_s from q(x_s | x_t, x_0), with the denoised image for x_0.

    The variance is the posterior's, or the learnt one (IDDPM, equation 15).
    """

    def step(self, state: SamplerState, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        prediction = state.denoise(x, t)
        mean, std = state.process.posterior(x, prediction.denoised, t, s)
        if last:
            return mean
        if prediction.v is not None:
            std = (0.5 * state.process.log_variance(prediction.v, t, s)).exp()
        return mean + std * state.noise()
