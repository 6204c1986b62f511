"""Feature spaces beside Inception's, in which images are compared; and features of whole sets, kept on disk."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foodgen.core.registry import spaces
from foodgen.core.types import FeatureSpace


def hash_of(network: nn.Module) -> str:
    """Of all weights: it tells networks apart."""
    whole = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        whole.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return whole.hexdigest()[:16]


@spaces.add_to_registry(name="pixels")
class Pixels:
    """The pixels themselves, in [0, 1]: distances are of colours place by place."""

    identity = "pixels"
    kept = False  # features are as quickly made as read

    def __init__(self, image_size: int) -> None:
        self.width = 3 * image_size**2

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (batch, 3, size, size) to (batch, width)."""
        return images.cpu().flatten(1).float() / 255


@spaces.add_to_registry(name="classifier")
class Classifier:
    """Features and verdicts of a classifier of ours, trained on the real training photos alone.

    path  its run, checkpoint or exported folder

    It knows these photos, and places them otherwise than fresh ones: they make no floor here.
    """

    saw_training = True

    def __init__(self, path: str, trained: Callable[[str], nn.Module], image_size: int, device: torch.device) -> None:
        self.network, self.device = trained(path), device
        if not (hasattr(self.network, "features") and hasattr(self.network, "head")):
            raise ValueError(f"path: {path} is no classifier of clean images; configs/classifier.yaml trains one")
        seen = self.network.noise_shape[-1]  # type: ignore[index]
        if seen != image_size:
            raise ValueError(f"path: {path} was trained on images of {seen} pixels a side, these have {image_size}")
        self.width = self.network.head.in_features  # type: ignore[union-attr]
        self.identity = hash_of(self.network)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (batch, 3, size, size) to (batch, width)."""
        return self.network.features(images.to(self.device).float() / 127.5 - 1).float().cpu()  # type: ignore[operator]

    @torch.no_grad()
    def classify(self, features: Tensor) -> Tensor:
        """Features, (n, width), to logits, (n, classes)."""
        return self.network.head(features.to(self.device)).cpu()  # type: ignore[operator]


@spaces.add_to_registry(name="pretrained")
class Pretrained:
    """Mean of the last feature map of a network that others have trained, such as EfficientNet-Lite.

    features  the network, images to maps
    """

    def __init__(self, features: nn.Module, device: torch.device) -> None:
        self.network, self.device = features.to(device).eval(), device
        self.width = features.widths[-1]  # type: ignore[index]
        self.identity = f"{hash_of(features)}-{getattr(features, 'resolution', '')}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (batch, 3, size, size) to (batch, width)."""
        maps = self.network(images.to(self.device).float() / 127.5 - 1)
        return maps[-1].float().mean(dim=(2, 3)).cpu()


def features_of(space: FeatureSpace, images: Any, batch_size: int, cache: Path | None = None) -> Tensor:
    """Features of a whole image set, (count, width), kept under a hash of its content.

    images  a set with `batch(indices)`
    cache   a folder for features of earlier calls; one that cannot be written is done without
    """
    kept = None
    if cache is not None and getattr(space, "kept", True):
        whole = hashlib.sha256(space.identity.encode())
        for part in _parts(len(images), batch_size):
            whole.update(images.batch(part)[0].numpy().tobytes())
        kept = cache / f"{whole.hexdigest()[:32]}.npy"
        found = _read(kept, len(images))
        if found is not None:
            return found
    features = torch.cat(list(chunks_of(space, images, batch_size)))
    if kept is not None:
        _keep(kept, features)
    return features


def chunks_of(space: FeatureSpace, images: Any, batch_size: int, cache: Path | None = None) -> Iterator[Tensor]:
    """The same, some at a time where they are not kept: pixels of a large set do not fit into memory."""
    if cache is not None and getattr(space, "kept", True):
        yield from features_of(space, images, batch_size, cache).split(batch_size)
        return
    for part in _parts(len(images), batch_size):
        yield space(images.batch(part)[0])


def _parts(count: int, batch_size: int) -> list[range]:
    return [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


def _read(path: Path, count: int) -> Tensor | None:
    """Features kept earlier, None if there are none or the file is damaged."""
    try:
        features = torch.from_numpy(np.load(path))
    except (OSError, ValueError, EOFError):
        return None
    return features if len(features) == count else None


def _keep(path: Path, features: Tensor) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.npy")
        np.save(temporary, features.numpy())
        temporary.replace(path)
    except OSError:
        return
