"""Small sets and configurations that many tests share."""

import faulthandler
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: tiny networks are quicker so, on busy machines above all

import pytest
import torch

import train
from foodgen.data.synthetic import draw_set
from tests.runs import score_by_colours

ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "tiny.yaml"


def pytest_unconfigure():
    """Python must end after the last test: a process left behind that it waits for fails here, with where."""
    faulthandler.dump_traceback_later(120, exit=True, file=sys.__stderr__)


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("WANDB_MODE", "offline")
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def dishes(tmp_path_factory):
    """A folder with train/ and test/ of drawn dishes: 8 classes, 16 pixels, 12 and 4 images a class."""
    root = tmp_path_factory.mktemp("dishes")
    draw_set(root / "train", 16, 12)
    draw_set(root / "test", 16, 4)
    return root


@pytest.fixture
def tiny(dishes, tmp_path):
    """Arguments of a run that trains 12 steps in a second."""
    return [
        f"exp.config_path={TINY}",
        f"exp.exp_dir={tmp_path / 'runs'}",
        f"data.input_train_dir={dishes / 'train'}",
        f"data.input_val_dir={dishes / 'test'}",
    ]


@pytest.fixture(scope="session")
def plates(tmp_path_factory):
    """Drawn dishes as small recipes want them: 8 classes, 32 pixels, 4 and 2 images a class."""
    root = tmp_path_factory.mktemp("plates")
    draw_set(root / "train", 32, 4)
    draw_set(root / "test", 32, 2)
    return root


@pytest.fixture
def small(plates, tmp_path):
    """Arguments of five steps of a configuration, by its place in configs/, on those dishes."""

    def arguments(name, *more):
        return [
            f"exp.config_path={ROOT / 'configs' / name}.yaml",
            f"exp.exp_dir={tmp_path / 'runs'}",
            "exp.run=tiny",
            "exp.device=cpu",
            "dataset={name: folder}",
            f"data.input_train_dir={plates / 'train'}",
            f"data.input_val_dir={plates / 'test'}",
            "data.train_batch_size=8",
            "data.val_batch_size=8",
            "data.image_size=32",
            "train.steps=5",
            "train.log_step=1",
            "train.grid_count=8",
            "train.precision=fp32",  # the same on all machines
            *more,
        ]

    return arguments


@pytest.fixture
def script():
    """Runs a script of the project as a user does; the finished process."""

    def run(*arguments, check=False, **options):
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240, **options)
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def trained(tiny, monkeypatch, dishes, tmp_path):
    """Arguments that draw with a trained tiny model and score by colours."""
    shutil.copytree(dishes / "test", tmp_path / "val")
    score_by_colours(monkeypatch)
    train.main(tiny)
    judged = ["inference.metrics=[fid,kid]", "inference.overwrite=true", f"data.input_val_dir={tmp_path / 'val'}"]
    return [*tiny, "train.checkpoint_path=latest", *judged]
