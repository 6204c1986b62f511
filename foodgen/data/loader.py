"""Endless shuffled batches, of which any step's can be had without the ones before."""

import atexit
import multiprocessing
import signal
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from foodgen.core import distributed
from foodgen.core.errors import DataError
from foodgen.core.randomness import seed_of
from foodgen.core.types import Images

_readers: weakref.WeakSet[Any] = weakref.WeakSet()


class Order(Sampler[np.ndarray]):
    """The images of each step's batch, this process's share, from step `start` on without end.

    Position p = step * batch_size + i stands in epoch p // count, whose order follows from (seed, epoch).
    """

    def __init__(self, count: int, batch_size: int, seed: int, start: int = 0) -> None:
        self.count, self.batch_size, self.seed, self.start = count, batch_size, seed, start
        self.share = batch_size // distributed.world_size()
        self.epochs: dict[int, np.ndarray] = {}

    def __iter__(self) -> Iterator[np.ndarray]:
        step = self.start
        while True:
            yield self.of_step(step)
            step += 1

    def of_step(self, step: int) -> np.ndarray:
        """Indices of this process's images at `step`, (batch_size / processes,)."""
        first = step * self.batch_size + distributed.rank() * self.share
        return np.array([self._epoch(p // self.count)[p % self.count] for p in range(first, first + self.share)])

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self.epochs:
            self.epochs = {old: order for old, order in self.epochs.items() if old >= epoch - 1}
            generator = np.random.default_rng(seed_of(self.seed, "epoch", epoch))
            self.epochs[epoch] = generator.permutation(self.count)
        return self.epochs[epoch]


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Lets DataLoader fetch a whole batch by its indices."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.images.batch(indices)


class Loader:
    """Batches of an image set, on the device: uint8 (share, 3, size, size) and class numbers, (share,).

    batch_size      of one step, over all processes, which must divide it
    seed            of the order
    workers         processes that read ahead
    keep_on_device  the whole set is copied to the device once
    """

    def __init__(
        self, images: Images, batch_size: int, seed: int, device: torch.device, workers: int, keep_on_device: bool
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.device, self.workers = device, workers
        self.resident = _move_all(images, device) if keep_on_device else None

    def batches(self, start: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """The batches of the steps `start`, `start` + 1, ..."""
        order = Order(len(self.images), self.batch_size, self.seed, start)
        if self.resident is not None:
            images, labels = self.resident
            for indices in order:
                chosen = torch.from_numpy(indices).to(self.device)
                yield images[chosen], labels[chosen]
        loader = DataLoader(
            _Batches(self.images),
            batch_size=None,
            sampler=order,
            num_workers=self.workers,
            worker_init_fn=_leave_signals_to_the_parent,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # or it would draw from, and so move, the training's own
        )
        others, readers = set(multiprocessing.active_children()), set[Any]()
        try:
            with _deaths_told_here():
                ahead = iter(loader)
            readers = set(multiprocessing.active_children()) - others
            _readers.update(readers)
            for images, labels in ahead:
                yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        except DataError as error:  # a worker's error arrives with its traceback as text
            raise DataError(
                str(error).strip().splitlines()[-1].removeprefix("foodgen.core.errors.DataError: ")
            ) from None
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                _end(readers)
                raise DataError(f"a process that reads images ended: {error}") from None
            raise


@contextmanager
def _deaths_told_here() -> Iterator[None]:
    """Take back torch's handler of SIGCHLD, which raises a dead reader's error wherever the training happens to be.

    Without it the next batch that is asked for raises, after at most five seconds.
    """
    settable = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    earlier = signal.getsignal(signal.SIGCHLD) if settable else None
    yield
    if earlier is not None:
        signal.signal(signal.SIGCHLD, earlier)


def _move_all(images: Images, device: torch.device, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    parts = [images.batch(range(i, min(i + chunk, len(images)))) for i in range(0, len(images), chunk)]
    return torch.cat([p[0].to(device) for p in parts]), torch.cat([p[1].to(device) for p in parts])


@atexit.register
def _end_readers() -> None:
    """Python's own end would ask with SIGTERM and wait: for ever, where batches are still being read."""
    _end(_readers)


def _end(processes: Iterable[Any]) -> None:
    readers = [process for process in processes if process.is_alive()]
    for process in readers:
        process.kill()
    for process in readers:
        process.join(1)


def _leave_signals_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to the whole group; the parent ends its workers itself
