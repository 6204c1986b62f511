"""Feature spaces beside Inception's, in which images are compared; and features of whole sets, cached on disk."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from foodgen.core.files import atomic
from foodgen.core.networks import FeatureClassifier, FeatureMaps
from foodgen.core.registry import spaces
from foodgen.core.types import FeatureSpace, Images


def hash_of(network: nn.Module) -> str:
    """A hash of all weights."""
    whole = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        whole.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return whole.hexdigest()[:16]


@spaces.add_to_registry(name="pixels")
class Pixels(FeatureSpace):
    """The pixels themselves, in [0, 1]: distances are of colours at each position."""

    identity = "pixels"
    cached = False  # they are computed as quickly as read

    def __init__(self, image_size: int) -> None:
        self.width = 3 * image_size**2

    def __call__(self, images: Tensor) -> Tensor:
        return images.cpu().flatten(1).float() / 255


@spaces.add_to_registry(name="classifier")
class ClassifierSpace(FeatureSpace):
    """Features and logits of a classifier trained on the training photos alone (`configs/classifier.yaml`).

    path             its run, checkpoint or exported folder
    load_pretrained  loads the model of such a folder
    image_size       of the images

    Raises ValueError if it is no classifier of clean images of this size.
    """

    saw_training = True

    def __init__(
        self, path: str, load_pretrained: Callable[[str], nn.Module], image_size: int, device: torch.device
    ) -> None:
        network = load_pretrained(path)
        if not isinstance(network, FeatureClassifier):
            raise ValueError(f"path: {path} is no classifier of clean images; configs/classifier.yaml trains one")
        size = network.noise_shape[-1]
        if size != image_size:
            raise ValueError(f"path: {path} was trained on images of {size} pixels a side, these have {image_size}")
        self.network, self.device = network, device
        self.width, self.identity = network.feature_width, hash_of(network)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return self.network.features(images.to(self.device).float() / 127.5 - 1).float().cpu()

    def classifier(self) -> Callable[[Tensor], Tensor]:
        return self._classify

    @torch.no_grad()
    def _classify(self, features: Tensor) -> Tensor:
        return self.network.classify(features.to(self.device)).cpu()


@spaces.add_to_registry(name="pretrained")
class Pretrained(FeatureSpace):
    """Spatial mean of the last feature map of a pretrained network, such as EfficientNet-Lite.

    features  the network
    """

    def __init__(self, features: FeatureMaps, device: torch.device) -> None:
        self.network, self.device = features.to(device).eval(), device
        self.width = features.widths[-1]
        self.identity = f"{hash_of(features)}-{features.resolution}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        maps: list[Tensor] = self.network(images.to(self.device).float() / 127.5 - 1)
        return maps[-1].float().mean(dim=(2, 3)).cpu()


class Subset:
    """Some images of a set."""

    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        self.images, self.indices = images, indices

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images, uint8 (batch, 3, size, size), and class numbers, (batch,)."""
        return self.images.batch([self.indices[position] for position in positions])


def features_of(space: FeatureSpace, images: Images | Subset, batch_size: int, cache: Path | None = None) -> Tensor:
    """Features of a whole set, (count, width), cached under a hash of its content.

    cache  a folder for features of earlier calls; if it cannot be written nothing is cached
    """
    path = None
    if cache is not None and space.cached:
        whole = hashlib.sha256(space.identity.encode())
        for part in _batches(len(images), batch_size):
            whole.update(images.batch(part)[0].numpy().tobytes())
        path = cache / f"{whole.hexdigest()[:32]}.npy"
        found = _read(path, len(images))
        if found is not None:
            return found
    features = torch.cat(list(features_in_chunks(space, images, batch_size)))
    if path is not None:
        _write(path, features)
    return features


def features_in_chunks(
    space: FeatureSpace, images: Images | Subset, batch_size: int, cache: Path | None = None
) -> Iterator[Tensor]:
    """The same in chunks, where they are not cached: pixels of a large set do not fit into memory."""
    if cache is not None and space.cached:
        yield from features_of(space, images, batch_size, cache).split(batch_size)
        return
    for part in _batches(len(images), batch_size):
        yield space(images.batch(part)[0])


def _batches(count: int, batch_size: int) -> list[range]:
    return [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


def _read(path: Path, count: int) -> Tensor | None:
    """Cached features, None if there are none or the file is damaged."""
    try:
        features = torch.from_numpy(np.load(path))
    except (OSError, ValueError, EOFError):
        return None
    return features if len(features) == count else None


def _write(path: Path, features: Tensor) -> None:
    try:
        with atomic(path) as temporary:
            np.save(temporary, features.numpy())
    except OSError:
        return
