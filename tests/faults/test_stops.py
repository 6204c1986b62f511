"""Averages and checkpoints of a training that time or a signal stops."""

import os
import signal

import pytest
import torch

import export
import train
from foodgen.core.errors import CheckpointError
from foodgen.training import checkpoint as module
from foodgen.training.checkpoint import read_average, verify, write
from foodgen.training.session import Session
from foodgen.training.snapshots import Snapshots, average_of
from foodgen.training.trainer import Trainer
from tests.runs import arguments_of, digest, last, run_of
from tests.test_recipes import stop_at
from tests.training.test_checkpoint import flip

POWER = ["ema={name: power_function, lengths: [0.05, 0.1], snapshot_step: 5}", "train.log_step=1"]


def snapshots_of(run):
    """What snapshots there are, by folder and file."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.glob("averages/*/*.safetensors")}


def signal_after(step, monkeypatch):
    original = Trainer.step

    def signalled(self, number, *batch):
        measured = original(self, number, *batch)
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return measured

    monkeypatch.setattr(Trainer, "step", signalled)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, dishes):
    """A run with averages of two lengths that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train.main([*arguments_of(folder, dishes), *POWER])
    return run_of(folder)


@pytest.mark.parametrize("cause", ["time", "signal"])
def test_the_averages_of_a_stop_are_kept_and_change_nothing_after(cause, undisturbed, tiny, tmp_path, monkeypatch):
    """Another length is exported of the last state; resumed, weights and averages are those of an undisturbed run."""
    with monkeypatch.context() as patch:
        stop_at(7, patch) if cause == "time" else signal_after(7, patch)
        assert train.main([*tiny, *POWER, "exp.run=parts"]) == (0 if cause == "time" else 143)
    stopped = last(tmp_path, "parts")
    assert stopped.name == "step-00000007"
    own = read_average(stopped)
    for name, tensor in average_of(stopped, 0.05).items():  # the length that is drawn with, kept in half precision
        torch.testing.assert_close(tensor, own[name], rtol=2e-3, atol=1e-5)
    export.main([*tiny, "exp.run=parts", "train.checkpoint_path=latest", "export.ema_length=0.08"])
    early = average_of(stopped, 0.08)
    train.main([*tiny, *POWER, "exp.run=parts", "train.checkpoint_path=latest"])
    final = [run / "checkpoints" / "step-00000012" for run in (undisturbed, run_of(tmp_path, "parts"))]
    assert digest(final[0]) == digest(final[1])
    found = [snapshots_of(run) for run in (undisturbed, run_of(tmp_path, "parts"))]
    assert {*found[1]} - {*found[0]} == {f"averages/end-00000007/length-{length}.safetensors" for length in (0.05, 0.1)}
    assert found[0].items() <= found[1].items()
    ends = [average_of(path, 0.08) for path in final]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert all(torch.equal(tensor, early[name]) for name, tensor in average_of(stopped, 0.08).items())


def test_the_time_budget_keeps_averages(tiny, tmp_path):
    """As configured: train.max_minutes."""
    train.main([*tiny, *POWER, "train.max_minutes=1e-9"])
    assert last(tmp_path).name == "step-00000001"
    assert {path.parent.name for path in Snapshots(run_of(tmp_path)).folder.glob("*/*")} == {"end-00000001"}
    assert average_of(last(tmp_path), 0.08)


def test_averages_of_stops_go_with_their_checkpoints(tmp_path):
    """Disk use is bounded: an end whose checkpoint is gone, and what a kill left half written, go on resumption."""
    snapshots = Snapshots(tmp_path)
    for step in (7, 8, 13):
        snapshots.save(step, {0.05: {"a": torch.zeros(1)}}, "end")
    snapshots.save(10, {0.05: {"a": torch.zeros(1)}})
    (snapshots.folder / ".writing-step-00000012").mkdir()
    (tmp_path / "checkpoints" / "step-00000008").mkdir(parents=True)
    snapshots.forget_after(10)
    assert sorted(path.name for path in snapshots.folder.iterdir()) == ["end-00000008", "step-00000010"]
    assert [step for step, *_ in snapshots.until(10)] == [10]
    assert [step for step, *_ in snapshots.until(8)] == [8]


def test_damaged_averages_are_named(tmp_path):
    """A flipped bit, other weights than before, or what is not finite is never mixed into an average."""
    place = tmp_path / "checkpoints" / "step-00000002"
    weights = {"a": torch.ones(3), "b": torch.ones(2)}
    write(place, module.Checkpoint(weights, weights, {}, {"step": 2, "classes": []}, "{}"))
    snapshots = Snapshots(tmp_path)
    for step in (1, 2):
        snapshots.save(step, {0.05: weights})
    assert torch.equal(average_of(place, 0.08)["a"], weights["a"])
    path = snapshots.folder / "step-00000001" / "length-0.05.safetensors"
    flip(path, -1)
    with pytest.raises(CheckpointError, match=r"step-00000001/length-0\.05\.safetensors: differs from its manifest"):
        average_of(place, 0.08)
    for content, message in (
        ({"a": weights["a"]}, "holds other weights than the snapshots before it"),
        ({"a": torch.ones(4), "b": weights["b"]}, "length-0.05.safetensors: a does not fit"),
        ({"a": torch.full((3,), 1e9), "b": weights["b"]}, "a is not finite"),
    ):
        snapshots.save(2, {0.05: content})
        snapshots.save(1, {0.05: weights})
        with pytest.raises(CheckpointError, match=message):
            average_of(place, 0.08)


def test_a_signal_between_two_looks_is_not_answered_without_a_checkpoint(tiny, tmp_path, monkeypatch):
    """One that comes just after a step has found none, where nothing is saved, ends the step after, with its state."""
    original = Session._must_stop

    def late(self):
        found = original(self)
        if self.trainer.global_step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(Session, "_must_stop", late)
    assert train.main(tiny) == 143
    assert last(tmp_path).name == "step-00000008"
    verify(last(tmp_path))
