"""Random numbers that follow from what they are for, not from how the work was split.

Training draws for the whole batch of all processes and takes its share, so that two processes see
the noise that one would (pieces of an accumulated batch draw one after the other); sampling gives
each image a generator of its own.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from foodgen.core import distributed


def seed_of(*keys: object) -> int:
    """A 63-bit seed that depends on every key and on nothing else."""
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


_of_step: dict[torch.device, torch.Generator] = {}  # the same on all processes; its seed is under the CPU's name
_CPU = torch.device("cpu")
_by_myself: list[bool] = []  # whether only this process draws


def seed_step(seed: int, step: int) -> None:
    """Make all that step `step` draws follow from (seed, step), so that a resumed run repeats itself.

    What the functions below draw is shared by all processes; torch's own generator, which dropout
    uses, follows from the process's rank as well.
    """
    _of_step.clear()
    _of_step[_CPU] = torch.Generator().manual_seed(seed_of(seed, "step", step))
    torch.manual_seed(seed_of(seed, "step", step, distributed.rank()))


@contextmanager
def isolated_randomness(*keys: object) -> Iterator[None]:
    """Within, the functions below draw what follows from `keys`, this process for itself; afterwards as before."""
    kept = dict(_of_step)
    _of_step.clear()
    _of_step[_CPU] = torch.Generator().manual_seed(seed_of(*keys))
    _by_myself.append(True)
    try:
        yield
    finally:
        _by_myself.pop()
        _of_step.clear()
        _of_step.update(kept)


def normal_like(x: Tensor) -> Tensor:
    """Standard normal noise, (batch, ...), this process's share of the whole batch's."""
    return _share(torch.randn, x, x.shape)


def uniform_for(x: Tensor) -> Tensor:
    """One number in [0, 1) for each image of x, (batch,), this process's share of the whole batch's."""
    return _share(torch.rand, x, x.shape[:1])


def _share(draw: Callable[..., Tensor], x: Tensor, shape: Sequence[int]) -> Tensor:
    if _by_myself:
        return draw(tuple(shape), generator=_generator(x.device), device=x.device)
    ranks = distributed.world_size()
    whole = draw((ranks * shape[0], *shape[1:]), generator=_generator(x.device), device=x.device)
    return whole.chunk(ranks)[distributed.rank()]


def _generator(device: torch.device) -> torch.Generator | None:
    if device.type == "meta":  # shapes alone are asked for
        return None
    if device not in _of_step and _CPU in _of_step:
        _of_step[device] = torch.Generator(device).manual_seed(_of_step[_CPU].initial_seed())
    return _of_step.get(device)


class Noise:
    """Standard normal noise for sampling, each image from its own seed, (batch, *shape) a call.

    An image's noise depends on (seed, its index) alone: not on the batch that it is drawn in, the
    device, or what else is drawn.
    """

    def __init__(self, seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"):
        self.shape, self.device, self.indices = tuple(shape), device, indices
        self.generators = [torch.Generator().manual_seed(seed_of(seed, "image", int(index))) for index in indices]

    def __call__(self) -> Tensor:
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.device)
