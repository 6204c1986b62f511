"""The interfaces through which parts meet."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    """A denoiser's prediction at x_t = alpha x_0 + sigma eps; all of x_t's shape.

    denoised  the predicted x_0
    eps       the predicted noise
    v         a learned variance in log space, between its lower bound (0) and upper bound (1) (IDDPM, equation 15);
              None if it is not learnt
    """

    denoised: Tensor
    eps: Tensor
    v: Tensor | None = None


@dataclass
class Phase:
    """One optimizer step within a training step.

    network          the objective's attribute whose weights are updated
    loss             a batch to named scalars: "loss" is minimised, the others are logged
    double_backward  whether the loss contains gradients itself, which DDP cannot follow
    """

    network: str
    loss: Callable[[Batch], dict[str, Tensor]]
    double_backward: bool = False


class Objective(nn.Module, ABC):
    """The losses of a training. All modules are checkpointed; `model` is averaged and exported."""

    model: nn.Module

    @abstractmethod
    def phases(self, step: int) -> list[Phase]:
        """The optimizer steps of one training step, in order."""


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
    """Pixels, uint8 (batch, 3, height, width), to the model's input, (batch, *shape), and back.

    `decoder` is the network behind `decode`, if there is one.
    `identity` changes with the weights that `encode` depends on, None if there are none: a model goes with the codec
    that it was trained with.
    `training_set` returns the set that training reads, which may take long; `training_input` turns a batch of it into
    the model's input.
    """

    shape: tuple[int, ...]
    decoder: nn.Module | None
    identity: str | None

    def encode(self, images: Tensor) -> Tensor: ...
    def decode(self, encoded: Tensor, labels: Tensor | None = None) -> Tensor: ...
    def training_set(self, images: "Images", augment: "Augment", device: torch.device, batch_size: int) -> "Images": ...
    def training_input(self, batch: Tensor, augment: "Augment") -> Tensor: ...


class Sampler(ABC):
    """Noise to samples.

    generates       whether it makes images
    has_trajectory  whether it denoises images step by step
    needs_images    whether it makes them of validation images
    """

    generates = True
    needs_images = False
    has_trajectory = False

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if it cannot sample from this model."""
        return None

    @abstractmethod
    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor:
        """Samples, (batch, *shape); each call of `noise` gives standard normal noise, (batch, *noise_shape).

        labels  class numbers, (batch,), or mixtures of classes, (batch, classes)
        """

    def trajectory(
        self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What there is after each step, at last the sample; and the denoised image that the step followed."""
        sample = self(model, noise, labels)
        yield sample, sample


class TrackerBackend(ABC):
    """Where a run's rows and images are sent to beside metrics.jsonl, such as W&B."""

    @classmethod
    def check(cls) -> None:
        """Raise ConfigError if a package is missing."""
        return None

    @abstractmethod
    def log(self, row: Mapping[str, Any]) -> None:
        """Send a row: numbers by name, "step" among them."""

    @abstractmethod
    def image(self, step: int, name: str, path: Path) -> None:
        """Send an image's file."""

    def table(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send a table, whose rows have the same columns, if the backend has tables."""
        return None

    @abstractmethod
    def close(self, status: int) -> None:
        """End the run; status 0 for success."""


class FileListing(Protocol):
    """The files of a set: their folder, their names relative to it, and a hash that changes with them."""

    @property
    def folder(self) -> Path: ...
    @property
    def files(self) -> Sequence[str]: ...
    def digest(self) -> str: ...


class Images(Protocol):
    """A set of images with classes. An image is uint8 (3, size, size), a batch (batch, 3, size, size)."""

    @property
    def classes(self) -> list[str]: ...
    @property
    def labels(self) -> Sequence[int]: ...
    @property
    def listing(self) -> FileListing: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...
    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]: ...


class Augment(Protocol):
    """A random change of training images, uint8 (batch, 3, size, size); `variants` are its possible outcomes."""

    variants: Sequence[Callable[[Tensor], Tensor]]

    def __call__(self, images: Tensor) -> Tensor: ...


class FeatureSpace(ABC):
    """Images to features, in which sets of images are compared.

    width         of the features
    identity      changes with the weights, so that cached features are not taken for others
    cached        whether features of real images are worth keeping on disk
    saw_training  whether the features were learnt from the training images, which then give no real-data baseline
    """

    width: int
    identity: str
    cached = True
    saw_training = False

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (batch, 3, size, size) to float32 on the CPU, (batch, width)."""

    def classifier(self) -> Callable[[Tensor], Tensor] | None:
        """Features, (n, width), to logits, (n, classes); None where the space is no classifier's."""
        return None


OfModel = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (model, encoded images, labels) to a number an image


@dataclass
class MetricInputs:
    """What a metric is computed from: images in one feature space, or the model.

    generated, labels  features, (n, width), and class numbers, (n,)
    real, real_labels  of the images to compare with, (m, width) and (m,)
    training           features of all training images in chunks, (chunk, width)
    classify           features to logits, (n, classes), where the space is a classifier's
    mean_of_model      mean over the real images of a number of the model, for metrics in the space "model"
    """

    generated: Tensor
    labels: Tensor
    real: Tensor
    real_labels: Tensor
    training: Callable[[], Iterator[Tensor]]
    classify: Callable[[Tensor], Tensor] | None = None
    mean_of_model: Callable[[OfModel], float] | None = None


class Metric(ABC):
    """Numbers of generated images compared with real ones, or of a model; the main one is called `name`.

    of_model        whether it is computed from the model on real images, and not from generated images
    of_sets         whether real images may take the place of generated ones, which gives a real-data baseline
    needs_training  whether it looks at all training images
    to_training     whether it is also computed between generated images and subsets of the training images
    of_classes      whether it cannot be computed without the images' classes
    """

    name: str
    lower_is_better: bool
    of_model = False
    of_sets = True
    needs_training = False
    to_training = False
    of_classes = False

    def check(self, subject: FeatureSpace | nn.Module) -> None:
        """Raise ValueError if there is no such number in this feature space, or of this model."""
        return None

    @abstractmethod
    def __call__(self, inputs: MetricInputs) -> dict[str, Any]:
        """Numbers by name; what is not a number is a detail, for tables and pictures. Raises ValueError."""
