"""Checkpoints under attack: kills, full disks, flipped bits, pickles."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from foodgen.core.errors import CheckpointError
from foodgen.training import checkpoint as module
from foodgen.training.checkpoint import Checkpoint, Checkpoints, read, read_average, verify, write
from tests.conftest import ROOT


def made(step, size=50):
    return Checkpoint(
        {"a": torch.full((size,), float(step)), "n": torch.tensor(step)},
        {"a": torch.full((size,), step + 0.5)},
        {"optimizers": {"model": [{"state": {}, "param_groups": []}]}, "tracker": {"sums": {}, "counts": {}}},
        {"step": step, "classes": ["x", "y"], "run_id": "abc"},
        "train: {steps: 5}\n",
    )


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def test_round_trip(tmp_path):
    write(tmp_path / "step-1", made(1))
    again = read(tmp_path / "step-1")
    assert torch.equal(again.weights["a"], made(1).weights["a"])
    assert torch.equal(again.average["a"], made(1).average["a"])
    assert (again.training, again.config) == (made(1).training, made(1).config)
    assert again.meta["classes"] == ["x", "y"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_the_last_k_the_best_and_the_resumed_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.protected.add("step-00000001")
    for step in range(1, 8):
        checkpoints.save(made(step), best=step in (2, 3))
    assert [path.name for path in checkpoints.steps()] == [f"step-0000000{step}" for step in (1, 3, 6, 7)]
    assert checkpoints.best().name == "step-00000003"


def test_an_old_one_that_cannot_go_only_warns(tmp_path, monkeypatch, caplog):
    def refuse(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError("busy")

    monkeypatch.setattr(module.shutil, "rmtree", refuse)
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(4):
        checkpoints.save(made(step))
    assert "was not removed" in caplog.text


DAMAGE = {
    "flipped bit": lambda path: flip(path / "weights.safetensors", -3),
    "flipped bit of the optimizers": lambda path: flip(path / "training.pt", 200),
    "cut": lambda path: (path / "ema.safetensors").write_bytes((path / "ema.safetensors").read_bytes()[:-2]),
    "empty": lambda path: (path / "training.pt").write_bytes(b""),
    "gone": lambda path: (path / "config.yaml").unlink(),
    "no manifest": lambda path: (path / "MANIFEST.json").unlink(),
    "cut manifest": lambda path: (path / "MANIFEST.json").write_text('{"a": '),
    "nonsense manifest": lambda path: (path / "MANIFEST.json").write_text("[1]"),
    "path out of the folder": lambda path: (path / "MANIFEST.json").write_text(
        json.dumps({"../escape": {"size": 0, "sha256": ""}})
    ),
    "link": lambda path: ((path / "config.yaml").unlink(), (path / "config.yaml").symlink_to("/etc/hostname")),
    "empty folder": lambda path: [file.unlink() for file in path.iterdir()],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_passed_over(kind, tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, keep=5)
    for step in (1, 2):
        checkpoints.save(made(step))
    newest = checkpoints.steps()[-1]
    DAMAGE[kind](newest)
    with pytest.raises(CheckpointError, match=r"step-00000002"):
        read(newest)
    assert checkpoints.newest().name == "step-00000001"
    assert "passed over" in caplog.text
    DAMAGE[kind](checkpoints.steps()[0])
    with pytest.raises(CheckpointError, match="all 2 checkpoints are damaged"):
        checkpoints.newest()


def test_none_at_all_is_none(tmp_path):
    assert Checkpoints(tmp_path / "nowhere", keep=2).newest() is None


def test_pickled_code_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    write(tmp_path / "step-1", made(1))
    (tmp_path / "step-1" / "training.pt").write_bytes(pickle.dumps(Evil()))
    module.seal(tmp_path / "step-1", made(1).meta, "")  # by somebody who knows the manifest, too
    with pytest.raises(CheckpointError, match="step-1"):
        read(tmp_path / "step-1")
    assert not (tmp_path / "ran").exists()


def test_another_format_is_refused(tmp_path):
    write(tmp_path / "step-1", made(1))
    module.seal(tmp_path / "step-1", {**made(1).meta, "format": 99}, "")
    with pytest.raises(CheckpointError, match="format 99"):
        read(tmp_path / "step-1")


def test_a_failing_write_leaves_no_trace_and_the_old_one_whole(tmp_path, monkeypatch):
    write(tmp_path / "step-1", made(1))
    monkeypatch.setattr(module.torch, "save", lambda *_: (_ for _ in ()).throw(RuntimeError("unexpected pos 64")))
    with pytest.raises(CheckpointError, match=r"step-2: could not be written \(unexpected pos 64\)"):
        write(tmp_path / "step-2", made(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    verify(tmp_path / "step-1")


def test_a_full_disk_is_seen_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(CheckpointError, match="MB are free"):
        write(tmp_path / "step-1", made(1))
    assert not list(tmp_path.iterdir())


SAVE_IN_A_LOOP = """
import sys, torch
from pathlib import Path
from foodgen.training.checkpoint import Checkpoint, Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), keep=2)
for step in range(1, 10_000):
    weights = {"a": torch.full((300_000,), float(step))}
    checkpoints.save(Checkpoint(weights, weights, {"step": step}, {"step": step, "classes": []}, ""))
    print(step, flush=True)
"""


@pytest.mark.long
def test_sigkill_at_any_moment_of_saving_leaves_a_whole_one(tmp_path):
    """Twelve kills between 0 and 80 ms after a save has ended: what was reported saved is never lost."""
    chance = random.Random(0)
    for trial in range(12):
        folder = tmp_path / str(trial)
        command = [sys.executable, "-c", SAVE_IN_A_LOOP, str(folder)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(3):
            reported = int(child.stdout.readline())
        time.sleep(chance.uniform(0, 0.08))
        child.send_signal(signal.SIGKILL)
        reported = max([reported, *[int(line) for line in child.stdout.read().split()]])
        child.wait()
        checkpoints = Checkpoints(folder, keep=2)
        newest = checkpoints.newest()
        checkpoints.remove_partial()
        step = int(newest.name.removeprefix("step-"))
        assert step >= reported
        assert torch.equal(read_average(newest)["a"], torch.full((300_000,), float(step)))
        assert not list(folder.glob(".*"))
