"""Features of whole image sets, cached on disk."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from foodgen.core.files import atomic
from foodgen.core.types import FeatureSpace, Images

log = logging.getLogger("foodgen")
PART = 4096  # images whose features share a file


class Subset:
    """Some images of a set."""

    def __init__(self, images: "Images | Subset", indices: Sequence[int]) -> None:
        self.images, self.indices = images, indices

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images, uint8 (batch, 3, size, size), and class numbers, (batch,)."""
        return self.images.batch([self.indices[position] for position in positions])


def features_of(space: FeatureSpace, images: Images | Subset, batch_size: int, cache: Path | None = None) -> Tensor:
    """Features of a whole set, (count, width), cached under hashes of its content.

    cache  a folder for features of earlier calls; if it cannot be written nothing is cached
    """
    return torch.cat(list(features_in_chunks(space, images, batch_size, cache)))


def features_in_chunks(
    space: FeatureSpace, images: Images | Subset, batch_size: int, cache: Path | None = None
) -> Iterator[Tensor]:
    """The same in chunks: pixels of a large set do not fit into memory.

    Each PART of a set is cached by itself, so that hours of features survive an interruption.
    """
    if cache is None or not space.cached:
        for part in _batches(len(images), batch_size):
            yield space(images.batch(part)[0])
        return
    for part in tqdm(_batches(len(images), PART), desc="features", disable=None, leave=False):
        yield _cached(space, Subset(images, part), batch_size, cache)


def _cached(space: FeatureSpace, images: Subset, batch_size: int, cache: Path) -> Tensor:
    whole = hashlib.sha256(space.identity.encode())
    for part in _batches(len(images), batch_size):
        whole.update(images.batch(part)[0].numpy().tobytes())
    path = cache / f"{whole.hexdigest()[:32]}.npz"
    found = _read(path, len(images))
    if found is None:
        found = torch.cat(list(features_in_chunks(space, images, batch_size)))
        _write(path, found)
    return found


def _batches(count: int, batch_size: int) -> list[range]:
    return [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


def _read(path: Path, count: int) -> Tensor | None:
    """Cached features, None if there are none or the file is damaged, as its checksum shows. Runs no pickled code."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            features = file["features"]
    except Exception as error:  # whatever zip and numpy raise for damaged files
        log.warning("%s: cannot be read (%s); the features are computed anew", path, str(error)[:100])
        return None
    fits = features.ndim == 2 and len(features) == count and features.dtype == np.float32
    return torch.from_numpy(features) if fits and bool(np.isfinite(features).all()) else None


def _write(path: Path, features: Tensor) -> None:
    try:
        with atomic(path) as temporary:
            np.savez(temporary, features=features.numpy())
    except OSError:
        return
