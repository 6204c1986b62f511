"""The interfaces through which parts meet."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass
class Batch:
    """Encoded images, (batch, channels, height, width), about [-1, 1], and class numbers, (batch,)."""

    images: Tensor
    labels: Tensor

    def split(self, parts: int) -> list["Batch"]:
        """The batch in `parts` pieces of equal size."""
        pairs = zip(self.images.chunk(parts), self.labels.chunk(parts), strict=True)
        return [Batch(images, labels) for images, labels in pairs]


@dataclass
class Prediction:
    """What a denoiser believes an image x_t is made of; all of x_t's shape.

    variance_share  a learned variance's place between its lowest (0) and highest (1), None if it learns none
    """

    clean: Tensor
    noise: Tensor
    variance_share: Tensor | None = None


@dataclass
class Turn:
    """Who moves now, and what it minimises.

    player           the attribute of the objective whose weights receive gradients
    loss             a batch to named scalars: "loss" is minimised, the others are logged
    double_backward  whether the loss holds gradients itself, which DDP cannot follow
    """

    player: str
    loss: Callable[[Batch], dict[str, Tensor]]
    double_backward: bool = False


class Objective(nn.Module, ABC):
    """What is minimised, and by whom. All it holds is checkpointed; `model` is averaged and shipped."""

    model: nn.Module

    @abstractmethod
    def turns(self, step: int) -> list[Turn]:
        """The moves of one training step, in order."""


class Generator(nn.Module, ABC):
    """Noise to images in one look: what a GAN trains and ships.

    noise_shape  of one image's noise

    Noise becomes a latent first, which is the noise itself unless a style network maps it; truncation
    and path length act on latents. `forward` takes noise, (batch, *noise_shape), and labels, (batch,), to
    images about [-1, 1].
    """

    noise_shape: tuple[int, ...]

    def latent(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """What the images are made of, (batch, ..., width)."""
        return noise

    def mean_latent(self) -> Tensor | float:
        """What truncation shrinks latents towards."""
        return 0.0

    @abstractmethod
    def images(self, latent: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        """The images, (batch, channels, size, size), of latents; `noise` for what is random beside them."""

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.images(self.latent(noise, labels), labels, noise)


class Codec(Protocol):
    """The border between pixels, uint8 (batch, 3, height, width), and what the model sees.

    `training` gives the set that training reads, and what makes the model's input of a batch of it.
    """

    shape: tuple[int, ...]

    def encode(self, images: Tensor) -> Tensor: ...
    def decode(self, encoded: Tensor) -> Tensor: ...
    def training(
        self, images: "Images", augment: Any, device: torch.device, batch_size: int
    ) -> tuple["Images", Callable[[Tensor], Tensor]]: ...


class Sampler(Protocol):
    """Noise to samples, with the labels' guidance; `check` raises ValueError if a model cannot be walked so."""

    def check(self, model: nn.Module) -> None: ...
    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor: ...


class Images(Protocol):
    """A set of images with classes: what training and scoring read."""

    classes: list[str]
    labels: Sequence[int]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


class Measure(ABC):
    """A number that says what a model makes of real images; the mean over them is reported."""

    name: str
    lower_is_better: bool
    of_models = True

    @abstractmethod
    def check(self, model: nn.Module) -> None:
        """Raise ValueError if this model cannot be measured so."""

    @abstractmethod
    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """(batch,) of encoded images, (batch, channels, size, size), and labels, (batch,)."""


class FeatureSpace(Protocol):
    """Images to features, in which sets of images are compared.

    width     of the features
    identity  changes with the weights, so that features kept on disk are not taken for others
    """

    width: int
    identity: str

    def __call__(
        self, images: Tensor
    ) -> Tensor: ...  # uint8 (batch, 3, size, size) to float (batch, width), on the CPU


@dataclass
class Evidence:
    """What metrics judge by, all of it in one feature space.

    generated, labels  features, (n, width), and class numbers, (n,)
    real, real_labels  of the images to compare with, (m, width) and (m,)
    training           features of all training images, some at a time, (some, width)
    classify           features to logits, (n, classes), where the space is a classifier's
    """

    generated: Tensor
    labels: Tensor
    real: Tensor
    real_labels: Tensor
    training: Callable[[], Iterator[Tensor]]
    classify: Callable[[Tensor], Tensor] | None = None


class Metric(ABC):
    """Numbers that say how generated images differ from real ones, and in `name` the main one.

    of_sets         whether real images may take the place of generated ones, which gives the number's floor
    needs_training  whether it looks at all training images
    to_training     whether it is taken of generated images and draws of training images as well
    """

    name: str
    lower_is_better: bool
    of_models = False
    of_sets = True
    needs_training = False
    to_training = False

    def check(self, space: FeatureSpace) -> None:
        """Raise ValueError if there is no such number in this space; there is in most."""
        return None

    @abstractmethod
    def __call__(self, evidence: Evidence) -> dict[str, Any]:
        """Numbers by name; what is not a number is a detail, for tables and pictures. Raises ValueError."""
