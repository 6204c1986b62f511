"""EDM's stochastic sampler (Karras 2022, algorithm 2), on any process: back up the path a little, then Heun."""

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from foodgen.core.registry import samplers
from foodgen.core.types import Prediction
from foodgen.samplers.deterministic import Heun
from foodgen.samplers.walk import Walk


@samplers.add_to_registry(name="edm_stochastic")
class Stochastic(Heun):
    """Adds fresh noise before each step, which corrects errors of earlier ones.

    churn            how much the whole walk adds (S_churn); 0 is Heun's method
    lowest, highest  noise levels sigma / alpha between which it is added (S_tmin, S_tmax); null: no bound
    noise            deviation of the added noise, in proper units (S_noise)
    """

    def __init__(
        self,
        guidance: Callable[..., Prediction],
        steps: int = 50,
        clip: float | None = None,
        churn: float = 40.0,
        lowest: float = 0.05,
        highest: float | None = 50.0,
        noise: float = 1.003,
    ) -> None:
        super().__init__(guidance, steps, clip)
        if churn < 0 or noise <= 0:
            raise ValueError(f"churn: {churn} is at least 0, and noise: {noise} above 0")
        self.growth = min(churn / steps, math.sqrt(2) - 1)  # gamma
        self.lowest, self.highest, self.scale = lowest, float("inf") if highest is None else highest, noise

    def step(self, walk: Walk, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        level = walk.process.sigma(t) / walk.process.alpha(t)  # type: ignore[operator]
        if self.growth > 0 and self.lowest <= float(level[0]) <= min(
            self.highest, sys.float_info.max
        ):  # of pure noise no more
            back = walk.process.time_at(level * (1 + self.growth))  # type: ignore[operator]
            kept = (walk.process.alpha(back) / walk.process.alpha(t))[:, None, None, None]  # type: ignore[operator]
            x = kept * x + self.scale * walk.process.added(back, t).sqrt() * walk.noise()  # type: ignore[operator]
            t = torch.maximum(back, t)
        return super().step(walk, x, t, s, last)
