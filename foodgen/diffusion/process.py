"""Gaussian diffusion, x_t = alpha(t) x_0 + sigma(t) eps, and all that follows from alpha and sigma."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from foodgen.core.networks import Process

SIGMA_MIN = 8e-3  # last noise level of the bound: about the distance of two of 256 values, as DDPM's 0.01


@dataclass
class Preconditioning:
    """denoised = c_skip x_t + c_out F(c_in x_t, c_noise), as in EDM (Karras 2022, equation 7).

    c_in, c_skip, c_out  (batch, 1, 1, 1)
    c_noise              (batch,), the noise level on a scale of about a thousand
    """

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor
    c_noise: Tensor


class GaussianProcess(Process):
    """Everything but alpha, sigma, the times and the preconditioning."""

    @abstractmethod
    def preconditioning(self, t: Tensor) -> Preconditioning:
        """The factors around the network at t."""

    def vlb_timesteps(self, steps: int) -> Tensor:
        """Noise levels in even ratios, then the image. The smaller the ratios, the tighter the bound."""
        check_steps(steps)
        first = self.timesteps(1)[:1]
        sigma_max = min(1e3, float(self.sigma(first) / self.alpha(first)))
        sigmas = torch.logspace(math.log10(sigma_max), math.log10(SIGMA_MIN), steps, dtype=torch.float64)
        return torch.cat([self.sigma_to_t(sigmas), torch.zeros(1, dtype=torch.float64)])

    def q_sample(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return column(self.alpha(t)) * x0 + column(self.sigma(t)) * eps

    def eps(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        return (x - column(self.alpha(t)) * x0) / column(self.sigma(t))

    def posterior(self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(x_s | x_t, x_0) for s below t (DDPM, equations 6 and 7).

        x_t = alpha_ts x_s + noise of variance `added`, x_s = alpha_s x_0 + sigma_s eps; then Bayes' rule.
        """
        alpha_ts = column(self.alpha(t) / self.alpha(s))
        variance_t, variance_s = column(self.sigma(t) ** 2), column(self.sigma(s) ** 2)
        added = self.added_variance(t, s)
        mean = (alpha_ts * variance_s * x + column(self.alpha(s)) * added * x0) / variance_t
        return mean, (variance_s * added / variance_t).sqrt()

    def added_variance(self, t: Tensor, s: Tensor) -> Tensor:
        alpha_ts = self.alpha(t) / self.alpha(s)
        return column((self.sigma(t) ** 2 - alpha_ts**2 * self.sigma(s) ** 2).clamp(min=0))

    def log_variance(self, v: Tensor | None, t: Tensor, s: Tensor) -> Tensor:
        """ln of the variance of p(x_s | x_t), of v's shape or (batch, 1, 1, 1).

        v  interpolates between the lower bound, the posterior's variance, and the upper one, all that the step adds
           (IDDPM, equation 15); None takes the lower bound

        For the step to the image the lower bound is 0. A learnt variance then takes the bound of the step before, as
        in IDDPM, a fixed one the upper bound.
        """
        last = self.sigma(s) == 0
        upper = self.added_variance(t, s).clamp(min=1e-20).log()
        before = torch.minimum(2 * t - s, self.timesteps(1)[0].to(t))
        above, below = torch.where(last, before, t), torch.where(last, t, s)
        ratio = column(self.sigma(below) ** 2 / self.sigma(above) ** 2)
        lower = (ratio * self.added_variance(above, below)).clamp(min=1e-20).log()
        if v is None:
            return torch.where(column(last), upper, lower)
        return v * upper + (1 - v) * lower


def column(values: Tensor) -> Tensor:
    """(batch,) to (batch, 1, 1, 1), which scales images."""
    return values[:, None, None, None]


def check_steps(steps: int, most: float = float("inf")) -> None:
    """Raise ValueError unless 1 <= steps <= most."""
    if not 1 <= steps <= most:
        raise ValueError(f"steps: {steps} is not between 1 and {most:g}")


def normal_of(uniform: Tensor) -> Tensor:
    """Standard normal numbers of uniform ones, by the inverse distribution function."""
    return 2**0.5 * torch.erfinv(2 * uniform.clamp(1e-7, 1 - 1e-7) - 1)
