"""EDM's stochastic sampler (Karras 2022, algorithm 2), on any process."""

import math
import sys

from torch import Tensor

from foodgen.core.networks import Guidance
from foodgen.core.registry import samplers
from foodgen.samplers.deterministic import Heun
from foodgen.samplers.sampler import SamplerState


@samplers.add_to_registry(name="edm_stochastic")
class Stochastic(Heun):
    """Adds fresh noise before each Heun step, which corrects errors of earlier steps.

    s_churn       amount of noise over all steps (S_churn); 0 is Heun's method
    s_min, s_max  noise levels sigma / alpha between which it is added (S_tmin, S_tmax); null for no maximum
    s_noise       standard deviation of the added noise (S_noise)
    """

    def __init__(
        self,
        guidance: Guidance,
        steps: int = 50,
        clip_denoised: float | None = None,
        sigma_end: float = 0.0,
        s_churn: float = 40.0,
        s_min: float = 0.05,
        s_max: float | None = 50.0,
        s_noise: float = 1.003,
    ) -> None:
        super().__init__(guidance, steps, clip_denoised, sigma_end)
        if s_churn < 0 or s_noise <= 0:
            raise ValueError(f"s_churn: {s_churn} is at least 0, and s_noise: {s_noise} above 0")
        if not 0 <= s_min < (math.inf if s_max is None else s_max):
            raise ValueError(f"s_min, s_max: 0 <= {s_min} < {s_max} does not hold")
        self.gamma = min(s_churn / steps, math.sqrt(2) - 1)
        self.s_min, self.s_max, self.s_noise = s_min, float("inf") if s_max is None else s_max, s_noise

    def step(self, state: SamplerState, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        process = state.process
        sigma = process.sigma(t) / process.alpha(t)
        s_max = min(self.s_max, sys.float_info.max)  # pure noise, where sigma is infinite, gets no more
        if self.gamma > 0 and self.s_min <= float(sigma[0]) <= s_max:
            t_hat = process.sigma_to_t(sigma * (1 + self.gamma))
            alpha_ratio = (process.alpha(t_hat) / process.alpha(t))[:, None, None, None]
            x = alpha_ratio * x + self.s_noise * process.added_variance(t_hat, t).sqrt() * state.noise()
            t = t_hat.maximum(t)
        return super().step(state, x, t, s, last)
