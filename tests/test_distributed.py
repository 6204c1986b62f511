"""Two gloo processes under torchrun: the same training as one process with the whole batch."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from foodgen.core.files import read_jsonl
from foodgen.training.checkpoint import Checkpoints, read
from tests.conftest import ROOT
from tests.runs import pixels

# train.py, with every phase's gradients averaged by hand when asked to, as double backward wants it.
DRIVER = """
import dataclasses, sys
from foodgen.core import command_line
from foodgen.objectives.denoising import Denoising
import train
if sys.argv.pop(1) == "plain":
    original = Denoising.phases
    Denoising.phases = lambda self, step: [dataclasses.replace(t, double_backward=True) for t in original(self, step)]
command_line.run(train.main)
"""


def newest(tmp_path, name):
    return read(Checkpoints(tmp_path / "runs" / name / "checkpoints", 2).newest())


@pytest.mark.long
@pytest.mark.parametrize("way", ["ddp", "plain"])
@pytest.mark.parametrize("accumulate", [1, 5])
def test_two_processes_train_as_one(way, accumulate, tiny, tmp_path, script):
    options = [*tiny, "objective.model.network.dropout=0", "train.val_step=6", "train.grad_clip=1.0"]
    script("train.py", *options, "exp.run=one", check=True)
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "driver.py"), way, *options, "exp.run=two", f"train.grad_accumulation={accumulate}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = newest(tmp_path, "one"), newest(tmp_path, "two")
    rows = [read_jsonl(tmp_path / "runs" / name / "metrics.jsonl") for name in ("one", "two")]
    assert [row["step"] for row in rows[1]] == [row["step"] for row in rows[0]]
    assert len(list((tmp_path / "runs" / "two" / "grids").iterdir())) == 2
    if accumulate == 1:  # pieces draw their noise one after the other, so only whole shares compare
        for name, tensor in one.weights.items():
            torch.testing.assert_close(two.weights[name], tensor, rtol=1e-3, atol=2e-5)
        assert [row["model/loss"] for row in rows[1]] == pytest.approx([row["model/loss"] for row in rows[0]], rel=1e-4)


GAN = """
objective:
  name: adversarial
  loss: {name: relativistic}
  augmentation: {name: ada, interval: 2, ramp: 100, target: -1.0}
  penalties: {r1: {name: r1, weight: 0.1, interval: 2}, r2: {name: r2, weight: 0.1, interval: 2}}
  model: {name: r3gan, widths: [16, 8, 8], blocks: 1, group: 8}
  discriminator: {name: r3gan_discriminator, widths: [16, 8, 8], blocks: 1, group: 8}
optimizers:
  model: {name: adamw, lr: 0.0002}
  discriminator: {name: adamw, lr: 0.0002}
guidance: {name: none}
sampler: {name: one_shot}
train: {steps: 8}
"""


@pytest.mark.long
def test_two_processes_train_a_gan_as_one(tiny, tmp_path, script):
    (tmp_path / "gan.yaml").write_text(f"extends: {ROOT / 'tests' / 'tiny.yaml'}\n{GAN}")
    options = [*tiny, f"exp.config_path={tmp_path / 'gan.yaml'}"]
    script("train.py", *options, "exp.run=one", check=True)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]
    script(*command, *options, "exp.run=two", check=True)
    one, two = newest(tmp_path, "one"), newest(tmp_path, "two")
    for name, tensor in one.weights.items():  # first moments of 0.9 and a rate of 0.0002 keep rounding small
        torch.testing.assert_close(two.weights[name], tensor, rtol=1e-3, atol=5e-5)
    assert one.weights["augmentation.probability"] == two.weights["augmentation.probability"] > 0


@pytest.mark.long
def test_an_uneven_batch_is_refused(tiny, script):
    done = script(
        *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py", *tiny],
        "data.train_batch_size=7",
    )
    assert done.returncode != 0
    assert "error: data.train_batch_size: 7 images cannot be split evenly over 2 processes" in done.stderr


@pytest.mark.long
def test_two_processes_score_and_sweep_as_one(tiny, tmp_path, script):
    script("train.py", *tiny, check=True)
    shutil.copytree(next(a.split("=")[1] for a in tiny if a.startswith("data.input_val_dir")), tmp_path / "val")
    drawn = [*tiny, "train.checkpoint_path=latest", f"data.input_val_dir={tmp_path / 'val'}"]
    drawn += ["inference.metrics=[pixels/fid,pixels/precision]", "inference.sweep={sampler.steps: [2, 3]}"]
    rows = []
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "inference.py"]
    for name, command in (("one", ["inference.py"]), ("two", torchrun)):
        script(*command, *drawn, f"inference.output_dir={tmp_path / name}", check=True)
        rows.append(read_jsonl(tmp_path / name / "sweep.jsonl"))
    assert len(rows[0]) == len(rows[1]) == 2
    for one, two in zip(*rows, strict=True):
        assert one["evaluations"] == two["evaluations"] > 0
        for key in ("pixels/fid", "pixels/fid_to_training", "pixels/recall"):
            assert one[key] == pytest.approx(two[key], rel=1e-3), key
        assert one["real_baseline"] == pytest.approx(two["real_baseline"], rel=1e-6)


@pytest.mark.long
def test_two_processes_write_the_images_of_one(tiny, tmp_path, script):
    script("train.py", *tiny, "train.steps=2", check=True)
    drawn = [*tiny, "train.checkpoint_path=latest", "inference.count=32"]
    drawn += ["inference.metrics=[pixels/fid,pixels/memorisation]", "inference.baseline_draws=0"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "inference.py"]
    for name, command in (("one", ["inference.py"]), ("two", torchrun)):
        script(*command, *drawn, f"inference.output_dir={tmp_path / name}", check=True)
    one, two = (
        {path.relative_to(folder): path for path in folder.rglob("*.png")}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one.keys() == two.keys()
    assert len(one) == 32 + 2  # the grid and the nearest pairs
    for name, path in one.items():
        difference = pixels(path).int() - pixels(two[name]).int()
        assert difference.abs().max() <= 1, name
    found = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert found[0]["pixels/fid"] == pytest.approx(found[1]["pixels/fid"], rel=1e-3)
    assert found[0]["evaluations"] == found[1]["evaluations"]
