"""Walking from noise to an image: a subclass says how to take one step."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from foodgen.core.types import Prediction


@dataclass
class Walk:
    """What a step may use: the model's view of x_t, the process, fresh noise, and earlier views."""

    look: Callable[[Tensor, Tensor], Prediction]
    process: nn.Module
    noise: Callable[[], Tensor]
    past: list[tuple[Tensor, Prediction]] = field(default_factory=list)

    def move(self, guess: Prediction, t: Tensor, s: Tensor) -> Tensor:
        """How far x goes from t to s if it is made of `guess`: dx = clean d(alpha) + noise d(sigma)."""
        return self.process.mix(guess.clean, guess.noise, s) - self.process.mix(guess.clean, guess.noise, t)  # type: ignore[operator]


class Walker(ABC):
    """Descends the process's grid of times.

    steps     of the grid
    guidance  how to look at x_t
    clip      bound of the images' values, if the predicted image is to be kept within it
    """

    def __init__(self, guidance: Callable[..., Prediction], steps: int = 50, clip: float | None = None) -> None:
        if steps < 1:
            raise ValueError(f"steps: {steps} is not at least 1")
        self.guidance, self.steps, self.clip = guidance, steps, clip

    @torch.no_grad()
    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor:
        """Samples, (batch, *shape), of a denoiser, starting from `noise()` and drawing more where needed."""
        x = noise()
        times = model.process.grid(self.steps).to(x.device, x.dtype)  # type: ignore[operator, union-attr]
        times = times[:, None].expand(-1, len(x))  # (steps + 1, batch)
        walk = Walk(lambda x, t: self.look(model, x, t, labels), model.process, noise)  # type: ignore[arg-type]
        x = x * walk.process.sigma(times[0])[:, None, None, None]  # type: ignore[operator]
        for number in range(self.steps):
            last = number == self.steps - 1
            x = self.step(walk, x, times[number], times[number + 1], last)
        return x

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if the model has no process, or its process no grid of so many steps."""
        if not hasattr(model, "process"):
            raise ValueError(
                f"name: {type(self).__name__} walks with a denoiser; for {type(model).__name__} use one_shot"
            )
        model.process.grid(self.steps)  # type: ignore[operator, union-attr]
        if hasattr(self.guidance, "check"):
            self.guidance.check(model)

    def look(self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        """The guided view of x_t, its image within the bounds."""
        guess = self.guidance(model, x, t, labels)
        if self.clip is None:
            return guess
        clean = guess.clean.clamp(-self.clip, self.clip)
        noise = model.process.noise_in(x, clean, t)  # type: ignore[operator, union-attr]
        return replace(guess, clean=clean, noise=noise)

    @abstractmethod
    def step(self, walk: Walk, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        """x_s of x_t; s is below t, and clean at the last step."""
