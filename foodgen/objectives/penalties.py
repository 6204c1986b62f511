"""Regularisers of GANs: gradient penalties and path length, in float32 outside autocast."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core import distributed
from foodgen.core.devices import full_precision
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import penalties
from foodgen.core.types import Generator


@dataclass
class PenaltyInputs:
    """What a penalty is computed from: both networks, images, (batch, channels, size, size), and labels, (batch,).

    In the discriminator phase `real` and `fake` are augmented: gradients are taken where the discriminator looks.
    pair_weights  of the images in paired penalties, (batch,); all 1 if not given
    """

    model: Any
    discriminator: nn.Module
    real: Tensor
    fake: Tensor
    labels: Tensor
    pair_weights: Tensor | None = None


class Penalty(nn.Module, ABC):
    """A scalar that is added to the loss of one network, every `interval` steps and `interval` times as heavy.

    weight    factor in the loss
    interval  steps, 1 or more (lazy regularisation: StyleGAN2, section 3.1)
    """

    network = "discriminator"
    model_type: type[nn.Module] = nn.Module  # the models that it can regularise
    paired = False  # whether it compares each generated image with the real one of the same index

    def __init__(self, weight: float, interval: int = 1) -> None:
        super().__init__()
        if interval < 1 or weight < 0:
            raise ValueError(f"interval: {interval} is at least 1 and weight: {weight} at least 0 in a penalty")
        self.weight, self.interval = weight, interval

    def forward(self, inputs: PenaltyInputs) -> Tensor:
        """The penalty, before its weight."""
        with full_precision(inputs.real):
            return self.value(inputs)

    @abstractmethod
    def value(self, inputs: PenaltyInputs) -> Tensor:
        """The penalty in float32."""


def squared_gradient_norm(discriminator: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """|grad_x D(x)|^2 at each image, (batch,).

    Calls `forward` itself: torch.compile has no second derivative, and `forward` runs uncompiled.
    """
    images = images.detach().float().requires_grad_(True)
    logits = discriminator.forward(images, labels)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1)


@penalties.add_to_registry(name="r1")
class R1(Penalty):
    """Half the mean squared gradient norm at real images (Mescheder 2018, equation 9); `weight` is gamma."""

    def value(self, inputs: PenaltyInputs) -> Tensor:
        return squared_gradient_norm(inputs.discriminator, inputs.real, inputs.labels).mean() / 2


@penalties.add_to_registry(name="r2")
class R2(Penalty):
    """The same at generated images (Mescheder 2018, equation 10)."""

    def value(self, inputs: PenaltyInputs) -> Tensor:
        return squared_gradient_norm(inputs.discriminator, inputs.fake, inputs.labels).mean() / 2


@penalties.add_to_registry(name="gradient_penalty")
class GradientPenalty(Penalty):
    """Mean squared distance of the gradient norm from `center`, between real and fake images (WGAN-GP, Gulrajani 2017).

    center  1 in WGAN-GP, 0 in the zero-centred variant (Thanh-Tung 2019)
    """

    def __init__(self, weight: float = 10.0, interval: int = 1, center: float = 1.0) -> None:
        super().__init__(weight, interval)
        if center < 0:
            raise ValueError(f"center: a norm of {center} is below 0")
        self.center = center

    def value(self, inputs: PenaltyInputs) -> Tensor:
        mixture = uniform_for(inputs.real)[:, None, None, None]
        interpolated = torch.lerp(inputs.fake.float(), inputs.real.float(), mixture)
        norm = (squared_gradient_norm(inputs.discriminator, interpolated, inputs.labels) + 1e-12).sqrt()
        return (norm - self.center).square().mean()


@penalties.add_to_registry(name="path_length")
class PathLength(Penalty):
    """Path length regularisation (StyleGAN2, equation 4): equal steps in the latent change images equally much.

    decay           rate at which the running mean length follows a batch
    batch_fraction  fraction of the batch that it is computed on, at least one image
    """

    network = "model"
    model_type = Generator
    mean: Tensor

    def __init__(
        self, weight: float = 2.0, interval: int = 4, decay: float = 0.01, batch_fraction: float = 0.5
    ) -> None:
        super().__init__(weight, interval)
        if not 0 < decay <= 1 or not 0 < batch_fraction <= 1:
            raise ValueError(f"decay: {decay} and batch_fraction: {batch_fraction} are in (0, 1]")
        self.decay, self.batch_fraction = decay, batch_fraction
        self.register_buffer("mean", torch.zeros([]))

    def value(self, inputs: PenaltyInputs) -> Tensor:
        # generate anew, with a graph from the latents on
        labels = inputs.labels[: max(1, round(self.batch_fraction * len(inputs.labels)))]
        noise = normal_like(inputs.real.new_empty(len(labels), *inputs.model.noise_shape))
        latent = inputs.model.latent(noise, labels)
        if not latent.requires_grad:  # where the latent is the noise itself
            latent.requires_grad_(True)
        images = inputs.model.images(latent, labels, noise)
        # length of the Jacobian's product with a random image
        projection = normal_like(images) / (images.shape[-1] * images.shape[-2]) ** 0.5
        (gradient,) = torch.autograd.grad((images * projection).sum(), latent, create_graph=True)
        lengths = gradient.square().sum(-1).reshape(len(labels), -1).mean(dim=1).sqrt()
        # distance from the running mean
        target = torch.lerp(self.mean, lengths.mean().detach(), self.decay)
        distributed.average([target])
        self.mean.copy_(target)
        return (lengths - target).square().mean()
