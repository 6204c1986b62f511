"""Metrics of models on real images: bits per dimension, accuracy, an autoencoder's error."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core.networks import Autoencoder, Classifier, Denoiser
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import metrics
from foodgen.core.types import FeatureSpace, Metric, MetricInputs


class ModelMetric(Metric):
    """A number of a model on each real image, averaged over them."""

    of_model, of_sets = True, False

    @abstractmethod
    def per_image(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """(batch,) of encoded images, (batch, channels, size, size), and labels, (batch,)."""

    def __call__(self, inputs: MetricInputs) -> dict[str, Any]:
        assert inputs.mean_of_model is not None
        return {self.name: inputs.mean_of_model(self.per_image)}


@metrics.add_to_registry(name="bits_per_dimension")
class BitsPerDimension(ModelMetric):
    """Upper bound on the negative log-likelihood of a pixel's value, in bits (DDPM, section 3.4; IDDPM, section 3).

    steps  number of terms of the bound, or as many as the process has
    terms  terms computed for each image, sampled evenly over all; their mean is unbiased

    Bounds of different processes compare: all are of q(x_s | x_t, x_0) along noise levels.
    """

    name = "bits_per_dimension"
    lower_is_better = True

    def __init__(self, steps: int = 1000, terms: int = 8) -> None:
        if not 1 <= terms <= steps:
            raise ValueError(f"terms: {terms} is not between 1 and steps: {steps}")
        self.steps, self.terms = steps, terms

    def check(self, subject: FeatureSpace | nn.Module) -> None:
        """Raise ValueError unless the model is a denoiser of pixels."""
        if not isinstance(subject, Denoiser) or subject.noise_shape[0] != 3:
            raise ValueError(f"bits_per_dimension: takes a denoiser of pixels; {type(subject).__name__} is none")

    def per_image(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(model, Denoiser)
        timesteps = model.process.vlb_timesteps(self.steps).to(images)
        steps = len(timesteps) - 1
        bits = model.prior_term(images, timesteps[:1].expand(len(images)))
        for term in range(self.terms):
            index = (term + uniform_for(images)) / self.terms * steps
            index = index.long().clamp(max=steps - 1)
            t, s = timesteps[index], timesteps[index + 1]
            x = model.process.q_sample(images, normal_like(images), t)
            bits = bits + model.vlb_term(images, x, t, s, model(x, t, labels)) * steps / self.terms
        return bits


@metrics.add_to_registry(name="accuracy")
class Accuracy(ModelMetric):
    """Fraction of images that a classifier classifies correctly; noisy ones for a classifier of noisy images."""

    name = "accuracy"
    lower_is_better = False

    def check(self, subject: FeatureSpace | nn.Module) -> None:
        """Raise ValueError unless the model is a classifier."""
        if not isinstance(subject, Classifier):
            raise ValueError(f"accuracy: takes a classifier; {type(subject).__name__} is none")

    def per_image(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(model, Classifier)
        return (model.training_logits(images).argmax(dim=1) == labels).float()


@metrics.add_to_registry(name="psnr")
class PSNR(ModelMetric):
    """Peak signal-to-noise ratio of an autoencoder's reconstructions, in decibels."""

    name = "psnr"
    lower_is_better = False

    def check(self, subject: FeatureSpace | nn.Module) -> None:
        """Raise ValueError unless the model is an autoencoder."""
        if not isinstance(subject, Autoencoder):
            raise ValueError(f"psnr: takes an autoencoder; {type(subject).__name__} is none")

    def per_image(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(model, Autoencoder)
        reconstruction = model.decode(model.encode(images)[0], labels).float().clamp(-1, 1)
        error = ((reconstruction - images) ** 2).flatten(1).mean(dim=1)
        return 10 * torch.log10(4 / error.clamp(min=1e-10))
