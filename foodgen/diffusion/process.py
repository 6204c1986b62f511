"""Corruption: x_t = alpha(t) clean + sigma(t) noise, and all that follows from alpha and sigma."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LOWEST = 8e-3  # noise level of the last look: about the distance of two of 256 values, as DDPM's 0.01


@dataclass
class Scales:
    """How a network's output F makes a clean image: clean = skip * x + out * F(inp * x, time).

    inp, skip, out  (batch, 1, 1, 1)
    time            (batch,), the noise level on a scale of about a thousand
    """

    inp: Tensor
    skip: Tensor
    out: Tensor
    time: Tensor


class Process(nn.Module, ABC):
    """A Gaussian path from an image, where sigma is 0, to noise. Times are float, (batch,)."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """What is left of the image at t, of t's shape."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The deviation of the noise at t, of t's shape."""

    @abstractmethod
    def draw(self, uniform: Tensor) -> Tensor:
        """Training times, one for each number of `uniform`, (batch,) in [0, 1)."""

    @abstractmethod
    def grid(self, steps: int) -> Tensor:
        """Sampling times, (steps + 1,) in float64, from noise down to clean. Raises ValueError."""

    def bound_grid(self, steps: int) -> Tensor:
        """Times for the variational bound, (steps + 1,) in float64: noise levels in even ratios, then clean.

        The bound is the tighter, the smaller those ratios are. Raises ValueError.
        """
        check_steps(steps)
        first = self.grid(1)[:1]
        highest = min(1e3, float(self.sigma(first) / self.alpha(first)))
        levels = torch.logspace(math.log10(highest), math.log10(LOWEST), steps, dtype=torch.float64)
        return torch.cat([self.time_at(levels), torch.zeros(1, dtype=torch.float64)])

    @abstractmethod
    def scales(self, t: Tensor) -> Scales:
        """What surrounds the network at t."""

    @abstractmethod
    def time_at(self, level: Tensor) -> Tensor:
        """The time at which sigma / alpha is `level`, or the nearest that the process has."""

    def mix(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, of clean's shape."""
        return column(self.alpha(t)) * clean + column(self.sigma(t)) * noise

    def bridge(self, x: Tensor, clean: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of q(x_s | x_t, clean) for s below t (DDPM, equations 6 and 7).

        Of x_s = alpha_s clean + sigma_s noise, the step on to x_t keeps the share `kept` and adds
        noise of variance `added`; Bayes' rule for Gaussians turns it round.
        """
        kept = column(self.alpha(t) / self.alpha(s))
        variance_t, variance_s, added = column(self.sigma(t) ** 2), column(self.sigma(s) ** 2), self.added(t, s)
        mean = (kept * variance_s * x + column(self.alpha(s)) * added * clean) / variance_t
        return mean, (variance_s * added / variance_t).sqrt()

    def added(self, t: Tensor, s: Tensor) -> Tensor:
        """The variance of the noise that the step from s to t adds, (batch, 1, 1, 1)."""
        kept = self.alpha(t) / self.alpha(s)
        return column((self.sigma(t) ** 2 - kept**2 * self.sigma(s) ** 2).clamp(min=0))

    def log_variance(self, share: Tensor | None, t: Tensor, s: Tensor) -> Tensor:
        """ln of the variance with which a model draws x_s from x_t, of share's shape or (batch, 1, 1, 1).

        share  where a learned variance lies between the lowest, q(x_s | x_t, clean)'s, and the highest,
               all that the step adds (IDDPM, equation 15); None for a fixed one, the lowest

        For the step to the clean image the lowest is 0. A learned one then takes that of the step before,
        as in IDDPM, a fixed one the highest.
        """
        last = self.sigma(s) == 0
        highest = self.added(t, s).clamp(min=1e-20).log()
        before = torch.minimum(2 * t - s, self.grid(1)[0].to(t))
        above, below = torch.where(last, before, t), torch.where(last, t, s)
        ratio = column(self.sigma(below) ** 2 / self.sigma(above) ** 2)
        lowest = (ratio * self.added(above, below)).clamp(min=1e-20).log()
        if share is None:
            return torch.where(column(last), highest, lowest)
        return share * highest + (1 - share) * lowest

    def noise_in(self, x: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        """The noise that x_t holds if its image is `clean`."""
        return (x - column(self.alpha(t)) * clean) / column(self.sigma(t))


def column(values: Tensor) -> Tensor:
    """(batch,) to (batch, 1, 1, 1), so that it scales images."""
    return values[:, None, None, None]


def check_steps(steps: int, most: float = float("inf")) -> None:
    """Raise ValueError unless 1 <= steps <= most."""
    if not 1 <= steps <= most:
        raise ValueError(f"steps: {steps} is not between 1 and {most:g}")


def normal_of(uniform: Tensor) -> Tensor:
    """Standard normal numbers of uniform ones, by the inverse distribution function."""
    return 2**0.5 * torch.erfinv(2 * uniform.clamp(1e-7, 1 - 1e-7) - 1)
