"""Guidance: how a sampler looks at x_t, with one prediction or with several combined."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foodgen.core.registry import guidances
from foodgen.core.types import Prediction


@guidances.add_to_registry(name="none")
class NoGuidance:
    """The model's own prediction."""

    def __call__(self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        return model(x, t, labels)


@guidances.add_to_registry(name="classifier_free")
class ClassifierFree:
    """Away from the prediction without a class, towards the one with it (Ho, Salimans 2022).

    scale     1 is no guidance, 2 doubles the difference
    interval  noise levels sigma / alpha, lowest and highest, in which it acts (Kynkaanniemi 2024)
    """

    def __init__(self, scale: float = 1.5, interval: Sequence[float] = (0.0, float("inf"))) -> None:
        if len(interval) != 2 or not 0 <= interval[0] < interval[1]:
            raise ValueError(f"interval: {list(interval)} is not [lowest, highest] with 0 <= lowest < highest")
        self.scale, self.interval = scale, interval

    def __call__(self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        level = model.process.sigma(t[:1]) / model.process.alpha(t[:1])  # type: ignore[operator, union-attr]
        lowest, highest = self.interval
        if labels is None or self.scale == 1 or not lowest <= float(level) <= highest:
            return model(x, t, labels)
        null = torch.full_like(labels, model.null_label)  # type: ignore[arg-type]
        both = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, null]))
        clean, without = both.clean.chunk(2)
        noise, noise_without = both.noise.chunk(2)
        return Prediction(
            without + self.scale * (clean - without), noise_without + self.scale * (noise - noise_without)
        )
