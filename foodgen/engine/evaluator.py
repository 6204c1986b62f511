"""Drawing images with a model, of which labels, and measuring it on real images."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from foodgen.core import distributed
from foodgen.core.errors import ConfigError, DataError, UserError
from foodgen.core.randomness import Noise, alone
from foodgen.core.types import Codec, Images, Measure, Sampler

log = logging.getLogger("foodgen")
COLLAPSED = 0.1  # share of real variety


def balanced_labels(count: int, classes: Sequence[int]) -> list[int]:
    """`count` labels in ascending order, as evenly spread over `classes` as can be."""
    return sorted(classes[number % len(classes)] for number in range(count))


def matching_labels(count: int, reference: Images) -> list[int]:
    """`count` labels in ascending order, in the shares of the reference as nearly as can be."""
    real = Counter(reference.labels)
    exact = {label: count * real[label] / len(reference) for label in range(len(reference.classes))}
    counts = {label: int(share) for label, share in exact.items()}
    for label in sorted(exact, key=lambda label: counts[label] - exact[label])[: count - sum(counts.values())]:
        counts[label] += 1
    return [label for label in sorted(counts) for _ in range(counts[label])]


def check_shares(labels: Sequence[int], reference: Images, key: str) -> None:
    """Raise ConfigError, naming a class, unless both sets have the same shares of classes, to 2 % of each.

    key  that sets the count, for the message
    """
    drawn, real = Counter(labels), Counter(reference.labels)
    fitting = len(reference) // math.gcd(*real.values())
    nearest = max(1, round(len(labels) / fitting)) * fitting
    for label, name in enumerate(reference.classes):
        if abs(drawn[label] * len(reference) - real[label] * len(labels)) > 0.02 * real[label] * len(labels):
            raise ConfigError(
                f"{key}: class {name} would have {drawn[label]} of {len(labels)} generated images, but has "
                f"{real[label]} of {len(reference)} real ones: no fair score. {key}={nearest} of all classes fits; "
                f"so does scoring by no metric"
            )


class Drawer:
    """Draws images, the same ones whatever the batch size and the number of processes.

    sampler     noise to samples
    codec       samples to pixels
    batch_size  images drawn at a time, by each process
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
        self.draws = getattr(sampler, "draws", True)

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, labels: Sequence[int], seed: int, source: Callable[..., Callable[[], Tensor]] = Noise
    ) -> Tensor:
        """uint8 images on the CPU, (len(labels), 3, size, size); image i depends on (seed, i) and its label.

        source  (seed, indices, shape, device) to what noise is taken from
        """
        mine = range(distributed.rank(), len(labels), distributed.world_size())
        parts = []
        starts = range(0, len(mine), self.batch_size)
        for start in tqdm(starts, desc="drawing", unit="batch", disable=None, leave=False):
            indices = mine[start : start + self.batch_size]
            noise = source(seed, indices, model.noise_shape, self.device)
            wanted = torch.tensor([labels[index] for index in indices], device=self.device)
            try:
                with self.autocast():
                    parts.append(self.codec.decode(self.sampler(model, noise, wanted)).cpu())
            except torch.OutOfMemoryError as error:
                raise UserError(f"drawing: the device's memory is full; lower data.val_batch_size ({error})") from None
        return interleave(distributed.gather(torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)))


class Measurer:
    """Measures a model on real images.

    measures    by name
    images      real ones
    encode      uint8 images to what the model sees
    batch_size  images at a time
    autocast    a context for the network
    """

    def __init__(
        self,
        measures: Sequence[Measure],
        images: Images,
        encode: Callable[[Tensor], Tensor],
        device: torch.device,
        batch_size: int,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.measures, self.images, self.encode = measures, images, encode
        self.device, self.batch_size, self.autocast = device, batch_size, autocast

    @torch.no_grad()
    def __call__(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Every measure's mean over the images, whose noise follows from `seed` and their place."""
        total = {measure.name: 0.0 for measure in self.measures}
        starts = range(0, len(self.images), self.batch_size)
        mine = starts[distributed.rank() :: distributed.world_size()]
        for start in tqdm(mine, desc="measuring", unit="batch", disable=None, leave=False):
            pairs = [self.images[index] for index in range(start, min(start + self.batch_size, len(self.images)))]
            labels = torch.tensor([label for _, label in pairs], device=self.device)
            with alone(seed, start):
                images = self.encode(torch.stack([pixels for pixels, _ in pairs]).to(self.device))
                for measure in self.measures:
                    with self.autocast():
                        total[measure.name] += measure(model, images, labels).sum().item()
        parts = distributed.gather(total)
        return {name: sum(part[name] for part in parts) / len(self.images) for name in total}


def warn_of_collapse(what: str, shares: Mapping[str, float]) -> None:
    """Warn if some classes have less than a tenth of the variety of real images."""
    low = sorted((share, name) for name, share in shares.items() if share < COLLAPSED)
    if low:
        names = ", ".join(f"{name} ({share:.1%})" for share, name in low[:5])
        log.warning(
            "collapse: the %s of %d of %d classes vary less than a tenth as much as real images': %s%s",
            *(what, len(low), len(shares), names, " ..." if len(low) > 5 else ""),
        )


def interleave(parts: Sequence[Tensor]) -> Tensor:
    """Undo `whole[rank::world_size]`."""
    total = sum(len(part) for part in parts)
    whole = parts[0].new_empty(total, *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def save_images(images: Tensor, labels: Sequence[int], classes: Sequence[str], folder: Path) -> None:
    """Write <folder>/<class>/<number>.png. Raises DataError if that fails."""
    from PIL import Image

    digits = max(5, math.ceil(math.log10(len(images) + 1)))
    try:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / classes[label] / f"{number:0{digits}d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    except OSError as error:
        raise DataError(f"{folder}: images cannot be written ({error})") from None
