"""Guidance: the prediction that a sampler follows, made of one or several predictions."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from foodgen.core.networks import Denoiser, Guidance, NoiseLevelClassifier, Process
from foodgen.core.registry import guidances
from foodgen.core.types import Prediction
from foodgen.diffusion.process import column

Interval = tuple[float, float | None]
Correction = tuple[Tensor | float, Tensor | float]  # added to the denoised image and to eps
EVERYWHERE: Interval = (0.0, None)
STRONGEST = 1000.0  # of scales, of either sign: far beyond all that still gives images


@guidances.add_to_registry(name="none")
class NoGuidance(Guidance):
    """The model's own prediction."""

    def __call__(self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        prediction: Prediction = model(x, t, labels)
        return prediction

    def correction(
        self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor | None, prediction: Prediction
    ) -> Correction:
        """What is added to the denoised image and to eps."""
        return 0.0, 0.0


class IntervalGuidance(NoGuidance, ABC):
    """Corrects the model's prediction where the noise level is within an interval.

    scale     strength
    interval  lowest and highest noise level sigma / alpha (Kynkaanniemi 2024); null for no highest
    """

    neutral: float  # the scale at which there is no correction

    def __init__(self, scale: float, interval: Interval = EVERYWHERE) -> None:
        if len(interval) != 2 or not 0 <= interval[0] < (float("inf") if interval[1] is None else interval[1]):
            raise ValueError(f"interval: {list(interval)} is not [lowest, highest] with 0 <= lowest < highest")
        if not -STRONGEST <= scale <= STRONGEST:
            raise ValueError(f"scale: {scale:g} is not between {-STRONGEST:g} and {STRONGEST:g}")
        self.scale, self.lowest = scale, interval[0]
        self.highest = float("inf") if interval[1] is None else interval[1]

    def __call__(self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        prediction = model(x, t, labels)
        denoised, eps = self.correction(model, x, t, labels, prediction)
        return replace(prediction, denoised=prediction.denoised + denoised, eps=prediction.eps + eps)

    def correction(
        self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor | None, prediction: Prediction
    ) -> Correction:
        sigma = model.process.sigma(t[:1]) / model.process.alpha(t[:1])
        if labels is None or self.scale == self.neutral or not self.lowest <= float(sigma) <= self.highest:
            return 0.0, 0.0
        return self.guide(model, x, t, labels, prediction)

    @abstractmethod
    def guide(self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor, prediction: Prediction) -> Correction:
        """The correction within the interval."""


@guidances.add_to_registry(name="classifier_free")
class ClassifierFreeGuidance(IntervalGuidance):
    """Away from the unconditional prediction, towards the conditional one (Ho, Salimans 2022).

    scale     1 is no guidance, 2 doubles the difference
    interval  of noise levels
    """

    neutral = 1.0

    def __init__(self, scale: float = 1.5, interval: Interval = EVERYWHERE) -> None:
        super().__init__(scale, interval)

    def guide(self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor, prediction: Prediction) -> Correction:
        unconditional = model(x, t, labels.new_full(labels.shape[:1], model.null_label, dtype=torch.long))
        return _extrapolated(prediction, unconditional, self.scale)


@guidances.add_to_registry(name="autoguidance")
class Autoguidance(IntervalGuidance):
    """Away from a worse model's prediction: a smaller one, or the same one earlier in training (Karras 2024).

    guide            its checkpoint, exported folder, or run's folder
    scale            1 is no guidance, 2 doubles the difference
    interval         of noise levels
    load_pretrained  loads the model of such a folder
    """

    neutral = 1.0

    def __init__(
        self,
        guide: str,
        load_pretrained: Callable[[str], nn.Module],
        scale: float = 1.5,
        interval: Interval = EVERYWHERE,
    ) -> None:
        super().__init__(scale, interval)
        self.path, self.guide_model = guide, load_pretrained(guide)

    def check(self, model: Denoiser) -> None:
        """Raise ValueError unless the guide denoises the same images on the same path."""
        if not isinstance(self.guide_model, Denoiser):
            raise ValueError(f"guide: {self.path} holds a {type(self.guide_model).__name__}, not a denoiser")
        check_compatible(f"guide: {self.path}", self.guide_model, model)

    def guide(self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor, prediction: Prediction) -> Correction:
        return _extrapolated(prediction, self.guide_model(x, t, labels), self.scale)


@guidances.add_to_registry(name="classifier")
class ClassifierGuidance(IntervalGuidance):
    """Towards images that a noisy classifier assigns to the class (Dhariwal 2021, algorithms 1 and 2).

    classifier       its checkpoint, exported folder, or run's folder
    scale            0 is no guidance; 1 is Bayes' rule, if model and classifier are right
    interval         of noise levels
    load_pretrained  loads the model of such a folder

    The score of x_t given the class is the score of x_t plus grad ln p(class | x_t): eps changes by -sigma times
    that gradient, the denoised image by sigma^2 / alpha times it. Pure noise, where alpha is 0, has no class, and
    is not guided.
    """

    neutral = 0.0

    def __init__(
        self,
        classifier: str,
        load_pretrained: Callable[[str], nn.Module],
        scale: float = 1.0,
        interval: Interval = EVERYWHERE,
    ) -> None:
        super().__init__(scale, interval)
        self.path, self.classifier = classifier, load_pretrained(classifier)

    def check(self, model: Denoiser) -> None:
        """Raise ValueError unless the classifier knows the same images on the same path."""
        if not isinstance(self.classifier, NoiseLevelClassifier):
            raise ValueError(
                f"classifier: {self.path} holds a {type(self.classifier).__name__}, not a classifier of noisy images"
            )
        check_compatible(f"classifier: {self.path}", self.classifier, model)

    def guide(self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor, prediction: Prediction) -> Correction:
        assert isinstance(self.classifier, NoiseLevelClassifier)
        alpha, sigma = model.process.alpha(t), model.process.sigma(t)
        if float(alpha[0]) < 1e-6:
            return 0.0, 0.0
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_probability = self.classifier.log_probability(x, t, labels).sum()
            (gradient,) = torch.autograd.grad(log_probability, x)
        step = self.scale * column(sigma) * gradient.float()
        return column(sigma / alpha) * step, -step


@guidances.add_to_registry(name="together")
class Together(NoGuidance):
    """Several guidances at once: their corrections are summed.

    guidances  each under a label
    """

    def __init__(self, guidances: dict[str, NoGuidance]) -> None:
        self.guidances = guidances

    def __call__(self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        prediction = model(x, t, labels)
        corrections = [one.correction(model, x, t, labels, prediction) for one in self.guidances.values()]
        denoised = sum((correction[0] for correction in corrections), start=prediction.denoised)
        eps = sum((correction[1] for correction in corrections), start=prediction.eps)
        return replace(prediction, denoised=denoised, eps=eps)

    def check(self, model: Denoiser) -> None:
        """Raise ValueError if one of them cannot guide this model."""
        for label, guidance in self.guidances.items():
            try:
                guidance.check(model)
            except ValueError as error:
                raise ValueError(f"guidances.{label}.{error}") from None


def _extrapolated(prediction: Prediction, worse: Prediction, scale: float) -> Correction:
    return (scale - 1) * (prediction.denoised - worse.denoised), (scale - 1) * (prediction.eps - worse.eps)


def check_compatible(what: str, guide: Denoiser | NoiseLevelClassifier, model: Denoiser) -> None:
    """Raise ValueError unless both see images of one shape on one path."""
    if guide.noise_shape != model.noise_shape:
        raise ValueError(f"{what} was trained on images of shape {guide.noise_shape}, not {model.noise_shape}")
    other, own = guide.process, model.process
    if type(other) is not type(own) or other.num_timesteps != own.num_timesteps or not _same_path(other, own, model):
        raise ValueError(f"{what} was trained on another path than the model's")


def _same_path(other: Process, own: Process, model: nn.Module) -> bool:
    device = next(model.parameters()).device
    if device.type == "meta":  # there are no numbers to compare
        return True
    t = own.timesteps(4).float()[:-1].to(device)
    return torch.allclose(own.alpha(t), other.alpha(t)) and torch.allclose(own.sigma(t), other.sigma(t))
