"""DPM-Solver++(2M) (Lu 2022): second order from the view before, one look a step."""

import torch
from torch import Tensor

from foodgen.core.registry import samplers
from foodgen.samplers.walk import Walk, Walker


@samplers.add_to_registry(name="dpm_solver")
class DPMSolver(Walker):
    """Exponential integrator in the half log signal-to-noise ratio, on the predicted image (algorithm 2)."""

    def step(self, walk: Walk, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        guess = walk.look(x, t)
        if last or not walk.past:  # first order, which is Euler: at the end the ratio is infinite
            walk.past.append((t, guess))
            return x + walk.move(guess, t, s)
        before, earlier = walk.past[-1]
        walk.past[:] = [(t, guess)]
        step, step_before = ratio(walk, s) - ratio(walk, t), ratio(walk, t) - ratio(walk, before)
        extrapolation = (step / (2 * step_before))[:, None, None, None]
        clean = guess.clean + extrapolation * (guess.clean - earlier.clean)
        shrink = (walk.process.sigma(s) / walk.process.sigma(t))[:, None, None, None]  # type: ignore[operator]
        share = (walk.process.alpha(s) * torch.expm1(-step))[:, None, None, None]  # type: ignore[operator]
        return shrink * x - share * clean


def ratio(walk: Walk, t: Tensor) -> Tensor:
    """lambda(t) = ln(alpha / sigma), (batch,)."""
    return (walk.process.alpha(t) / walk.process.sigma(t)).log()  # type: ignore[operator]
