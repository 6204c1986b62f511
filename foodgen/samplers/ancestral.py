"""Ancestral sampling (DDPM, algorithm 2), on any process: back along the bridge, with fresh noise."""

from torch import Tensor

from foodgen.core.registry import samplers
from foodgen.samplers.walk import Walk, Walker


@samplers.add_to_registry(name="ancestral")
class Ancestral(Walker):
    """x_s is drawn from q(x_s | x_t, clean), with the predicted image for the clean one.

    The variance is q's, or what lies between its bounds where the model has learned one (IDDPM, equation 15).
    """

    def step(self, walk: Walk, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        guess = walk.look(x, t)
        mean, deviation = walk.process.bridge(x, guess.clean, t, s)  # type: ignore[operator]
        if last:
            return mean
        if guess.variance_share is not None:
            deviation = (0.5 * walk.process.log_variance(guess.variance_share, t, s)).exp()  # type: ignore[operator]
        return mean + deviation * walk.noise()
