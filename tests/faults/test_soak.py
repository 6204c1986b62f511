"""A training holds no more after many validations, checkpoints and rows than after a few; and who watches sees it."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import soak
from benchmarks.soak import NUMBERS, draw, look, rise
from foodgen.core.errors import ConfigError
from tests.conftest import ROOT
from tests.runs import last, run_of

# train.py, whose numbers are written after each validation.
DRIVER = """
import json, os, sys
from pathlib import Path
from benchmarks.soak import look
from foodgen.core import command_line
from foodgen.training.session import Session
import train
rows, validate = Path(sys.argv.pop(1)), Session._validate_and_save
def watched(self):
    validate(self)
    with rows.open("a") as file:
        file.write(json.dumps({"minutes": self.trainer.global_step, **look(os.getpid(), self.folder)}) + "\\n")
Session._validate_and_save = watched
command_line.run(train.main)
"""


@pytest.mark.long
def test_memory_handles_threads_and_disk_stay(tiny, tmp_path):
    often = ["train.steps=180", "train.val_step=6", "train.checkpoint_step=3", "train.log_step=1"]
    options = [*tiny, *often, "exp.use_wandb=true", "train.grid_count=8"]
    rows = tmp_path / "rows.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(rows), *options],
        cwd=ROOT,
        env={**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert last(tmp_path).name == "step-00000180"
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(found) == 30
    _, largest, _ = rise(found, "handles", 60)
    assert rise(found, "handles", 60)[2] <= 1, largest
    assert rise(found, "threads", 60)[2] <= 1
    assert rise(found, "memory_mb", 60)[2] < 20
    grids = sum(path.stat().st_size for path in run_of(tmp_path).rglob("grids/*")) / 1e6
    wandb = sum(path.stat().st_size for path in run_of(tmp_path).rglob("wandb/**/*") if path.is_file()) / 1e6
    assert rise(found, "disk_mb", 60)[2] < 1 + grids + wandb  # grids, rows and W&B's file alone grow


def test_what_grows_is_seen(tmp_path):
    before = look(os.getpid(), tmp_path)
    kept = bytearray(os.urandom(1) * 60_000_000)
    files = [(tmp_path / str(number)).open("wb") for number in range(7)]
    files[0].write(kept[:5_000_000])
    files[0].flush()
    after = look(os.getpid(), tmp_path)
    assert after["handles"] - before["handles"] == 7
    assert after["disk_mb"] == 5.0
    assert 50 < after["memory_mb"] - before["memory_mb"] < 100
    for file in files:
        file.close()
    rows = [{"minutes": minute, **{name: 10.0 * minute for name in NUMBERS}} for minute in range(21)]
    least, largest, more = rise(rows, "handles", 10)
    assert (least, largest) == (100.0, 200.0)
    assert more == pytest.approx(90.0)
    draw(rows, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def test_a_training_is_watched_until_it_ends(tmp_path):
    (tmp_path / "run").mkdir()
    options = ["exp.config_path=configs/benchmarks/soak.yaml", f"target={tmp_path}/a.jsonl", f"figure={tmp_path}/a.png"]
    options += ["every_seconds=0.1", "first_minutes=0.001", f"run={tmp_path}/run"]
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"]) as child:
        soak.main([*options, f"pid={child.pid}"])
    assert 0.01 < json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])["minutes"] < 0.1
    assert (tmp_path / "a.png").is_file()
    with pytest.raises(ConfigError, match=f"pid: {child.pid} cannot be looked at"):
        soak.main([*options, f"pid={child.pid}"])
    with pytest.raises(ConfigError, match="run: nowhere is not a folder"):
        soak.main([*options, "pid=1", "run=nowhere"])
