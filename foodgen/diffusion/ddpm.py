"""The discrete process of DDPM (Ho 2020), with the linear schedule or the cosine one (Nichol 2021)."""

import math
from typing import Literal

import torch
from torch import Tensor

from foodgen.core.registry import processes
from foodgen.diffusion.process import GaussianProcess, Preconditioning, check_steps, column

MOST_TIMES = 1_000_000


@processes.add_to_registry(name="ddpm")
class DDPM(GaussianProcess):
    """Times are 0 (the image), 1, ..., `num_timesteps` (noise), as in the paper.

    schedule       "linear": beta from 1e-4 to 0.02 over 1000 times, scaled to other numbers;
                   "cosine": alpha squared falls like a squared cosine (IDDPM, equation 17)
    prediction     what the network predicts: "eps" (DDPM, equation 12), "v" = alpha eps - sigma x0 (Salimans 2022),
                   or "x0", the image
    num_timesteps  T of the paper
    """

    alphas: Tensor
    sigmas: Tensor

    def __init__(
        self,
        schedule: Literal["linear", "cosine"] = "linear",
        prediction: Literal["eps", "v", "x0"] = "eps",
        num_timesteps: int = 1000,
    ) -> None:
        super().__init__()
        check_steps(num_timesteps, most=MOST_TIMES)
        self.num_timesteps: int = num_timesteps
        self.schedule, self.prediction = schedule, prediction
        alphas_cumprod = torch.cat([torch.ones(1).double(), (1 - _betas(schedule, num_timesteps)).cumprod(0)])
        self.register_buffer("alphas", alphas_cumprod.sqrt().float(), persistent=False)
        self.register_buffer("sigmas", (1 - alphas_cumprod).sqrt().float(), persistent=False)

    def alpha(self, t: Tensor) -> Tensor:
        return self.alphas[t.long()]

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigmas[t.long()]

    def sample_t(self, uniform: Tensor) -> Tensor:
        return (uniform * self.num_timesteps).floor().clamp(max=self.num_timesteps - 1) + 1

    def timesteps(self, steps: int) -> Tensor:
        """Evenly spaced from `num_timesteps` to 0 ("trailing": the first step starts at pure noise)."""
        check_steps(steps, most=self.num_timesteps)
        return torch.linspace(self.num_timesteps, 0, steps + 1, dtype=torch.float64).round()

    def vlb_timesteps(self, steps: int) -> Tensor:
        """All times, or as many of them, evenly spaced."""
        return self.timesteps(min(steps, self.num_timesteps))

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        sigmas = self.sigmas / self.alphas  # rising
        above = torch.searchsorted(sigmas, sigma.to(sigmas).contiguous()).clamp(1, self.num_timesteps)
        below_is_nearer = (sigmas[above] - sigma) > (sigma - sigmas[above - 1])
        return (above - below_is_nearer.long()).to(sigma)

    def preconditioning(self, t: Tensor) -> Preconditioning:
        alpha, sigma = column(self.alpha(t)), column(self.sigma(t))
        one = torch.ones_like(alpha)
        c_skip, c_out = {
            "eps": (1 / alpha, -sigma / alpha),
            "v": (alpha, -sigma),
            "x0": (0 * one, one),
        }[self.prediction]
        return Preconditioning(c_in=one, c_skip=c_skip, c_out=c_out, c_noise=t * (1000 / self.num_timesteps))


def _betas(schedule: str, num_timesteps: int) -> Tensor:
    """beta_1, ..., beta_T in float64."""
    if schedule == "linear":
        scale = 1000 / num_timesteps
        return torch.linspace(1e-4 * scale, 0.02 * scale, num_timesteps, dtype=torch.float64).clamp(max=0.999)
    times = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    alphas_cumprod = ((times + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=0.999)
