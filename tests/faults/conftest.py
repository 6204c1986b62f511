"""What the tests of faults share: checkpoints to spoil, photos, pickles with code in them, a place to run commands."""

import os
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import export
import foodgen
import inference
import train
from foodgen.evaluation.inference import Inference
from foodgen.evaluation.sweep import Sweep
from foodgen.training.session import Session
from tests.faults.place import Place
from tests.runs import arguments_of, run_of


class Evil:
    """A pickle of it makes a folder when it is read."""

    def __init__(self, trap):
        self.trap = str(trap)

    def __reduce__(self):
        return os.mkdir, (self.trap,)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, dishes):
    """A tiny run with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("whole")
    train.main([*arguments_of(folder, dishes), "train.steps=4", "train.checkpoint_step=2"])
    return run_of(folder)


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the tiny run that may be spoilt."""
    return shutil.copytree(whole, run_of(tmp_path))


@pytest.fixture
def newest(run):
    return run / "checkpoints" / "step-00000004"


@pytest.fixture
def doors(tiny, tmp_path):
    """Everything that opens a checkpoint by its path, by name."""

    def resume(path):
        train.main([*tiny, "train.steps=4", "exp.run=branch", f"train.checkpoint_path={path}"])

    def sample(path):
        few = ["inference.count=8", "inference.metrics=[]", "exp.run=sampled"]
        inference.main([*tiny, *few, f"train.checkpoint_path={path}"])

    def write_export(path):
        export.main([*tiny, f"train.checkpoint_path={path}", f"export.output_dir={tmp_path / 'exported'}"])

    return {"resume": resume, "inference": sample, "export": write_export, "load": foodgen.load}


@pytest.fixture
def trap(tmp_path):
    """The folder that code in a pickle would make."""
    return tmp_path / "ran"


@pytest.fixture
def evil(trap):
    """Writes a pickle with code in place of a file, in one of the forms that torch and numpy know."""

    def put(path, form="pickle"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if form == "torch":
            torch.save({"weights": Evil(trap)}, path)
        elif form == "numpy":
            with path.open("wb") as file:
                np.save(file, np.array([Evil(trap)], dtype=object), allow_pickle=True)
        elif form == "zip":
            with path.open("wb") as file:
                np.savez(file, features=np.array([Evil(trap)], dtype=object))
        else:
            path.write_bytes(pickle.dumps(Evil(trap), protocol=2))
        return path

    return put


@pytest.fixture
def photos(dishes, tmp_path):
    return shutil.copytree(dishes / "test", tmp_path / "photos")


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory, dishes):
    return Place(tmp_path_factory.mktemp("kitchen"), dishes)


@pytest.fixture
def place(kitchen, monkeypatch):
    """Commands up to where their work would start."""
    kitchen.clear()
    monkeypatch.chdir(kitchen.work)
    monkeypatch.setattr(Session, "run", lambda session: session.tracker.close(0) or 0)
    monkeypatch.setattr(Inference, "run", lambda _: {"generated_count": 0})
    monkeypatch.setattr(Sweep, "run", lambda sweep: [sweep.make(point) for point in sweep.points])
    monkeypatch.setattr(Sweep, "best", lambda *_: {"point": {}})
    monkeypatch.setattr("foodgen.builders.training.make_backends", lambda *_: [])
    monkeypatch.setattr("foodgen.builders.dry_run.describe", lambda _: "")
    monkeypatch.setattr("foodgen.commands.export.export", lambda _: [kitchen.file])
    monkeypatch.setattr("foodgen.commands.export.export_onnx", lambda *_: [])
    monkeypatch.setattr("foodgen.commands.export.share", lambda *_: "")
    manifest = {"dropped": [], "counts": {}, "classes": []}
    monkeypatch.setattr("foodgen.builders.training.preparation.prepare", lambda *_, **__: manifest)
    monkeypatch.setattr("foodgen.commands.report._write", lambda *_: None)
    monkeypatch.setattr("foodgen.commands.check.check_folder", lambda *_: SimpleNamespace(errors=[]))
    monkeypatch.setattr("foodgen.web.page.build", lambda *_: None)
    monkeypatch.setattr("foodgen.web.page.launch", lambda *_: 0)
    return kitchen
