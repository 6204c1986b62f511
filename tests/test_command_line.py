"""The scripts as processes: exit statuses, kills and signals at chosen moments, two at a time."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from foodgen.core.files import read_jsonl
from foodgen.training.checkpoint import Checkpoints
from tests.conftest import ROOT
from tests.training.test_tracking import wandb_rows

# Runs train.py with something done at the end of a step: argv is the step, the deed, then train.py's own.
DRIVER = """
import os, signal, sys, time
from foodgen.core import command_line
from foodgen.evaluation.sampling import SamplingLoop
from foodgen.training.trainer import Trainer
import train
step, deed = int(sys.argv[1]), sys.argv[2]
sys.argv[1:] = sys.argv[3:]
original, draw = Trainer.step, SamplingLoop.__call__
def watched(self, number, *batch):
    measured = original(self, number, *batch)
    if number == step and deed == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if number == step and deed in ("term", "int"):
        os.kill(os.getpid(), signal.SIGTERM if deed == "term" else signal.SIGINT)
    if number == step and deed == "crash": raise RuntimeError("a bug")
    if number == step and deed == "hang": print("hanging", flush=True); time.sleep(60)
    if number == step and deed == "pause": print("pausing", flush=True); time.sleep(3)
    return measured
def slow(self, *arguments):
    if deed == "slow drawing": print("drawing", flush=True); time.sleep(60)
    return draw(self, *arguments)
Trainer.step, SamplingLoop.__call__ = watched, slow
command_line.run(train.main)
"""


def drive(step, deed, *arguments, **options):
    command = [sys.executable, "-c", DRIVER, str(step), deed, *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT, **options}
    return subprocess.Popen(command, **options)


def digest(run):
    newest = Checkpoints(run / "checkpoints", 2).newest()
    return [
        hashlib.sha256((newest / name).read_bytes()).hexdigest() for name in ("weights.safetensors", "ema.safetensors")
    ]


@pytest.fixture
def whole(tiny, tmp_path, script):
    """The weights of a run that nothing disturbed."""
    script("train.py", *tiny, "exp.run=whole", check=True)
    return digest(tmp_path / "runs" / "whole")


@pytest.mark.long
@pytest.mark.parametrize(("deed", "status"), [("kill", -9), ("term", 143), ("int", 130)])
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_is_undisturbed(deed, status, workers, tiny, tmp_path, whole, script):
    options = [*tiny, "exp.run=cut", "train.checkpoint_path=latest"]
    child = drive(8, deed, *options, f"data.workers={workers}")
    _, errors = child.communicate(timeout=120)
    assert child.returncode == status, errors
    newest = Checkpoints(tmp_path / "runs" / "cut" / "checkpoints", 2).newest()
    assert newest.name == ("step-00000005" if deed == "kill" else "step-00000008")
    script("train.py", *options, f"data.workers={2 - workers}", check=True)
    assert digest(tmp_path / "runs" / "cut") == whole
    rows = read_jsonl(tmp_path / "runs" / "cut" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]


@pytest.mark.long
def test_a_signal_during_validation_ends_quickly_and_the_validation_is_made_up_for(tiny, tmp_path, whole, script):
    options = [*tiny, "exp.run=cut", "train.checkpoint_path=latest", "train.val_step=6"]
    child = drive(0, "slow drawing", *options)
    assert child.stdout.readline() == "drawing\n"
    began = time.monotonic()
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=30) == 143
    assert time.monotonic() - began < 10
    run = tmp_path / "runs" / "cut"
    assert Checkpoints(run / "checkpoints", 2).newest().name == "step-00000006"
    assert not (run / "grids").exists()
    script("train.py", *options, check=True)
    assert sorted(path.name for path in (run / "grids").iterdir()) == ["step-00000006.png", "step-00000012.png"]
    assert digest(run) == whole


@pytest.mark.long
def test_a_signal_to_the_whole_group_still_saves(tiny, tmp_path):
    """As torchrun, timeout and batch systems send it: to the workers that read images, too."""
    child = drive(8, "pause", *tiny, "data.workers=2", start_new_session=True)
    assert child.stdout.readline() == "pausing\n"
    os.killpg(child.pid, signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 143, errors
    assert Checkpoints(tmp_path / "runs" / "tiny" / "checkpoints", 2).newest().name == "step-00000008"


@pytest.mark.long
def test_a_crash_leaves_no_process_waiting(tiny):
    child = drive(8, "crash", *tiny, "data.workers=2")
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "RuntimeError: a bug" in errors


@pytest.mark.long
def test_a_second_signal_ends_at_once(tiny, tmp_path):
    child = drive(8, "hang", *tiny)
    assert child.stdout.readline() == "hanging\n"
    child.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert child.poll() is None  # the first one waits for the step to end
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=5) == 143
    assert Checkpoints(tmp_path / "runs" / "tiny" / "checkpoints", 2).newest().name == "step-00000005"


@pytest.mark.long
def test_one_run_folder_one_process(tiny, script):
    child = drive(3, "hang", *tiny)
    assert child.stdout.readline() == "hanging\n"
    second = script("train.py", *tiny, "train.checkpoint_path=latest")
    assert second.returncode == 2
    assert "another process trains here" in second.stderr
    child.kill()
    child.wait()
    assert script("train.py", *tiny, "train.checkpoint_path=latest").returncode == 0  # the dead one's lock is free


@pytest.mark.long
def test_a_stopped_run_has_all_its_rows_in_wandb(tiny, tmp_path, script):
    home = {name: str(tmp_path / "home") for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")}
    environment = {**os.environ, **home, "WANDB_MODE": "offline"}
    options = [*tiny, "exp.use_wandb=true", "train.checkpoint_path=latest", "train.log_step=1"]
    child = drive(8, "term", *options, env=environment)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 143, errors
    run = tmp_path / "runs" / "tiny"
    assert [row["step"] for row in wandb_rows(run)] == list(range(1, 9))
    script("train.py", *options, check=True, env=environment)
    rows = wandb_rows(run)
    assert [row["step"] for row in rows if "model/loss" in row] == list(range(1, 13))
    assert any("grid/path" in row for row in rows)
    assert len({path.name.split("-")[3] for path in run.glob("wandb/offline-run-*")}) == 1
    local = read_jsonl(run / "metrics.jsonl")
    assert [row["model/loss"] for row in local] == [row["model/loss"] for row in rows if "model/loss" in row]


@pytest.mark.long
def test_a_disk_that_fills_up(tiny, tmp_path):
    """Files may not grow past 32 KiB: periodic saves fail with a warning, the third failure ends the run."""
    limited = f"ulimit -f 32; exec {sys.executable} train.py " + " ".join(tiny)
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert "not saved, training goes on" in done.stderr
    assert done.returncode == 2
    assert "could not be written" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "runs" / "tiny" / "checkpoints").iterdir())


def test_a_mistake_is_one_line_and_status_2(script, tiny, tmp_path):
    for name, argument, message in (
        ("train.py", "train.stepz=3", "train.stepz: unknown key; did you mean 'steps'?"),
        ("inference.py", "inference.coutn=3", "inference.coutn: unknown key; did you mean 'count'?"),
        ("export.py", "export.shard=3", "export.shard: unknown key"),
    ):
        done = script(name, *tiny, argument)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {message}")
        assert len(done.stderr.splitlines()) == 1
    done = script("prepare_data.py", "exp.config_path=configs/prepare.yaml", "source=nowhere", f"target={tmp_path}")
    assert (done.returncode, done.stderr) == (
        2,
        "error: source: nowhere is neither a folder nor a zip nor a parquet file\n",
    )


@pytest.mark.long
def test_an_unwritable_place_and_a_strange_environment(tiny, tmp_path, script):
    (tmp_path / "file").write_text("")
    done = script("train.py", *tiny, f"exp.exp_dir={tmp_path / 'file'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: exp.exp_dir:")
    command = [sys.executable, str(ROOT / "train.py"), *tiny, "exp.run=éclair au café"]
    environment = {**os.environ, "LC_ALL": "C", "TZ": "Pacific/Kiritimati", "HOME": "/proc"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert Checkpoints(tmp_path / "runs" / "éclair au café" / "checkpoints", 2).newest()


@pytest.mark.long
def test_inference_scores_with_the_real_network(tiny, tmp_path, script):
    script("train.py", *tiny, check=True)
    done = script(
        *["inference.py", *tiny, "train.checkpoint_path=latest", "inference.count=16", "inference.metrics=[fid]"],
        check=True,
    )
    found = json.loads((tmp_path / "runs" / "tiny" / "metrics.json").read_text())
    assert found["generated_count"] == 16
    assert found["reference_count"] == 32
    assert f"fid: {found['fid']:.3f}" in done.stdout
    assert found["fid"] > 50
    assert "biased" in done.stderr
