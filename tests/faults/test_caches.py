"""Caches of features, packs, latents and averages: damage is never used, pickles are never run."""

import json
import os

import numpy as np
import pytest
import torch

from foodgen.core.errors import DataError, UserError
from foodgen.core.registry import build
from foodgen.data.augment import NoAugmentation
from foodgen.data.folder import Folder
from foodgen.data.latents import Latent
from foodgen.data.packed import Packed
from foodgen.metrics import feature_cache, inception
from foodgen.metrics.feature_cache import features_of
from foodgen.training.checkpoint import Checkpoint, write
from foodgen.training.manifest import seal_files
from foodgen.training.snapshots import Snapshots, average_of
from tests.data.test_latents import Halves
from tests.faults.refusals import refused
from tests.runs import Colours
from tests.training.test_checkpoint import flip

CPU = torch.device("cpu")


CACHE_DAMAGE = {
    "empty": lambda path, evil: path.write_bytes(b""),
    "cut": lambda path, evil: path.write_bytes(path.read_bytes()[:-40]),
    "half": lambda path, evil: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped bit": lambda path, evil: flip(path, path.stat().st_size // 2),
    "pickle": lambda path, evil: evil(path),
    "pickle in numpy's form": lambda path, evil: evil(path, "numpy"),
    "pickle in a zip": lambda path, evil: evil(path, "zip"),
    "of fewer images": lambda path, evil: np.savez(path, features=np.zeros((3, 12), dtype=np.float32)),
    "of numbers that are none": lambda path, evil: np.savez(path, features=np.full((32, 12), np.nan, np.float32)),
    "under another name": lambda path, evil: np.savez(path, other=np.zeros((32, 12), dtype=np.float32)),
}


@pytest.mark.parametrize("kind", CACHE_DAMAGE)
def test_damaged_features_are_computed_anew(kind, photos, evil, trap, tmp_path):
    """And the file is whole again afterwards; no pickle in it is run."""
    images, cache, space = Folder(photos, 16), tmp_path / "photos.features", Colours(CPU)
    first = features_of(space, images, 8, cache)
    (path,) = cache.iterdir()
    CACHE_DAMAGE[kind](path, evil)
    assert torch.equal(features_of(space, images, 8, cache), first)
    assert not trap.exists()
    space.__class__ = type("Silent", (Colours,), {"__call__": lambda *_: pytest.fail("computed again")})
    assert torch.equal(features_of(space, images, 8, cache), first)


def test_features_of_a_large_set_survive_an_interruption(photos, tmp_path, monkeypatch):
    """What was done of it before is not computed again: on a CPU those of all training photos take hours."""
    monkeypatch.setattr(feature_cache, "PART", 10)
    images, cache = Folder(photos, 16), tmp_path / "photos.features"
    seen = []

    class Killed(Colours):
        def __call__(self, batch):
            seen.append(len(batch))
            if sum(seen) > 24:
                raise KeyboardInterrupt
            return super().__call__(batch)

    with pytest.raises(KeyboardInterrupt):
        features_of(Killed(CPU), images, 8, cache)
    assert len([*cache.iterdir()]) == 2
    seen.clear()
    assert torch.equal(features_of(Killed(CPU), images, 8, cache), features_of(Colours(CPU), images, 8))
    assert sum(seen) == len(images) - 20


def test_features_of_another_network_or_photo_are_not_taken(photos, tmp_path):
    """A changed pixel of one photo, or another identity, has a file of its own."""
    images, cache, space = Folder(photos, 16), tmp_path / "photos.features", Colours(CPU)
    features_of(space, images, 8, cache)
    other = type("Other", (Colours,), {"identity": "other colours"})(CPU)
    features_of(other, images, 8, cache)
    assert len([*cache.iterdir()]) == 2
    whole = images.batch
    images.batch = lambda part: (whole(part)[0] ^ 1, whole(part)[1])
    features_of(space, images, 8, cache)
    assert len([*cache.iterdir()]) == 3


def test_inceptions_identity_is_of_all_its_weights(monkeypatch):
    """Features of weights that differ in the first layer alone are not mixed with the published network's."""
    network = inception.load_network()
    seen = []
    for change in (0.0, 0.0, 1.0):
        with torch.no_grad():
            next(network.parameters()).view(-1)[0] += change
        monkeypatch.setattr(inception, "load_network", lambda _: network)
        monkeypatch.setattr(inception, "freeze", lambda network, _: network)
        seen.append(inception.InceptionFeatures(CPU).identity)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("kind", ["cut", "pickle", "pickle in numpy's form"])
def test_a_damaged_pack_is_refused_or_made_anew(kind, photos, evil, trap):
    """Its images are never others than the folder's. A pack whose index is damaged is made anew (test_sets)."""
    first = Packed(photos, 16).batch(range(32))[0]
    CACHE_DAMAGE[kind](photos.with_name("photos.packed") / "images.npy", evil)
    try:
        again = build("dataset", {"name": "packed"}, folder=photos, image_size=16)
    except UserError as error:
        assert str(error).startswith("dataset: ") and len(str(error).splitlines()) == 1
    else:
        assert torch.equal(again.batch(range(32))[0], first)
    assert not trap.exists()


LATENTS_DAMAGE = {
    "gone": lambda path, evil: path.unlink(),
    "no sense in done.json": lambda path, evil: path.with_name("done.json").write_text("[1]"),
    **{
        kind: CACHE_DAMAGE[kind] for kind in ("empty", "cut", "half", "flipped bit", "pickle", "pickle in numpy's form")
    },
}


@pytest.mark.parametrize("kind", LATENTS_DAMAGE)
def test_damaged_latents_are_encoded_anew(kind, photos, evil, trap, caplog):
    """A line says so; the set is whole again, and no pickle in it is run."""
    codec, images = Latent("there", 16, lambda path: Halves()), Folder(photos, 16)
    made = codec.training_set(images, NoAugmentation(), CPU, batch_size=8)
    first = made.batch(range(len(made)))[0]
    LATENTS_DAMAGE[kind](made.folder / "moments.npy", evil)
    again = codec.training_set(images, NoAugmentation(), CPU, batch_size=8)
    assert torch.equal(again.batch(range(len(again)))[0], first)
    assert "is damaged; the images are encoded anew" in caplog.text
    assert not trap.exists()


def test_latents_of_an_earlier_version_are_used(photos, monkeypatch):
    """They have no hash: size and form must do, or hours of encoding would be lost."""
    codec, images = Latent("there", 16, lambda path: Halves()), Folder(photos, 16)
    made = codec.training_set(images, NoAugmentation(), CPU, batch_size=8)
    (made.folder / "done.json").write_text(json.dumps({"images": 32, "variants": 1}))
    monkeypatch.setattr(codec, "moments", lambda *_: pytest.fail("encoded again"))
    codec.training_set(images, NoAugmentation(), CPU, batch_size=8)


@pytest.mark.parametrize("form", ["pickle", "torch", "numpy"])
def test_snapshots_of_averages_run_nothing(form, evil, trap, tmp_path):
    """Sealed by somebody who knows the manifest, too."""
    place = tmp_path / "checkpoints" / "step-00000001"
    weights = {"a": torch.ones(3)}
    write(place, Checkpoint(weights, weights, {}, {"step": 1, "classes": []}, "{}"))
    snapshots = Snapshots(tmp_path)
    snapshots.save(1, {0.05: weights})
    evil(snapshots.folder / "step-00000001" / "length-0.05.safetensors", form)
    seal_files(snapshots.folder / "step-00000001")
    assert "length-0.05.safetensors: " in refused(average_of, place, 0.08)
    assert not trap.exists()


def test_a_full_disk_is_said_before_a_pack_is_filled(photos, monkeypatch):
    """And does not end the process by a signal in the middle, as writing to a mapped file would."""

    def full(descriptor, start, length):
        assert length > len(Folder(photos, 16)) * 3 * 16 * 16
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"photos\.packed: cannot be written \(.*No space left on device\)"):
        Packed(photos, 16)
    assert not [path.name for path in photos.parent.iterdir() if path.name.endswith(".making")]
