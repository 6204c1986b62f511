"""Guidance: how a sampler looks at x_t, with one prediction or with several combined."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from foodgen.core.registry import guidances
from foodgen.core.types import Prediction
from foodgen.diffusion.process import column

Interval = tuple[float, float | None]
EVERYWHERE: Interval = (0.0, None)


@guidances.add_to_registry(name="none")
class NoGuidance:
    """The model's own prediction."""

    def __call__(self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        return model(x, t, labels)

    def check(self, model: nn.Module) -> None:
        """Serves every model."""

    def shift(
        self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor | None, here: Prediction
    ) -> tuple[Tensor | float, Tensor | float]:
        """What is added to the predicted image and noise."""
        return 0.0, 0.0


class Guidance(NoGuidance, ABC):
    """Adds something to the model's prediction while the noise level is within an interval.

    scale     strength
    interval  noise levels sigma / alpha, lowest and highest, in which it acts (Kynkaanniemi 2024); null for
              the highest is no bound
    """

    neutral: float  # the scale at which nothing is added

    def __init__(self, scale: float, interval: Interval = EVERYWHERE) -> None:
        if len(interval) != 2 or not 0 <= interval[0] < (float("inf") if interval[1] is None else interval[1]):
            raise ValueError(f"interval: {list(interval)} is not [lowest, highest] with 0 <= lowest < highest")
        self.scale, self.lowest = scale, interval[0]
        self.highest = float("inf") if interval[1] is None else interval[1]

    def __call__(self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        here = model(x, t, labels)
        clean, noise = self.shift(model, x, t, labels, here)
        return replace(here, clean=here.clean + clean, noise=here.noise + noise)

    def shift(
        self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor | None, here: Prediction
    ) -> tuple[Tensor | float, Tensor | float]:
        level = model.process.sigma(t[:1]) / model.process.alpha(t[:1])  # type: ignore[operator, union-attr]
        if labels is None or self.scale == self.neutral or not self.lowest <= float(level) <= self.highest:
            return 0.0, 0.0
        return self.added(model, x, t, labels, here)

    @abstractmethod
    def added(
        self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, here: Prediction
    ) -> tuple[Tensor | float, Tensor | float]:
        """What is added to the predicted image and noise where guidance acts."""


@guidances.add_to_registry(name="classifier_free")
class ClassifierFree(Guidance):
    """Away from the prediction without a class, towards the one with it (Ho, Salimans 2022).

    scale     1 is no guidance, 2 doubles the difference
    interval  of noise levels
    """

    neutral = 1.0

    def __init__(self, scale: float = 1.5, interval: Interval = EVERYWHERE) -> None:
        super().__init__(scale, interval)

    def added(
        self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, here: Prediction
    ) -> tuple[Tensor | float, Tensor | float]:
        without = model(x, t, torch.full_like(labels, model.null_label))  # type: ignore[arg-type]
        return _away(here, without, self.scale)


@guidances.add_to_registry(name="autoguidance")
class Autoguidance(Guidance):
    """Away from a worse model's prediction: a smaller one, or the same one earlier in training (Karras 2024).

    guide     its checkpoint, exported folder, or run's folder
    scale     1 is no guidance, 2 doubles the difference
    interval  of noise levels
    trained   loads the model of such a folder
    """

    neutral = 1.0

    def __init__(
        self,
        guide: str,
        trained: Callable[[str], nn.Module],
        scale: float = 1.5,
        interval: Interval = EVERYWHERE,
    ) -> None:
        super().__init__(scale, interval)
        self.path, self.guide = guide, trained(guide)

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless the guide denoises the same things along the same path."""
        check_alike(f"guide: {self.path}", self.guide, model)
        if not hasattr(self.guide, "regression"):
            raise ValueError(f"guide: {self.path} holds a {type(self.guide).__name__}, which is no denoiser")

    def added(
        self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, here: Prediction
    ) -> tuple[Tensor | float, Tensor | float]:
        return _away(here, self.guide(x, t, labels), self.scale)


@guidances.add_to_registry(name="classifier")
class Classifier(Guidance):
    """Towards images that a noisy classifier takes for the class (Dhariwal 2021, algorithms 1 and 2).

    classifier  its checkpoint, exported folder, or run's folder
    scale       0 is no guidance; 1 is Bayes' rule, if model and classifier are right
    interval    of noise levels
    trained     loads the model of such a folder

    The score of x_t given the class is the score of x_t plus the gradient of ln p(class | x_t); in terms of
    noise it moves by -sigma times that gradient, in terms of the image by sigma squared over alpha. Pure noise,
    where alpha is 0, tells nothing of the class, and nothing is added.
    """

    neutral = 0.0

    def __init__(
        self,
        classifier: str,
        trained: Callable[[str], nn.Module],
        scale: float = 1.0,
        interval: Interval = EVERYWHERE,
    ) -> None:
        super().__init__(scale, interval)
        self.path, self.classifier = classifier, trained(classifier)

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless the classifier knows the same things along the same path."""
        check_alike(f"classifier: {self.path}", self.classifier, model)
        if not hasattr(self.classifier, "log_probability"):
            raise ValueError(f"classifier: {self.path} holds a {type(self.classifier).__name__}, which is none")

    def added(
        self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor, here: Prediction
    ) -> tuple[Tensor | float, Tensor | float]:
        alpha, sigma = model.process.alpha(t), model.process.sigma(t)  # type: ignore[operator, union-attr]
        if float(alpha[0]) < 1e-6:
            return 0.0, 0.0
        with torch.enable_grad():
            place = x.detach().requires_grad_()
            chosen = self.classifier.log_probability(place, t, labels).sum()  # type: ignore[operator]
            (slope,) = torch.autograd.grad(chosen, place)
        push = self.scale * column(sigma) * slope.float()
        return column(sigma / alpha) * push, -push


@guidances.add_to_registry(name="together")
class Together(NoGuidance):
    """Several guidances at once: what each adds to the model's prediction, summed.

    guidances  each under a label
    """

    def __init__(self, guidances: dict[str, NoGuidance]) -> None:
        self.guidances = guidances

    def __call__(self, model: nn.Module, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        here = model(x, t, labels)
        shifts = [guidance.shift(model, x, t, labels, here) for guidance in self.guidances.values()]
        clean = sum((shift[0] for shift in shifts), start=here.clean)
        noise = sum((shift[1] for shift in shifts), start=here.noise)
        return replace(here, clean=clean, noise=noise)

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if one of them cannot guide this model."""
        for label, guidance in self.guidances.items():
            try:
                guidance.check(model)
            except ValueError as error:
                raise ValueError(f"guidances.{label}.{error}") from None


def _away(here: Prediction, worse: Prediction, scale: float) -> tuple[Tensor, Tensor]:
    return (scale - 1) * (here.clean - worse.clean), (scale - 1) * (here.noise - worse.noise)


def check_alike(what: str, helper: nn.Module, model: nn.Module) -> None:
    """Raise ValueError unless both models see images of one shape along one path of corruption."""
    if not hasattr(helper, "process") or not hasattr(model, "process"):
        raise ValueError(f"{what} holds a {type(helper).__name__}, which knows no noise levels")
    if helper.noise_shape != model.noise_shape:
        raise ValueError(f"{what} sees {helper.noise_shape}, not {model.noise_shape}")
    if getattr(helper.process, "length", None) != getattr(model.process, "length", None):
        raise ValueError(f"{what} was trained along another path than the model's")
    device = next(model.parameters()).device
    if device.type == "meta":  # shapes alone are known
        return
    times = model.process.grid(4).float()[:-1].to(device)  # type: ignore[operator, union-attr]
    for name in ("alpha", "sigma"):
        ours, theirs = (getattr(one.process, name) for one in (model, helper))
        if type(helper.process) is not type(model.process) or not torch.allclose(ours(times), theirs(times)):
            raise ValueError(f"{what} was trained along another path than the model's")
