"""The loader: endless, each epoch whole, any step at once, split by rank, the same with any workers."""

import os
import shutil
import signal
import subprocess
import sys
from itertools import islice

import pytest
import torch

from foodgen.core import distributed
from foodgen.core.errors import DataError
from foodgen.core.randomness import Noise, normal_like, seed_of, seed_step
from foodgen.data.folder import Folder
from foodgen.data.loader import Loader, Order
from tests.conftest import ROOT

CPU = torch.device("cpu")


def loader(dishes, batch_size=10, workers=0, **options):
    return Loader(Folder(dishes / "train", 16), batch_size, 3, CPU, workers, options.get("keep_on_device", False))


def first(batches, count):
    return [(images.clone(), labels.clone()) for images, labels in islice(batches, count)]


def test_each_epoch_holds_every_image_once_in_another_order():
    order = Order(7, 3, seed=1)
    flat = [index for step in range(14) for index in order.of_step(step)]
    epochs = [flat[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3
    assert flat != [index for step in range(14) for index in Order(7, 3, seed=2).of_step(step)]


def test_any_step_can_be_had_without_the_ones_before(dishes):
    whole = first(loader(dishes).batches(0), 12)
    for (images, labels), (again, labels_again) in zip(whole[9:], first(loader(dishes).batches(9), 3), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, labels_again)


@pytest.mark.parametrize("options", [{"workers": 2}, {"keep_on_device": True}])
def test_workers_and_residence_change_nothing(dishes, options):
    for (images, labels), (again, labels_again) in zip(
        first(loader(dishes).batches(4), 3), first(loader(dishes, **options).batches(4), 3), strict=True
    ):
        assert torch.equal(images, again)
        assert torch.equal(labels, labels_again)


def test_the_loader_leaves_the_global_generator_alone(dishes):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first(loader(dishes).batches(0), 2)
    assert torch.equal(torch.rand(1), expected)


def test_ranks_share_the_batch_and_the_noise(monkeypatch):
    whole = [Order(50, 12, seed=1).of_step(5).tolist(), noise_of_step(12)]
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    parts, noises, masks = [], [], []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts += Order(50, 12, seed=1).of_step(5).tolist()
        noises.append(noise_of_step(4))
        masks.append(torch.rand(3))
    assert parts == whole[0]
    assert torch.equal(torch.cat(noises), whole[1])
    assert not torch.equal(masks[0], masks[1])  # dropout differs between the processes


def noise_of_step(count):
    seed_step(7, 3)
    return normal_like(torch.empty(count, 3))


def test_too_many_broken_images_end_the_loading(dishes, tmp_path):
    folder = shutil.copytree(dishes / "train", tmp_path / "train")
    for name in ("soup", "donuts"):
        for path in (folder / name).iterdir():
            path.write_bytes(b"")
    batches = Loader(Folder(folder, 16), 16, 0, CPU, 2, False).batches(0)
    with pytest.raises(DataError, match=r"^more than 10 broken images, the last: "):
        first(batches, 30)


def test_a_killed_worker_is_a_clear_error(dishes):
    class Deadly(Folder):
        def batch(self, indices):
            os.kill(os.getpid(), signal.SIGKILL)

    batches = Loader(Deadly(dishes / "train", 16), 10, 0, CPU, 1, False).batches(0)
    with pytest.raises(DataError, match="a process that reads images ended"):
        next(batches)


def test_python_ends_though_batches_are_being_read(dishes):
    code = f"""
import sys
from pathlib import Path
import torch
from foodgen.data.folder import Folder
from foodgen.data.loader import Loader
batches = Loader(Folder(Path({str(dishes / "train")!r}), 16), 10, 0, torch.device("cpu"), 2, False).batches(0)
next(batches)
sys.modules["kept"] = batches
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_noise_belongs_to_the_image_not_to_the_batch():
    together = Noise(5, range(6), (3, 2))
    single = Noise(5, [4], (3, 2))
    for _ in range(3):
        assert torch.equal(together()[4], single()[0])
    assert not torch.equal(Noise(6, [4], (3, 2))(), Noise(5, [4], (3, 2))())
    flat = Noise(5, range(200), (100,))()
    assert flat.mean().item() == pytest.approx(0, abs=0.03)
    assert flat.std().item() == pytest.approx(1, abs=0.03)


def test_seeds_depend_on_every_key():
    seeds = {seed_of(1, "step", 2), seed_of(1, "step", 3), seed_of(2, "step", 2), seed_of(1, "image", 2), seed_of(12)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
