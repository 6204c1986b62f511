"""The loop of all diffusion samplers; a subclass takes one step."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from foodgen.core.networks import Denoiser, Guidance, Process
from foodgen.core.types import Prediction, Sampler

MOST_STEPS = 10_000


@dataclass
class SamplerState:
    """What a step may use: the guided denoiser at x_t, the process, fresh noise, and earlier predictions."""

    denoise: Callable[[Tensor, Tensor], Prediction]
    process: Process
    noise: Callable[[], Tensor]
    history: list[tuple[Tensor, Prediction]] = field(default_factory=list)

    def delta(self, prediction: Prediction, t: Tensor, s: Tensor) -> Tensor:
        """x_s - x_t along the path through the prediction: dx = denoised d(alpha) + eps d(sigma)."""
        x_s = self.process.q_sample(prediction.denoised, prediction.eps, s)
        return x_s - self.process.q_sample(prediction.denoised, prediction.eps, t)


class DiffusionSampler(Sampler, ABC):
    """Samples along the process's times.

    steps          number of steps
    guidance       the prediction to follow
    clip_denoised  bound that the denoised image is clipped to, null for none
    sigma_end      noise level sigma / alpha to stop at, for a cascade's second stage that wants a noisy image
                   (truncated conditioning augmentation: Ho 2021, section 3.2); the steps below it are not taken
    """

    has_trajectory = True

    def __init__(
        self, guidance: Guidance, steps: int = 50, clip_denoised: float | None = None, sigma_end: float = 0.0
    ) -> None:
        if not 1 <= steps <= MOST_STEPS or sigma_end < 0:
            raise ValueError(
                f"steps: {steps} is at least 1 and at most {MOST_STEPS}, and sigma_end: {sigma_end} at least 0"
            )
        if clip_denoised is not None and clip_denoised <= 0:
            raise ValueError(f"clip_denoised: {clip_denoised} is not above 0")
        self.guidance, self.steps, self.clip_denoised, self.sigma_end = guidance, steps, clip_denoised, sigma_end

    @torch.no_grad()
    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor:
        """Samples, (batch, *shape), of a denoiser; `noise` gives the first noise, and more where needed."""
        sample, _ = deque(self.trajectory(model, noise, labels), maxlen=1).pop()
        return sample

    @torch.no_grad()
    def trajectory(
        self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """After each step x_s / alpha, the last time the sample, and the denoised image that the step followed."""
        assert isinstance(model, Denoiser)
        x = noise()
        t = self.times(model.process, x)
        t = t[:, None].expand(-1, len(x))  # (steps + 1, batch)
        denoised: list[Tensor] = []

        def denoise(x: Tensor, t: Tensor) -> Prediction:
            prediction = self.denoise(model, x, t, labels)
            denoised.append(prediction.denoised)
            return prediction

        state = SamplerState(denoise, model.process, noise)
        x = x * model.process.sigma(t[0])[:, None, None, None]
        for index in range(len(t) - 1):
            last = self.sigma_end == 0 and index == len(t) - 2
            denoised.clear()
            x = self.step(state, x, t[index], t[index + 1], last)
            yield x / model.process.alpha(t[index + 1])[:, None, None, None], denoised[0]

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if the model is no denoiser, its process has fewer steps, or guidance does not fit."""
        if not isinstance(model, Denoiser):
            raise ValueError(
                f"name: {type(self).__name__} samples from a denoiser; for {type(model).__name__} use one_shot"
            )
        self.times(model.process, next(model.process.buffers(), torch.empty(0)))
        self.guidance.check(model)

    def times(self, process: Process, like: Tensor) -> Tensor:
        """The process's sampling times, those below `sigma_end` replaced by its own. Raises ValueError."""
        t = process.timesteps(self.steps).to(like.device, like.dtype)
        if self.sigma_end == 0:
            return t
        end = process.sigma_to_t(t.new_tensor([self.sigma_end]))
        above = t[(process.sigma(t) > self.sigma_end * process.alpha(t)) & (t > end)]
        if len(above) == 0 or process.sigma(end) == 0:
            raise ValueError(f"sigma_end: {self.sigma_end} is not within the noise levels of the process")
        return torch.cat([above, end])

    def denoise(self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        """The guided prediction at x_t, the denoised image clipped."""
        prediction = self.guidance(model, x, t, labels)
        if self.clip_denoised is None:
            return prediction
        denoised = prediction.denoised.clamp(-self.clip_denoised, self.clip_denoised)
        return replace(prediction, denoised=denoised, eps=model.process.eps(x, denoised, t))

    @abstractmethod
    def step(self, state: SamplerState, x: Tensor, t: Tensor, s: Tensor, last: bool) -> Tensor:
        """x_s of x_t; s is below t, and the image at the last step."""
