"""Penalties that keep a player smooth: gradients within the loss, in float32, outside autocast."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foodgen.core import distributed
from foodgen.core.devices import full_precision
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import penalties
from foodgen.core.types import Generator


@dataclass
class Scene:
    """What a penalty may look at: both players, and images and labels.

    In the discriminator's turn the images are those that it sees, disturbed; slopes are taken there.
    """

    model: Generator
    discriminator: nn.Module
    real: Tensor
    fake: Tensor
    labels: Tensor


class Penalty(nn.Module, ABC):
    """A scalar that joins its player's loss every `every` steps, `every` times as heavy.

    weight  of the penalty in the loss
    every   steps, 1 or more (lazy regularisation: StyleGAN2, section 3.1)
    """

    player = "discriminator"

    def __init__(self, weight: float, every: int = 1) -> None:
        super().__init__()
        if every < 1 or weight < 0:
            raise ValueError(f"every: {every} is at least 1 and weight: {weight} at least 0 in a penalty")
        self.weight, self.every = weight, every

    def forward(self, scene: Scene) -> Tensor:
        """The penalty's size, before its weight."""
        with full_precision(scene.real):
            return self.size(scene)

    @abstractmethod
    def size(self, scene: Scene) -> Tensor:
        """The penalty's size in float32."""


def slopes(discriminator: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Squared norm of the logit's gradient at each image, (batch,).

    Calls `forward` itself: under torch.compile that runs uncompiled, since compiled code has no second derivative.
    """
    images = images.detach().float().requires_grad_(True)
    logits = discriminator.forward(images, labels)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1)


@penalties.add_to_registry(name="r1")
class R1(Penalty):
    """Half the mean squared slope at real images (Mescheder 2018, equation 9); `weight` is the papers' gamma."""

    def size(self, scene: Scene) -> Tensor:
        return slopes(scene.discriminator, scene.real, scene.labels).mean() / 2


@penalties.add_to_registry(name="r2")
class R2(Penalty):
    """The same at generated images (Mescheder 2018, equation 10)."""

    def size(self, scene: Scene) -> Tensor:
        return slopes(scene.discriminator, scene.fake, scene.labels).mean() / 2


@penalties.add_to_registry(name="gradient_penalty")
class GradientPenalty(Penalty):
    """Mean squared distance of the slope from `center`, between real and fake images (WGAN-GP, Gulrajani 2017).

    center  1 in WGAN-GP, 0 in the zero-centred variant (Thanh-Tung 2019)
    """

    def __init__(self, weight: float = 10.0, every: int = 1, center: float = 1.0) -> None:
        super().__init__(weight, every)
        self.center = center

    def size(self, scene: Scene) -> Tensor:
        share = uniform_for(scene.real)[:, None, None, None]
        between = torch.lerp(scene.fake.float(), scene.real.float(), share)
        slope = (slopes(scene.discriminator, between, scene.labels) + 1e-12).sqrt()
        return (slope - self.center).square().mean()


@penalties.add_to_registry(name="path_length")
class PathLength(Penalty):
    """Equal steps in the latent shall move images equally far (StyleGAN2, equation 4).

    decay  share of the running mean length that a new batch replaces
    part   the share of the batch that it is computed on, one image at least
    """

    player = "model"
    mean: Tensor

    def __init__(self, weight: float = 2.0, every: int = 4, decay: float = 0.01, part: float = 0.5) -> None:
        super().__init__(weight, every)
        if not 0 < decay <= 1 or not 0 < part <= 1:
            raise ValueError(f"decay: {decay} and part: {part} are shares above 0")
        self.decay, self.part = decay, part
        self.register_buffer("mean", torch.zeros([]))

    def size(self, scene: Scene) -> Tensor:
        labels = scene.labels[: max(1, round(self.part * len(scene.labels)))]
        noise = normal_like(scene.real.new_empty(len(labels), *scene.model.noise_shape))
        latent = scene.model.latent(noise, labels)
        if not latent.requires_grad:  # where the latent is the noise itself
            latent.requires_grad_(True)
        images = scene.model.images(latent, labels, noise)
        projection = normal_like(images) / (images.shape[-1] * images.shape[-2]) ** 0.5
        (gradient,) = torch.autograd.grad((images * projection).sum(), latent, create_graph=True)
        lengths = gradient.square().sum(-1).reshape(len(labels), -1).mean(dim=1).sqrt()
        target = torch.lerp(self.mean, lengths.mean().detach(), self.decay)
        distributed.average([target])
        self.mean.copy_(target)
        return (lengths - target).square().mean()
