"""The discrete process of DDPM (Ho 2020), with the linear schedule or the cosine one (Nichol 2021)."""

import math
from typing import Literal

import torch
from torch import Tensor

from foodgen.core.registry import processes
from foodgen.diffusion.process import Process, Scales, check_steps, column


@processes.add_to_registry(name="ddpm")
class DDPM(Process):
    """Times are 0 (clean), 1, ..., `length` (noise), as in the paper.

    schedule  "linear": beta from 1e-4 to 0.02 over 1000 times, scaled to other lengths;
              "cosine": alpha squared falls like a squared cosine (IDDPM, equation 17)
    predicts  what the network's output means: "noise" (DDPM, equation 12), "v" = alpha noise - sigma clean
              (Salimans 2022), or the "clean" image itself
    """

    alphas: Tensor
    sigmas: Tensor

    def __init__(
        self,
        schedule: Literal["linear", "cosine"] = "linear",
        predicts: Literal["noise", "v", "clean"] = "noise",
        length: int = 1000,
    ) -> None:
        super().__init__()
        check_steps(length)
        self.length, self.predicts = length, predicts
        squares = torch.cat([torch.ones(1).double(), (1 - _betas(schedule, length)).cumprod(0)])
        self.register_buffer("alphas", squares.sqrt().float(), persistent=False)
        self.register_buffer("sigmas", (1 - squares).sqrt().float(), persistent=False)

    def alpha(self, t: Tensor) -> Tensor:
        return self.alphas[t.long()]

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigmas[t.long()]

    def draw(self, uniform: Tensor) -> Tensor:
        return (uniform * self.length).floor().clamp(max=self.length - 1) + 1

    def grid(self, steps: int) -> Tensor:
        """Evenly spaced from `length` to 0 ("trailing": the first step starts at pure noise)."""
        check_steps(steps, most=self.length)
        return torch.linspace(self.length, 0, steps + 1, dtype=torch.float64).round()

    def bound_grid(self, steps: int) -> Tensor:
        """All times, or as many of them, evenly spaced."""
        return self.grid(min(steps, self.length))

    def time_at(self, level: Tensor) -> Tensor:
        levels = self.sigmas / self.alphas  # rising
        above = torch.searchsorted(levels, level.to(levels).contiguous()).clamp(1, self.length)
        nearer = (levels[above] - level) > (level - levels[above - 1])
        return (above - nearer.long()).to(level)

    def scales(self, t: Tensor) -> Scales:
        alpha, sigma = column(self.alpha(t)), column(self.sigma(t))
        time = t * (1000 / self.length)
        one = torch.ones_like(alpha)
        skip, out = {
            "noise": (1 / alpha, -sigma / alpha),
            "v": (alpha, -sigma),
            "clean": (0 * one, one),
        }[self.predicts]
        return Scales(one, skip, out, time)


def _betas(schedule: str, length: int) -> Tensor:
    """The variance that each of the `length` steps adds, in float64."""
    if schedule == "linear":
        scale = 1000 / length
        return torch.linspace(1e-4 * scale, 0.02 * scale, length, dtype=torch.float64).clamp(max=0.999)
    times = torch.linspace(0, 1, length + 1, dtype=torch.float64)
    squares = ((times + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - squares[1:] / squares[:-1]).clamp(max=0.999)
