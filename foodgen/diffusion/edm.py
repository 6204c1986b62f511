"""The process and preconditioning of EDM (Karras 2022): the time is the noise's deviation."""

import torch
from torch import Tensor

from foodgen.core.registry import processes
from foodgen.diffusion.process import Process, Scales, check_steps, column, normal_of


@processes.add_to_registry(name="edm")
class EDM(Process):
    """x = clean + sigma noise. Defaults are the paper's table 1.

    data_deviation          of the images' values (sigma_data)
    log_mean, log_deviation training draws ln sigma from this normal distribution (P_mean, P_std)
    smallest, largest, rho  the sampling grid (equation 5)
    """

    def __init__(
        self,
        data_deviation: float = 0.5,
        log_mean: float = -1.2,
        log_deviation: float = 1.2,
        smallest: float = 0.002,
        largest: float = 80.0,
        rho: float = 7.0,
    ) -> None:
        super().__init__()
        if not 0 < smallest < largest:
            raise ValueError(f"smallest, largest: 0 < {smallest} < {largest} does not hold")
        if min(data_deviation, log_deviation, rho) <= 0:
            raise ValueError("data_deviation, log_deviation and rho must be above 0")
        self.data_deviation, self.log_mean, self.log_deviation = data_deviation, log_mean, log_deviation
        self.smallest, self.largest, self.rho = smallest, largest, rho

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def draw(self, uniform: Tensor) -> Tensor:
        return (self.log_mean + self.log_deviation * normal_of(uniform)).exp()

    def grid(self, steps: int) -> Tensor:
        check_steps(steps)
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        top, bottom = self.largest ** (1 / self.rho), self.smallest ** (1 / self.rho)
        return torch.cat([(top + ramp * (bottom - top)) ** self.rho, torch.zeros(1)])  # equation 5

    def time_at(self, level: Tensor) -> Tensor:
        return level

    def scales(self, t: Tensor) -> Scales:
        """Table 1; `time` is a thousand times the paper's c_noise, as our sinusoids want it."""
        sigma, deviation = column(t), self.data_deviation
        total = sigma**2 + deviation**2
        return Scales(total.rsqrt(), deviation**2 / total, sigma * deviation * total.rsqrt(), 250 * t.log())
