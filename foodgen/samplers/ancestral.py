"""Ancestral sampling (DDPM, algorithm 2), on any process: back along the bridge, with fresh noise."""

from torch import Tensor

from foodgen.core.registry import samplers
from foodgen.samplers.walk import Walk, Walker


@samplers.add_to_registry(name="ancestral")
class Ancestral(Walker):
    """x_s is drawn from q(x_s | x_t, clean), with the predicted image for the clean one."""

    def step(self, walk: Walk, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        mean, deviation = walk.process.bridge(x, walk.look(x, t).clean, t, s)  # type: ignore[operator]
        return mean if last else mean + deviation * walk.noise()
