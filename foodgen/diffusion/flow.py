"""Flow matching on straight paths (Lipman 2022, Liu 2022), with logit-normal times (Esser 2024)."""

import torch
from torch import Tensor

from foodgen.core.registry import processes
from foodgen.diffusion.process import GaussianProcess, Preconditioning, check_steps, column, normal_of


@processes.add_to_registry(name="flow")
class Flow(GaussianProcess):
    """x = (1 - t) x_0 + t eps, t from 0 (image) to 1 (noise); the network predicts the velocity eps - x_0.

    logit_mean, logit_std  training draws logit t from this normal distribution
    shift                  of the sampling times towards noise; 1 is even (Esser 2024, equation 23)
    """

    def __init__(self, logit_mean: float = 0.0, logit_std: float = 1.0, shift: float = 1.0) -> None:
        super().__init__()
        if min(logit_std, shift) <= 0:
            raise ValueError("logit_std and shift must be above 0")
        self.logit_mean, self.logit_std, self.shift = logit_mean, logit_std, shift

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def sample_t(self, uniform: Tensor) -> Tensor:
        return torch.sigmoid(self.logit_mean + self.logit_std * normal_of(uniform))

    def timesteps(self, steps: int) -> Tensor:
        check_steps(steps)
        t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return self.shift * t / (1 + (self.shift - 1) * t)

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        return torch.where(sigma.isinf(), 1.0, sigma / (1 + sigma))

    def preconditioning(self, t: Tensor) -> Preconditioning:
        one = column(torch.ones_like(t))
        return Preconditioning(c_in=one, c_skip=one, c_out=-column(t), c_noise=1000 * t)
