"""Flow matching on straight paths (Lipman 2022, Liu 2022), with logit-normal times (Esser 2024)."""

import torch
from torch import Tensor

from foodgen.core.registry import processes
from foodgen.diffusion.process import Process, Scales, check_steps, column, normal_of


@processes.add_to_registry(name="flow")
class Flow(Process):
    """x = (1 - t) clean + t noise, t from 0 (clean) to 1; the network's output is the velocity noise - clean.

    logit_mean, logit_deviation  training draws logit t from this normal distribution
    shift                        of the sampling grid towards noise; 1 is even (Esser 2024, equation 23)
    """

    def __init__(self, logit_mean: float = 0.0, logit_deviation: float = 1.0, shift: float = 1.0) -> None:
        super().__init__()
        if min(logit_deviation, shift) <= 0:
            raise ValueError("logit_deviation and shift must be above 0")
        self.logit_mean, self.logit_deviation, self.shift = logit_mean, logit_deviation, shift

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def draw(self, uniform: Tensor) -> Tensor:
        return torch.sigmoid(self.logit_mean + self.logit_deviation * normal_of(uniform))

    def grid(self, steps: int) -> Tensor:
        check_steps(steps)
        t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return self.shift * t / (1 + (self.shift - 1) * t)

    def time_at(self, level: Tensor) -> Tensor:
        return torch.where(level.isinf(), 1.0, level / (1 + level))

    def scales(self, t: Tensor) -> Scales:
        one = column(torch.ones_like(t))
        return Scales(one, one, -column(t), 1000 * t)
