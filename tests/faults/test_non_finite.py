"""Losses and gradients that are not finite: the step is skipped and counted; too many end the training."""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch

import train
from foodgen.core.errors import CheckpointError, UserError
from foodgen.core.files import read_jsonl
from foodgen.training.checkpoint import read
from foodgen.training.session import Session
from foodgen.training.trainer import Trainer
from tests.conftest import ROOT
from tests.runs import digest, last, run_of


class Poison(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(context, loss):
        return loss.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("inf")


def poisoned(loss, kind, objective):
    """The loss, with a fault: of its value, of its gradient, or of what batch norm has seen."""
    if kind == "value":  # of the loss alone: its gradient is as it was
        return loss + float("nan")
    if kind == "gradient":
        return Poison.apply(loss)
    if kind == "buffers":
        for name, buffer in objective.named_buffers():
            if name.endswith("running_mean"):
                buffer.data.fill_(float("nan"))  # unseen by autograd
        return loss * float("nan")
    return loss * float(kind)


def inject(monkeypatch, at, kind="nan", network="model"):
    """Let losses of `network` go wrong where `at`, asked with the trainer and a phase's batch, says so."""
    original = Trainer.optimize

    def optimize(self, phase, batch, lr_scale):
        if phase.network != network or not at(self):
            return original(self, phase, batch, lr_scale)

        def loss(piece):
            losses = phase.loss(piece)
            return {**losses, "loss": poisoned(losses["loss"], kind, self.objective)}

        return original(self, dataclasses.replace(phase, loss=loss), batch, lr_scale)

    monkeypatch.setattr(Trainer, "optimize", optimize)


def watch(monkeypatch):
    """What the objective holds after each step, and the optimizers' moments, as they fill up."""
    original, states = Trainer.step, []

    def step(self, number, images, labels):
        logged = original(self, number, images, labels)
        moments = {
            f"{name}.{index}.{key}": value
            for name, optimizer in self.optimizers.items()
            for part in optimizer.parts
            for index, of_weight in part.state_dict()["state"].items()
            for key, value in of_weight.items()
        }
        states.append({name: value.clone() for name, value in {**self.objective.state_dict(), **moments}.items()})
        return logged

    monkeypatch.setattr(Trainer, "step", step)
    return states


def changed(before, after):
    return {name for name, value in after.items() if not torch.equal(before[name], value)}


@pytest.mark.parametrize("kind", ["value", "nan", "inf", "gradient", "buffers"])
@pytest.mark.parametrize("network", ["model", "discriminator"])
def test_a_step_that_is_not_finite_changes_nothing_of_its_network(kind, network, small, tmp_path, monkeypatch):
    states = watch(monkeypatch)
    inject(monkeypatch, lambda trainer: trainer.global_step == 2, kind, network)
    train.main(small("small/dcgan"))
    moved = changed(states[1], states[2])
    own = {name for name in moved if name.startswith(f"{network}.")}
    assert {name for name in own if "running" not in name and "num_batches" not in name} == set()
    if kind == "buffers":
        assert any(name.startswith(f"{network}.") and name.endswith("running_mean") for name in states[2])
    assert any(name.startswith({"model": "discriminator.", "discriminator": "model."}[network]) for name in moved)
    assert all(torch.isfinite(value).all() for value in states[-1].values() if value.is_floating_point())
    assert any(name.startswith(f"{network}.") for name in changed(states[2], states[3]))  # and it goes on
    rows = read_jsonl(run_of(tmp_path) / "metrics.jsonl")
    assert [row.get(f"{network}/skipped_steps") for row in rows] == [None, None, 1.0, 1.0, 1.0]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)


def test_an_augmentations_count_goes_back_with_its_sum(small, monkeypatch):
    """ADA's mean of signs is their sum by a count of batches: whole numbers are put back as well."""
    states = watch(monkeypatch)
    inject(monkeypatch, lambda trainer: trainer.global_step == 2, "nan", "discriminator")
    train.main(small("small/dcgan", "objective.augmentation={name: ada}"))
    own = {name for name, value in states[1].items() if name.startswith("augmentation.")}
    assert any(not states[1][name].is_floating_point() for name in own)
    assert not own & changed(states[1], states[2])
    assert own & changed(states[2], states[3])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_optimizer_skips(optimizer, tiny, tmp_path, monkeypatch):
    states = watch(monkeypatch)
    inject(monkeypatch, lambda trainer: trainer.global_step == 4)
    network = "objective.model.network={name: dit, patch: 4, width: 32, depth: 1, heads: 2}"
    train.main([*tiny, network, f"optimizers.model={{name: {optimizer}}}"])
    assert not changed(states[3], states[4])
    assert changed(states[4], states[5])


def test_too_many_in_a_row_end_the_training_with_the_batch_kept(tiny, tmp_path, monkeypatch):
    inject(monkeypatch, lambda trainer: trainer.global_step >= 6)
    with pytest.raises(UserError, match=r"step 10: the loss or gradients are not finite, .*\n?.*grad_clip") as caught:
        train.main([*tiny, "train.max_skipped_steps=3"])
    assert "nor were those of the 3 steps before it" in str(caught.value)
    batch = torch.load(run_of(tmp_path) / "non-finite-step-00000010.pt", weights_only=True)
    assert batch["images"].shape == (10, 3, 16, 16)
    assert (batch["images"].dtype, batch["step"], batch["seed"]) == (torch.uint8, 10, 0)
    assert str(run_of(tmp_path) / "non-finite-step-00000010.pt") in str(caught.value)
    assert last(tmp_path).name == "step-00000005"  # that of step 10 was not written, from a stuck training


def test_what_comes_now_and_then_does_not_end_it(tiny, tmp_path, monkeypatch):
    inject(monkeypatch, lambda trainer: trainer.global_step % 3 > 0)
    train.main([*tiny, "train.max_skipped_steps=3"])
    assert read_jsonl(run_of(tmp_path) / "metrics.jsonl")[-1]["model/skipped_steps"] == 8.0
    assert last(tmp_path).name == "step-00000012"


def test_skipped_steps_resume_to_the_bit(tiny, tmp_path, monkeypatch):
    inject(monkeypatch, lambda trainer: trainer.global_step in (3, 5, 6, 8))
    train.main([*tiny, "exp.run=whole"])
    original = Session._must_stop
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_must_stop", lambda self: self.trainer.global_step == 7 or original(self))
        train.main([*tiny, "exp.run=parts"])
    assert read(last(tmp_path, "parts")).training["scalers"]["model"]["in_a_row"] == 2
    train.main([*tiny, "exp.run=parts", "train.checkpoint_path=latest"])
    assert digest(last(tmp_path, "parts")) == digest(last(tmp_path, "whole"))


def test_it_goes_back_to_the_last_checkpoint_with_half_the_rate(tiny, tmp_path, monkeypatch):
    inject(monkeypatch, lambda trainer: trainer.global_step >= 6 and trainer.seed == 0)
    before = {}
    original = Session._roll_back

    def noted(self, error):
        before["saved"] = digest(last(tmp_path, self.folder.name))
        original(self, error)
        before["returned"] = self.trainer.objective.state_dict()

    monkeypatch.setattr(Session, "_roll_back", noted)
    options = [*tiny, "train.max_skipped_steps=2", "train.rollbacks=1", "train.log_step=1"]
    train.main([*options, "exp.run=whole"])
    assert read(last(tmp_path, "whole")).meta["rollbacks"] == 1
    rows = read_jsonl(run_of(tmp_path, "whole") / "metrics.jsonl")
    assert [row["step"] for row in rows] == [*range(1, 13)]
    rates = [row["model/learning_rate"] for row in rows]
    assert rates[5:] == [rates[4] / 2] * 7
    # and a training that is killed after its return goes on as it would have
    stop = Session._must_stop
    with monkeypatch.context() as patch:
        patch.setattr(
            Session,
            "_must_stop",
            lambda self: (self.rollbacks == 1 and self.trainer.global_step == 8) or stop(self),
        )
        train.main([*options, "exp.run=parts"])
    train.main([*options, "exp.run=parts", "train.checkpoint_path=latest"])
    assert digest(last(tmp_path, "parts")) == digest(last(tmp_path, "whole"))


def test_returns_are_bounded(tiny, tmp_path, monkeypatch):
    seeds = []
    inject(monkeypatch, lambda trainer: trainer.global_step >= 6 and not seeds.append(trainer.seed))
    with pytest.raises(UserError, match="not finite"):
        train.main([*tiny, "train.max_skipped_steps=2", "train.rollbacks=2"])
    assert sorted({*seeds}) == [0, 1, 2]
    assert last(tmp_path).name == "step-00000005"


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tiny, tmp_path, monkeypatch):
    inject(monkeypatch, lambda trainer: True)
    with pytest.raises(UserError, match="not finite"):
        train.main([*tiny, "train.max_skipped_steps=2", "train.rollbacks=2"])
    assert last(tmp_path) is None


def test_weights_that_are_not_finite_are_never_saved(tiny, tmp_path, monkeypatch):
    original = Trainer.step

    def ruined(self, number, images, labels):
        logged = original(self, number, images, labels)
        if number in (10, 12):
            next(self.objective.model.parameters()).data.fill_(float("inf"))
        return logged

    monkeypatch.setattr(Trainer, "step", ruined)
    with pytest.raises(CheckpointError, match=r"step 12: .* is not finite: not saved"):
        train.main(tiny)
    assert last(tmp_path).name == "step-00000005"


# train.py on two processes, of which the second has a loss that is not finite in step 4.
DRIVER = """
import sys
from foodgen.core import command_line, distributed
from foodgen.objectives.denoising import Denoising
from foodgen.training.trainer import Trainer
import train
original, steps = Denoising.phases, []
def phases(self, step):
    steps.append(step)
    return original(self, step)
forward = Trainer.optimize
def optimize(self, phase, batch, lr_scale):
    if steps[-1] == 4 and distributed.rank() == 1:
        batch.images.fill_(float("nan"))
    return forward(self, phase, batch, lr_scale)
Denoising.phases, Trainer.optimize = phases, optimize
command_line.run(train.main)
"""


@pytest.mark.long
def test_two_processes_skip_together(tiny, tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "driver.py"), *tiny, "train.steps=6", "train.log_step=1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read_jsonl(run_of(tmp_path) / "metrics.jsonl")
    assert [row.get("model/skipped_steps") for row in rows] == [None, None, None, 1.0, 1.0, 1.0]
    assert all(torch.isfinite(weight).all() for weight in read(last(tmp_path)).weights.values())
