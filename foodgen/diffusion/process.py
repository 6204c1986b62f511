"""Corruption: x_t = alpha(t) clean + sigma(t) noise, and all that follows from alpha and sigma."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


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

    @abstractmethod
    def scales(self, t: Tensor) -> Scales:
        """What surrounds the network at t."""

    def mix(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, of clean's shape."""
        return column(self.alpha(t)) * clean + column(self.sigma(t)) * noise

    def bridge(self, x: Tensor, clean: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of q(x_s | x_t, clean) for s below t (DDPM, equations 6 and 7).

        Of x_s = alpha_s clean + sigma_s noise, the step on to x_t keeps the share `kept` and adds
        noise of variance `added`; Bayes' rule for Gaussians turns it round.
        """
        kept = column(self.alpha(t) / self.alpha(s))
        variance_t, variance_s = column(self.sigma(t) ** 2), column(self.sigma(s) ** 2)
        added = (variance_t - kept**2 * variance_s).clamp(min=0)
        mean = (kept * variance_s * x + column(self.alpha(s)) * added * clean) / variance_t
        return mean, (variance_s * added / variance_t).sqrt()

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
