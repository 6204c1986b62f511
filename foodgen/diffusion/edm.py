"""The process and preconditioning of EDM (Karras 2022): t is sigma."""

import torch
from torch import Tensor

from foodgen.core.registry import processes
from foodgen.diffusion.process import GaussianProcess, Preconditioning, check_steps, column, normal_of


@processes.add_to_registry(name="edm")
class EDM(GaussianProcess):
    """x = x_0 + sigma eps. Defaults are the paper's table 1.

    sigma_data     standard deviation of the images' values
    p_mean, p_std  training draws ln sigma from this normal distribution (P_mean, P_std)
    sigma_min, sigma_max, rho  of the sampling times (equation 5)
    """

    def __init__(
        self,
        sigma_data: float = 0.5,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
    ) -> None:
        super().__init__()
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"sigma_min, sigma_max: 0 < {sigma_min} < {sigma_max} does not hold")
        if min(sigma_data, p_std, rho) <= 0:
            raise ValueError("sigma_data, p_std and rho must be above 0")
        self.sigma_data, self.p_mean, self.p_std = sigma_data, p_mean, p_std
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def sample_t(self, uniform: Tensor) -> Tensor:
        return (self.p_mean + self.p_std * normal_of(uniform)).exp()

    def timesteps(self, steps: int) -> Tensor:
        check_steps(steps)
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        first, last = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return torch.cat([(first + ramp * (last - first)) ** self.rho, torch.zeros(1)])  # equation 5

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        return sigma

    def preconditioning(self, t: Tensor) -> Preconditioning:
        """Table 1; c_noise is a thousand times the paper's, on the scale of the sinusoidal embedding."""
        sigma, sigma_data = column(t), self.sigma_data
        total = sigma**2 + sigma_data**2
        return Preconditioning(
            c_in=total.rsqrt(),
            c_skip=sigma_data**2 / total,
            c_out=sigma * sigma_data * total.rsqrt(),
            c_noise=250 * t.log(),
        )
