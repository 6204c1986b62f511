"""Random numbers that follow from what they are for, not from how the work was split.

Training draws for the whole batch of all processes and takes its share, so that two processes see
the noise that one would; sampling gives each image a generator of its own.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from foodgen.core import distributed


def seed_of(*keys: object) -> int:
    """A 63-bit seed that depends on every key and on nothing else."""
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(seed: int, step: int) -> None:
    """Make all that step `step` draws follow from (seed, step), so that a resumed run repeats itself."""
    torch.manual_seed(seed_of(seed, "step", step))


def normal_like(x: Tensor) -> Tensor:
    """Standard normal noise, (batch, ...), this process's share of the whole batch's."""
    return _share(lambda shape: torch.randn(shape, device=x.device, dtype=x.dtype), x.shape)


def uniform_for(x: Tensor) -> Tensor:
    """One number in [0, 1) for each image of x, (batch,), this process's share of the whole batch's."""
    return _share(lambda shape: torch.rand(shape, device=x.device), x.shape[:1])


def _share(draw: Callable[[Sequence[int]], Tensor], shape: Sequence[int]) -> Tensor:
    ranks = distributed.world_size()
    if ranks == 1:
        return draw(shape)
    return draw((ranks * shape[0], *shape[1:])).chunk(ranks)[distributed.rank()]


class Noise:
    """Standard normal noise for sampling, each image from its own seed, (batch, *shape) a call.

    An image's noise depends on (seed, its index) alone: not on the batch that it is drawn in, the
    device, or what else is drawn.
    """

    def __init__(self, seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"):
        self.shape, self.device = tuple(shape), device
        self.generators = [torch.Generator().manual_seed(seed_of(seed, "image", int(index))) for index in indices]

    def __call__(self) -> Tensor:
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.device)
