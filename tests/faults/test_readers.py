"""A process that reads images is killed while a training runs: a clear error soon, and nothing left behind."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from foodgen.core.errors import DataError
from foodgen.data.folder import Folder
from foodgen.data.loader import Loader
from tests.faults.photos import class_folders


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSEGV])
def test_a_reader_killed_from_outside_is_a_clear_error_soon(tmp_path, kill):
    """As the kernel does where memory is short: the training ends with one line and does not wait for ever."""
    images = Folder(class_folders(tmp_path / "in", ("apple", "bread"), 4), 16)
    batches = Loader(images, 4, 0, torch.device("cpu"), 2, False).batches(0)
    before = set(multiprocessing.active_children())
    next(batches)
    readers = set(multiprocessing.active_children()) - before
    assert len(readers) == 2
    start = time.monotonic()
    os.kill(min(reader.pid for reader in readers), kill)
    for _ in range(20):  # the training computes: nothing is raised in the middle of it
        time.sleep(0.02)
    with pytest.raises(DataError, match="a process that reads images ended") as raised:
        for _ in range(1000):
            next(batches)
    assert time.monotonic() - start < 20
    assert len(str(raised.value).splitlines()) == 1
    batches.close()
    for reader in readers:
        reader.join(10)
    assert not any(reader.is_alive() for reader in readers)
