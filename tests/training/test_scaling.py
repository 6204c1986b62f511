"""Loss scaling: fp16 trains and resumes, steps with overflow are left out and counted."""

import pytest
import torch

import train
from foodgen.core.files import read_jsonl
from foodgen.training.optimizers import AdamW
from foodgen.training.scaling import LossScaler
from foodgen.training.session import Session
from tests.runs import digest, last, run_of


def moved(scaler, poison=False):
    """A weight's way and gradient norm in one optimizer step on the loss w^2 at w = 1."""
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(layer.weight)
    optimizer = AdamW(layer, lr=0.1)
    optimizer.scaler = scaler
    scaler.scale(layer.weight.square().sum()).backward()
    scaler.unscale(optimizer.parts)
    gradient = layer.weight.grad.item()
    if poison:
        layer.weight.grad.fill_(float("inf"))
        scaler.scaler._per_optimizer_states.clear()  # as if found before unscaling
    taken = optimizer.step(1.0, torch.tensor(True))
    return taken, layer.weight.item(), gradient


@pytest.mark.parametrize("enabled", [False, True])
def test_a_scaled_step_is_the_plain_one(enabled):
    taken, weight, gradient = moved(LossScaler(enabled=enabled))
    assert taken
    assert gradient == pytest.approx(2.0)
    assert weight == pytest.approx(0.9, abs=1e-5)


def test_a_step_with_overflow_is_left_out_and_counted():
    scaler = LossScaler(enabled=True)
    before = scaler.numbers()
    taken, weight, _ = moved(scaler, poison=True)
    assert not taken
    assert weight == 1.0
    assert scaler.numbers() == {"loss_scale": before["loss_scale"] / 2, "skipped_steps": 1.0}
    taken, weight, _ = moved(scaler)
    assert taken
    other = LossScaler(enabled=True)
    other.load_state_dict(scaler.state_dict())
    assert other.numbers() == scaler.numbers()
    assert LossScaler().numbers() == {}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_resumes_to_the_bit(precision, tiny, tmp_path, monkeypatch):
    options = [*tiny, f"train.precision={precision}", "train.log_step=1"]
    train.main([*options, "exp.run=whole"])
    original = Session._must_stop
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_must_stop", lambda self: self.trainer.global_step == 7 or original(self))
        train.main([*options, "exp.run=parts"])
    train.main([*options, "exp.run=parts", "train.checkpoint_path=latest"])
    assert digest(last(tmp_path, "parts")) == digest(last(tmp_path, "whole"))
    rows = [read_jsonl(run_of(tmp_path, name) / "metrics.jsonl") for name in ("whole", "parts")]
    assert [row["model/loss"] for row in rows[0]] == [row["model/loss"] for row in rows[1]]
    assert ("model/loss_scale" in rows[0][-1]) == (precision == "fp16")
    if precision == "fp16":
        numbers = [[(row["model/loss_scale"], row["model/skipped_steps"]) for row in own] for own in rows]
        assert numbers[0] == numbers[1]
        assert len(numbers[0]) == 12
