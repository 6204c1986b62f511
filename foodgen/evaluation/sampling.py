"""The sampling loop, the labels to sample, and metrics of models on real images."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from foodgen.core import distributed
from foodgen.core.errors import ConfigError, DataError, UserError
from foodgen.core.randomness import Noise, isolated_randomness
from foodgen.core.types import Codec, Images, OfModel, Sampler

log = logging.getLogger("foodgen")
COLLAPSED = 0.1  # of the real diversity
ImageBatch = tuple[Sequence[int], Tensor]  # indices of images, and uint8 (batch, 3, size, size) on the CPU
Labels = Sequence[int] | Sequence[Sequence[float]]
NoiseSource = Callable[..., Callable[[], Tensor]]  # (seed, indices, shape, device) to a function that returns noise


def balanced_labels(count: int, classes: Sequence[int]) -> list[int]:
    """`count` labels in ascending order, distributed over `classes` as evenly as possible."""
    return sorted(classes[index % len(classes)] for index in range(count))


def matching_labels(count: int, reference: Images) -> list[int]:
    """`count` labels in ascending order, in the proportions of the reference as nearly as possible."""
    real = Counter(reference.labels)
    exact = {label: count * real[label] / len(reference) for label in range(len(reference.classes))}
    counts = {label: int(number) for label, number in exact.items()}
    for label in sorted(exact, key=lambda label: counts[label] - exact[label])[: count - sum(counts.values())]:
        counts[label] += 1
    return [label for label in sorted(counts) for _ in range(counts[label])]


def check_proportions(labels: Sequence[int], reference: Images, key: str) -> None:
    """Raise ConfigError, naming a class, unless classes have the same proportions in both sets, to 2 % of each.

    key  that sets the count, for the message
    """
    generated, real = Counter(labels), Counter(reference.labels)
    fitting = len(reference) // math.gcd(*real.values())
    nearest = max(1, round(len(labels) / fitting)) * fitting
    for label, name in enumerate(reference.classes):
        if abs(generated[label] * len(reference) - real[label] * len(labels)) > 0.02 * real[label] * len(labels):
            raise ConfigError(
                f"{key}: class {name} would have {generated[label]} of {len(labels)} generated images, but has "
                f"{real[label]} of {len(reference)} real ones: no fair score. {key}={nearest} of all classes fits; "
                f"so does inference.metrics=[]"
            )


class SamplingLoop:
    """Samples images: the same ones for every batch size and number of processes.

    sampler     noise to samples
    codec       samples to pixels
    batch_size  images sampled at a time, by each process
    autocast    a context for the network
    """

    def __init__(
        self,
        sampler: Sampler,
        codec: Codec,
        device: torch.device,
        batch_size: int,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.sampler, self.codec, self.device = sampler, codec, device
        self.batch_size, self.autocast = batch_size, autocast
        self.generates = sampler.generates

    @torch.no_grad()
    def __call__(self, model: nn.Module, labels: Labels, seed: int, source: NoiseSource = Noise) -> Tensor:
        """uint8 images on the CPU, (len(labels), 3, size, size); image i depends on (seed, i) and its label.

        labels  class numbers, or mixtures of classes: a weight for each class
        """
        parts = [images for _, images in self.batches(model, labels, seed, source)]
        return interleave(distributed.gather(torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)))

    @torch.no_grad()
    def batches(self, model: nn.Module, labels: Labels, seed: int, source: NoiseSource = Noise) -> Iterator[ImageBatch]:
        """This process's images batch by batch."""
        own = range(distributed.rank(), len(labels), distributed.world_size())
        starts = range(0, len(own), self.batch_size)
        for start in tqdm(starts, desc="sampling", unit="batch", disable=None, leave=False):
            indices = own[start : start + self.batch_size]
            noise, asked = self._inputs(model, labels, seed, indices, source)
            try:
                with self.autocast():
                    images = self.codec.decode(self.sampler(model, noise, asked), asked).cpu()
            except torch.OutOfMemoryError as error:
                raise UserError(f"sampling: the device's memory is full; lower data.val_batch_size ({error})") from None
            yield indices, images

    @torch.no_grad()
    def trajectory(self, model: nn.Module, labels: Labels, seed: int, source: NoiseSource = Noise) -> Iterator[Tensor]:
        """Images in the making, all in one batch: the denoised ones of each step, at last the samples."""
        noise, asked = self._inputs(model, labels, seed, range(len(labels)), source)
        steps = self.sampler.trajectory(model, noise, asked)
        while True:
            with self.autocast():  # not while the caller has the images
                step = next(steps, None)
                if step is None:
                    break
                sample, denoised = step
                images = self.codec.decode(denoised, asked).cpu()
            yield images
        with self.autocast():
            images = self.codec.decode(sample, asked).cpu()
        yield images

    def _inputs(
        self, model: Any, labels: Labels, seed: int, indices: Sequence[int], source: NoiseSource
    ) -> tuple[Callable[[], Tensor], Tensor]:
        noise = source(seed, indices, model.noise_shape, self.device)
        return noise, torch.tensor([labels[index] for index in indices], device=self.device)


class ModelEvaluator:
    """Averages a number of a model over real images.

    images      real ones
    encode      uint8 images to the model's input
    batch_size  images at a time
    autocast    a context for the network
    """

    def __init__(
        self,
        images: Images,
        encode: Callable[[Tensor], Tensor],
        device: torch.device,
        batch_size: int,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.images, self.encode = images, encode
        self.device, self.batch_size, self.autocast = device, batch_size, autocast

    @torch.no_grad()
    def __call__(self, model: nn.Module, seed: int, per_image: OfModel) -> float:
        """The mean of `per_image`, whose noise follows from `seed` and the images' index."""
        total = 0.0
        starts = range(0, len(self.images), self.batch_size)
        own = starts[distributed.rank() :: distributed.world_size()]
        for start in tqdm(own, desc="evaluating", unit="batch", disable=None, leave=False):
            pairs = [self.images[index] for index in range(start, min(start + self.batch_size, len(self.images)))]
            labels = torch.tensor([label for _, label in pairs], device=self.device)
            with isolated_randomness(seed, start):
                images = self.encode(torch.stack([pixels for pixels, _ in pairs]).to(self.device))
                with self.autocast():
                    total += per_image(model, images, labels).sum().item()
        return sum(distributed.gather(total)) / len(self.images)


def warn_of_collapse(what: str, ratios: Mapping[str, float]) -> None:
    """Warn if classes have less than a tenth of the diversity of real images."""
    low = sorted((ratio, name) for name, ratio in ratios.items() if ratio < COLLAPSED)
    if low:
        names = ", ".join(f"{name} ({ratio:.1%})" for ratio, name in low[:5])
        log.warning(
            "mode collapse: the %s of %d of %d classes vary less than a tenth as much as real images': %s%s",
            *(what, len(low), len(ratios), names, " ..." if len(low) > 5 else ""),
        )


def batches_of(images: Images | Tensor, batch_size: int) -> Iterator[ImageBatch]:
    """This process's share of images that are there already, batch by batch, as `SamplingLoop.batches` gives them."""
    own = range(distributed.rank(), len(images), distributed.world_size())
    for start in range(0, len(own), batch_size):
        indices = own[start : start + batch_size]
        yield indices, images[list(indices)] if isinstance(images, Tensor) else images.batch(indices)[0]


def interleave(parts: Sequence[Tensor]) -> Tensor:
    """Undo `whole[rank::world_size]`."""
    total = sum(len(part) for part in parts)
    whole = parts[0].new_empty(total, *parts[0].shape[1:])  # the first process has an image if any has
    for rank, part in enumerate(parts):
        if len(part):
            whole[rank :: len(parts)] = part
    return whole


class ImageFolder:
    """Generated images as <folder>/<class>/<index>.png.

    labels   class numbers of all images
    classes  names
    """

    def __init__(self, folder: Path, labels: Sequence[int], classes: Sequence[str]) -> None:
        self.folder, self.labels, self.classes = folder, labels, classes
        self.digits = max(5, math.ceil(math.log10(len(labels) + 1)))

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.folder / self.classes[self.labels[index]] / f"{index:0{self.digits}d}.png"

    def write(self, indices: Sequence[int], images: Tensor) -> None:
        """Write images, uint8 (batch, 3, size, size). Raises DataError if that fails."""
        try:
            for index, image in zip(indices, images, strict=True):
                path = self.path(index)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        except OSError as error:
            raise DataError(f"{self.folder}: images cannot be written ({error})") from None

    def read(self, index: int) -> Tensor:
        """An image, uint8 (3, size, size)."""
        with Image.open(self.path(index)) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
