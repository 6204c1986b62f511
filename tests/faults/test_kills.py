"""Fifty kills at random moments of one training: its weights are those of an undisturbed one."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time

import pytest

from foodgen.core.files import read_jsonl
from tests.conftest import ROOT
from tests.runs import digest, last, run_of

KILLS, STEPS = 50, 120

# Imports everything once, then starts each training as a fork of itself, which saves seconds a time. For each line
# it reads, arguments of train.py as JSON, it prints the new process's number, a dot for each step, and its status.
FORKS = """
import json, os, sys, traceback
from foodgen.core.registry import import_parts, spaces
from foodgen.training.trainer import Trainer
from tests.runs import Colours
import train
import_parts()
spaces["inception"] = Colours  # quick, and a sum in a fixed order
original = Trainer.step
def step(self, *batch):
    logged = original(self, *batch)
    os.write(1, b".")
    return logged
Trainer.step = step
for line in sys.stdin:
    child = os.fork()
    if not child:
        status = 1
        try:
            status = train.main(json.loads(line))
        except BaseException:
            traceback.print_exc()
        os._exit(status or 0)
    os.write(1, f"{child} ".encode())
    os.write(1, f" {os.waitpid(child, 0)[1]} ".encode())
"""

GAN = [
    "objective={name: adversarial, loss: {name: hinge}, augmentation: {name: ada, interval: 2, ramp: 100}, "
    "penalties: {r1: {name: r1, weight: 0.1, interval: 2}}, model: {name: dcgan, width: 4, z_dim: 8}, "
    "discriminator: {name: dcgan_discriminator, width: 4}}",
    "optimizers={model: {name: adamw}, discriminator: {name: adamw}}",
    "guidance={name: none}",
    "sampler={name: one_shot}",
]
DIFFUSION = [
    "objective.model.network.dropout=0.1",
    "ema={name: power_function, lengths: [0.05, 0.1], snapshot_step: 7}",
]


class Forks:
    """Trainings, one after another, each a process that can be watched step by step and killed."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )

    def start(self, arguments):
        self.process.stdin.write(json.dumps(arguments).encode() + b"\n")
        self.process.stdin.flush()
        return int(self.until(lambda text: text.endswith(" ")))

    def until(self, done, patience=600.0):
        """What it prints until `done` says so of it."""
        text, end = "", time.monotonic() + patience
        while not done(text):
            assert time.monotonic() < end, f"nothing for {patience} s after {text!r}"
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                text += os.read(self.process.stdout.fileno(), 1).decode()
        return text

    def status(self):
        return int(self.until(lambda text: text.endswith(" ") and text.strip(" .")).strip(" ."))

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def forks():
    forks = Forks()
    yield forks
    forks.close()


def kill_somewhere(forks, child, run, chance):
    """Kill a training: while it starts, a little after some step, or while it writes a checkpoint."""
    where = chance.choice(["start", "step", "step", "writing"])
    if where == "start":
        time.sleep(chance.uniform(0, 0.3))
    else:
        steps = chance.randint(1, 3)
        forks.until(lambda text: text.count(".") >= steps or " " in text)
        end = time.monotonic() + (chance.uniform(0, 0.05) if where == "step" else 1.0)
        while time.monotonic() < end and not (where == "writing" and any(run.glob("checkpoints/.writing-*"))):
            time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    torn = any(run.glob("checkpoints/.writing-*"))
    assert forks.status() == signal.SIGKILL
    return torn


@pytest.mark.long
@pytest.mark.timeout(1800)  # on a busy machine; a minute for each kind on an idle core
@pytest.mark.parametrize("kind", [DIFFUSION, GAN], ids=["diffusion", "gan"])
def test_fifty_kills_change_no_bit(kind, tiny, tmp_path, forks):
    """In bf16, with validation, checkpoints every second step and averages; metrics.jsonl is whole, too."""
    often = ["train.checkpoint_step=2", "train.val_step=10", "train.val_count=8", "train.val_metrics=[fid]"]
    options = [*tiny, *kind, *often, "train.precision=bf16", f"train.steps={STEPS}"]
    forks.start([*options, "exp.run=whole"])
    assert forks.status() == 0
    chance, torn = random.Random(0), 0
    for _ in range(KILLS):
        child = forks.start([*options, "exp.run=cut", "train.checkpoint_path=latest"])
        torn += kill_somewhere(forks, child, run_of(tmp_path, "cut"), chance)
    newest = last(tmp_path, "cut")
    assert newest is None or int(newest.name.removeprefix("step-")) < STEPS  # all kills met a training that went on
    forks.start([*options, "exp.run=cut", "train.checkpoint_path=latest"])
    assert forks.status() == 0
    assert torn > 0
    assert digest(last(tmp_path, "cut")) == digest(last(tmp_path, "whole"))
    rows = [read_jsonl(run_of(tmp_path, name) / "metrics.jsonl") for name in ("whole", "cut")]
    for row in [*rows[0], *rows[1]]:  # what time alone decides
        for name in ("minutes", "images_per_second"):
            row.pop(name, None)
    assert rows[1] == rows[0]
    assert not [*run_of(tmp_path, "cut").glob("checkpoints/.*")]
