"""TensorBoard's files beside metrics.jsonl."""

import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from foodgen.builders.tracking import send_scores
from foodgen.core import config
from foodgen.core.errors import ConfigError
from foodgen.core.files import read_jsonl
from foodgen.core.registry import build
from foodgen.core.settings import Config
from foodgen.core.types import TrackerBackend
from foodgen.reporting.grids import save_grid
from foodgen.training.tensorboard_run import TensorBoardRun
from foodgen.training.tracker import Tracker


def test_tensorboard_shows_a_resumed_run_once(tmp_path):
    for step, steps in ((0, range(1, 6)), (3, range(4, 8))):
        tracker = Tracker(tmp_path, 12, [TensorBoardRun(tmp_path, step)])
        for now in steps:
            tracker.write({"step": now, "model/loss": now / 10, "val/precision": "fp32"})
        save_grid(torch.full((2, 3, 8, 8), 99, dtype=torch.uint8), [0, 1], ["a", "b"], tmp_path / "grid.png")
        tracker.image(steps[-1], "grid", tmp_path / "grid.png")
        tracker.close(0)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("model/loss")] == [*range(1, 8)]
    assert [event.value for event in events.Scalars("model/loss")] == pytest.approx([n / 10 for n in range(1, 8)])
    assert events.Images("grid")[-1].step == 7


def test_scores_of_an_earlier_checkpoint_hide_nothing(tiny, tmp_path):
    """Nor does sending them rename a W&B run or replace its settings: the backend is told neither."""
    tracker = Tracker(tmp_path, 12, [TensorBoardRun(tmp_path, 0)])
    for step in range(1, 8):
        tracker.write({"step": step, "model/loss": step / 10})
    tracker.close(0)
    settings = config.load([*tiny, "trackers={board: {name: tensorboard}}"], Config)
    send_scores(settings, tmp_path, {"step": 3, "run_id": "abc"})({"fid": 40.0}, tmp_path / "none.png", [])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("model/loss")] == [*range(1, 8)]
    assert [(event.step, event.value) for event in events.Scalars("inference/fid")] == [(3, 40.0)]


def test_trouble_with_a_backend_is_not_an_inferences(tiny, tmp_path, monkeypatch, caplog):
    settings = config.load([*tiny, "trackers={board: {name: tensorboard}}"], Config)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    send_scores(settings, tmp_path, {})({"fid": 40.0}, tmp_path / "none.png", [])
    assert "no tracker has got the scores" in caplog.text


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        build("trackers", {"name": "tensorboard"}, folder=tmp_path, step=0)


def test_a_backend_that_fails_is_left_out(tmp_path, caplog):
    class Failing(TrackerBackend):
        def log(self, row):
            raise OSError("no space left")

        image = close = log

    tracker = Tracker(tmp_path, 3, [Failing()])
    tracker.write({"step": 1})
    tracker.write({"step": 2})
    tracker.close(0)
    assert caplog.text.count("Failing is left out from here on") == 1
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2]
