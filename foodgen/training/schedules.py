"""Learning rate schedules."""

import math
from collections.abc import Callable

from foodgen.core.registry import schedules


class Schedule:
    """Factor of the learning rate: it rises evenly over `warmup` steps, then follows `after`.

    steps   of the whole training
    warmup  steps
    """

    after: Callable[[float], float]

    def __init__(self, steps: int, warmup: int = 500) -> None:
        if warmup < 0:
            raise ValueError(f"warmup: {warmup} steps is below 0")
        self.steps, self.warmup = steps, warmup

    def __call__(self, step: int) -> float:
        """The factor at step 1, 2, ..., `steps`."""
        if step <= self.warmup:
            return step / (self.warmup + 1)
        return self.after((step - self.warmup - 1) / max(1, self.steps - self.warmup))


@schedules.add_to_registry(name="constant")
class Constant(Schedule):
    """The full rate until the end."""

    after = staticmethod(lambda share: 1.0)


@schedules.add_to_registry(name="cosine")
class Cosine(Schedule):
    """Half a cosine down to zero."""

    after = staticmethod(lambda share: (1 + math.cos(math.pi * share)) / 2)


@schedules.add_to_registry(name="linear")
class Linear(Schedule):
    """Straight down to zero."""

    after = staticmethod(lambda share: 1 - share)


@schedules.add_to_registry(name="warmup_stable_decay")
class WarmupStableDecay(Schedule):
    """The full rate, then straight down to zero over the last part (Hu 2024; Hagele 2024).

    Until the decay begins it does not matter how long the training will be, so that `train.steps` can be set late.
    steps   of the whole training
    warmup  steps
    decay   share of the steps after the warm-up over which the rate falls
    """

    def __init__(self, steps: int, warmup: int = 500, decay: float = 0.3) -> None:
        super().__init__(steps, warmup)
        if not 0 < decay <= 1:
            raise ValueError(f"decay: {decay} is not a share above 0, up to 1")
        self.decay = decay

    def after(self, share: float) -> float:
        return min(1.0, (1 - share) / self.decay)


@schedules.add_to_registry(name="inverse_sqrt")
class InverseSqrt(Schedule):
    """The full rate until step `reference`, then falling like the root of 1 / step (EDM2, equation 67).

    steps      of the whole training
    warmup     steps
    reference  step
    """

    def __init__(self, steps: int, warmup: int = 500, reference: int = 10_000) -> None:
        super().__init__(steps, warmup)
        if reference < 1:
            raise ValueError(f"reference: step {reference} is below 1")
        self.reference = reference

    def __call__(self, step: int) -> float:
        """The factor at step 1, 2, ..."""
        return min(1.0, step / (self.warmup + 1), (self.reference / step) ** 0.5)
