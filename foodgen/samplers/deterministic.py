"""Euler and Heun along the path; Euler on the DDPM process is DDIM (Song 2021)."""

from torch import Tensor

from foodgen.core.registry import samplers
from foodgen.core.types import Prediction
from foodgen.samplers.walk import Walk, Walker


@samplers.add_to_registry(name="euler")
class Euler(Walker):
    """First order: one look a step."""

    def step(self, walk: Walk, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        return x + walk.move(walk.look(x, t), t, s)


@samplers.add_to_registry(name="heun")
class Heun(Walker):
    """Second order: a look from where Euler would land, then the mean of both (EDM, algorithm 1)."""

    def step(self, walk: Walk, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        here = walk.look(x, t)
        landing = x + walk.move(here, t, s)
        if last:
            return landing
        there = walk.look(landing, s)
        mean = Prediction((here.clean + there.clean) / 2, (here.noise + there.noise) / 2)
        return x + walk.move(mean, t, s)
