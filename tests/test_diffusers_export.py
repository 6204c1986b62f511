"""A folder of diffusers: its network gives our numbers, its scheduler our images; what has no equal is refused."""

import json
import sys

import diffusers
import pytest
import torch

import export
import foodgen
import train
from foodgen.builders.diffusers import unet_config, unet_weights
from foodgen.core.errors import CheckpointError, ConfigError
from foodgen.core.randomness import Noise
from foodgen.models.ddpm import UNet
from tests.runs import run_of

EXACT = [
    "objective.model.process={name: ddpm}",
    "objective.model.network={name: ddpm, width: 128, multipliers: [1, 1], blocks: 1, attention_at: [8], heads: 1}",
    "data.train_batch_size=4",
    "train.steps=2",
]


def written(tiny, *more):
    export.main([*tiny, *EXACT, *more, "train.checkpoint_path=latest", "export.format=diffusers"])


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("classes", [0, 5])
def test_every_layer_has_its_equal(adaptive, classes):
    torch.manual_seed(0)
    ours = UNet(3, 32, classes, 128, (1, 2, 2), 2, (16, 8), heads=1, adaptive=adaptive, outputs=6).eval()
    for weight in ours.parameters():  # the last layers of blocks start at zero, and would hide the others
        torch.nn.init.normal_(weight, std=0.06)
    theirs = diffusers.UNet2DModel(**unet_config(ours, 32)).eval()
    theirs.load_state_dict(dict(unet_weights(ours)))
    x, times, labels = torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 500, 1000]), torch.arange(4) % max(1, classes)
    with torch.no_grad():
        expected = ours(x, times.float(), labels)
        found = theirs(x, times - 1, labels if classes else None).sample
    assert expected.std() > 0.02
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.long
def test_equal_noise_gives_equal_pictures(tiny, tmp_path):
    train.main([*tiny, *EXACT])
    written(tiny)
    folder = run_of(tmp_path) / "diffusers"
    pipeline = foodgen.load(run_of(tmp_path) / "checkpoints" / "step-00000002", device="cpu")
    ours = pipeline.sample_tensor([*pipeline.classes], seed=3, guidance=1.5, steps=10)
    unet = diffusers.UNet2DModel.from_pretrained(folder / "unet").eval()
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(10)
    labels = torch.arange(8)
    x = Noise(3, range(8), pipeline.model.noise_shape)()
    with torch.no_grad():
        for t in scheduler.timesteps:
            conditional, unconditional = unet(x, t, labels).sample, unet(x, t, torch.full_like(labels, 8)).sample
            x = scheduler.step(unconditional + 1.5 * (conditional - unconditional), t, x).prev_sample
    assert json.loads((folder / "classes.json").read_text()) == [*pipeline.classes]
    theirs = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert (ours.int() - theirs.int()).abs().max() <= 1


REFUSED = [
    (["objective.model.process={name: edm}"], "any process but ddpm"),
    (["objective.model.process={name: ddpm, num_timesteps: 500}"], "any process but ddpm with num_timesteps=1000"),
    (["objective.model.network={name: ddpm, width: 128, multipliers: [1, 1], blocks: 1, patch: 2}"], "patches"),
    (["objective.model.network={name: ddpm, width: 128, multipliers: [1, 1], blocks: 1, heads: 2}"], "several heads"),
    (["objective.model.network={name: ddpm, width: 8, multipliers: [1, 8], blocks: 1}"], "group norm"),
    (["objective.model.network={name: dit, patch: 4, width: 32, depth: 1, heads: 2}"], "any network but"),
]


@pytest.mark.long
@pytest.mark.parametrize(("options", "reason"), REFUSED)
def test_what_has_no_equal_is_refused(options, reason, tiny, tmp_path):
    train.main([*tiny, *EXACT, *options])
    with pytest.raises(ConfigError, match=f"export.format: diffusers has no exact equal of .*{reason}"):
        written(tiny, *options)
    assert not list(run_of(tmp_path).glob("*diffusers*"))


@pytest.mark.long
def test_an_existing_folder_and_a_wrong_network_are_refused(tiny, tmp_path, monkeypatch):
    train.main([*tiny, *EXACT])
    folder = run_of(tmp_path) / "diffusers"
    with monkeypatch.context() as patch:
        patch.setattr("foodgen.builders.diffusers.TOLERANCE", -1.0)
        with pytest.raises(CheckpointError, match="differs from ours by"):
            written(tiny)
    assert not list(run_of(tmp_path).glob("*diffusers*"))
    folder.mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        written(tiny)


def test_a_missing_package_is_named(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    train.main([*tiny, *EXACT])
    with pytest.raises(ConfigError, match=r"diffusers wants the package .*pip install diffusers=="):
        written(tiny)
