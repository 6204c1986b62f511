"""Trainings that are cut at awkward places: while saving, at an epoch or at their end, on one of two processes."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import train
from foodgen.core.files import read_jsonl
from foodgen.training.checkpoint import Checkpoints, read
from foodgen.training.session import Session
from tests.conftest import ROOT
from tests.runs import digest, last, run_of

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

# train.py, with something done to its processes: argv is what, then train.py's own.
DRIVER = """
import os, signal, sys, time
from foodgen.core import command_line, distributed
from foodgen.training import manifest
from foodgen.training.trainer import Trainer
import train
deed = sys.argv.pop(1)
step, flush, saving = Trainer.step, manifest.flush, []
def watched(self, number, *batch):
    first_try = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
    if deed == "kill the second" and number == 8 and distributed.rank() == 1 and first_try:
        os.kill(os.getpid(), signal.SIGKILL)
    logged = step(self, number, *batch)
    if deed == "end all" and number == 7:
        os.kill(os.getpid(), signal.SIGTERM)
    return logged
def slow(path):
    if deed == "save slowly":
        if not saving: print("saving", flush=True)
        saving.append(path)
        time.sleep(0.1)
    flush(path)
Trainer.step, manifest.flush = watched, slow
command_line.run(train.main)
"""


@pytest.fixture
def driver(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)

    def run(command, deed, *arguments):
        return subprocess.Popen(
            [*command, str(tmp_path / "driver.py"), deed, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.mark.long
def test_a_signal_while_saving_waits_for_the_save(tiny, tmp_path, driver, script):
    options = [*tiny, "exp.run=cut", "train.checkpoint_path=latest"]
    child = driver([sys.executable], "save slowly", *options)
    assert child.stdout.readline() == "saving\n"
    began = time.monotonic()
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 143, errors
    assert time.monotonic() - began < 30  # ten seconds, but for a busy machine
    assert last(tmp_path, "cut").name == "step-00000005"
    assert not [*run_of(tmp_path, "cut").glob("checkpoints/.*")]
    script("train.py", *options, check=True)
    script("train.py", *tiny, "exp.run=whole", check=True)
    assert digest(last(tmp_path, "cut")) == digest(last(tmp_path, "whole"))


@pytest.mark.parametrize("cut", [9, 10, 12])
def test_a_stop_at_an_epochs_end_or_the_last_step_is_no_other(cut, tiny, tmp_path, monkeypatch):
    """96 images in batches of 10: the first epoch ends within step 10."""
    train.main([*tiny, "exp.run=whole"])
    original = Session._must_stop
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_must_stop", lambda self: self.trainer.global_step == cut or original(self))
        train.main([*tiny, "exp.run=parts"])
    assert last(tmp_path, "parts").name == f"step-{cut:08d}"
    assert train.main([*tiny, "exp.run=parts", "train.checkpoint_path=latest"]) == 0
    assert digest(last(tmp_path, "parts")) == digest(last(tmp_path, "whole"))


def test_a_finished_run_is_left_as_it_is(tiny, tmp_path, capfd):
    train.main(tiny)
    run = run_of(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    rows = (run / "metrics.jsonl").read_text()
    assert train.main([*tiny, "train.checkpoint_path=latest"]) == 0
    assert "all 12 steps are done" in capfd.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert {path for path in before if "checkpoints" in path.parts and after[path] != before[path]} == set()
    assert (run / "metrics.jsonl").read_text() == rows
    assert after.keys() == before.keys()


@pytest.mark.long
def test_torchrun_restarts_a_training_whose_process_was_killed(tiny, tmp_path, driver):
    options = [*tiny, "train.checkpoint_path=latest", "train.log_step=1"]
    for run, deed in (("whole", "nothing"), ("cut", "kill the second")):
        child = driver([*TORCHRUN, "--max-restarts=1"], deed, *options, f"exp.run={run}")
        _, errors = child.communicate(timeout=240)
        assert child.returncode == 0, errors[-3000:]
    assert "resumed" in errors and "at step 5" in errors
    assert digest(last(tmp_path, "cut")) == digest(last(tmp_path, "whole"))
    rows = read_jsonl(run_of(tmp_path, "cut") / "metrics.jsonl")
    assert [row["step"] for row in rows] == [*range(1, 13)]  # one process writes, and what was done twice is there once


@pytest.mark.long
def test_two_processes_go_on_as_one(tiny, tmp_path, driver, script):
    options = [*tiny, "objective.model.network.dropout=0", "train.checkpoint_path=latest"]
    child = driver(TORCHRUN, "end all", *options, "exp.run=fewer")
    child.communicate(timeout=240)
    assert Checkpoints(run_of(tmp_path, "fewer") / "checkpoints", 2).newest().name == "step-00000007"
    script("train.py", *options, "exp.run=fewer", check=True)
    script("train.py", *options, "exp.run=one", check=True)
    one, fewer = read(last(tmp_path, "one")), read(last(tmp_path, "fewer"))
    assert fewer.meta["step"] == 12
    for name, tensor in one.weights.items():
        torch.testing.assert_close(fewer.weights[name], tensor, rtol=1e-3, atol=2e-5)
