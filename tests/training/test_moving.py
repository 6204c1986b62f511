"""What moves weights: the trainer's phases, optimizers, schedules, averages."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from foodgen.core.registry import optimizers, schedules
from foodgen.core.types import Objective, Phase
from foodgen.training.ema import ExponentialAverage
from foodgen.training.trainer import Trainer


class Duel(Objective):
    """Two players: the model fits the images' mean; the critic fits a weight of the model's."""

    def __init__(self):
        super().__init__()
        self.model, self.critic = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def phases(self, step):
        return [Phase("critic", self.critic_loss), Phase("model", self.model_loss)]

    def critic_loss(self, batch):
        return {"loss": (self.critic.weight - self.model.weight).square().mean(), "seen": torch.tensor(7.0)}

    def model_loss(self, batch):
        return {"loss": (self.model.weight - batch.images.mean()).square().mean() + 0 * self.critic.weight.sum()}


def batches(start):
    while True:
        yield torch.arange(start, start + 8.0).reshape(8, 1, 1, 1), torch.zeros(8, dtype=torch.long)


def trainer(accumulate=1, clip=None, lr=0.1):
    torch.manual_seed(0)
    objective = Duel()
    movers = {name: optimizers["adamw"](getattr(objective, name), lr=lr) for name in ("model", "critic")}
    ema = ExponentialAverage(objective.model, decay=0.5)
    return Trainer(
        objective, batches, lambda x: x, movers, lambda step: 1.0, ema, grad_accumulation=accumulate, grad_clip=clip
    )


def test_only_the_player_whose_turn_it_is_receives_gradients():
    played = trainer()
    phases = played.objective.phases(1)
    batch = next(batches(0))
    seen = []
    step = played.optimizers["model"].step

    def watch(factor, finite):
        seen.append(played.objective.critic.weight.grad)
        return step(factor, finite)

    played.optimizers["model"].step = watch
    before = played.objective.model.weight.clone()
    measured = played.step(1, *batch)
    assert seen == [None]
    assert not torch.equal(played.objective.model.weight, before)
    assert set(measured) == {f"{name}/{what}" for name in ("model", "critic") for what in ("loss", "gradient_norm")} | {
        "critic/seen"
    }
    assert measured["critic/seen"] == 7
    assert len(phases) == 2


def test_pieces_add_up_to_the_batch():
    ends = []
    for accumulate in (1, 2, 4):
        played = trainer(accumulate)
        played.objective.model_loss = lambda batch, played=played: {
            "loss": (played.objective.model.weight * batch.images.flatten() - 1).square().mean()
        }
        played.train(5, lambda measured: False)
        ends.append(played.objective.model.weight.item())
    assert ends[1] == pytest.approx(ends[0], rel=1e-5)
    assert ends[2] == pytest.approx(ends[0], rel=1e-5)


def test_clipping_bounds_the_gradient():
    played = trainer(clip=0.01)
    norms = []
    weight = played.objective.model.weight
    played.optimizers["model"].step = lambda factor, finite: norms.append(weight.grad.norm().item()) or finite
    measured = played.step(1, *next(batches(0)))
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert measured["model/gradient_norm"] > 1  # what is logged is the norm before clipping


def test_after_may_end_the_training():
    played = trainer()
    played.train(100, lambda measured: played.global_step == 3)
    assert played.global_step == 3


def test_average_is_the_sum_it_stands_for():
    source = nn.Linear(1, 1, bias=False)
    source.register_buffer("count", torch.tensor(0.0))
    average = ExponentialAverage(source, decay=0.8)
    expected = source.weight.item()
    for step in range(1, 20):
        with torch.no_grad():
            source.weight.fill_(float(step))
            source.count += 1
        average.update(step)
        kept = min(0.8, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * step
    assert average.model.weight.item() == pytest.approx(expected, rel=1e-5)
    assert average.model.count == 19
    assert not average.model.training
    assert not average.model.weight.requires_grad


def test_batch_norms_statistics_are_averaged_and_other_buffers_copied():
    source = nn.Sequential(nn.BatchNorm1d(1))
    source.register_buffer("mean", torch.tensor(0.0))
    average = ExponentialAverage(source, decay=0.5)
    for step in range(1, 60):
        source.train()(10 * (step % 2) + torch.randn(64, 1))
        source.mean.fill_(float(step))
        average.update(step)
    assert average.model.mean == 59
    assert average.model[0].num_batches_tracked == 59
    swing = abs(source[0].running_mean.item() - 5)
    assert abs(average.model[0].running_mean.item() - 5) < 0.7 * swing  # steadier than the last statistics
    assert average.model[0].running_var.item() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear"])
def test_schedules_rise_then_keep_their_shape(name):
    schedule = schedules[name](steps=100, warmup=10)
    factors = [schedule(step) for step in range(1, 101)]
    assert all(a < b for a, b in pairwise(factors[:11]))
    assert factors[10] == 1.0
    middle = factors[55]
    if name == "constant":
        assert set(factors[10:]) == {1.0}
    else:
        assert all(a > b for a, b in pairwise(factors[10:]))
        assert middle == pytest.approx(0.5, abs=0.01)
        assert 0 < factors[-1] < 0.02
    if name == "cosine":
        assert factors[32] == pytest.approx((1 + math.cos(math.pi * 22 / 90)) / 2)


def test_a_stable_rate_decays_at_the_end_alone():
    short, long = (schedules["warmup_stable_decay"](steps=steps, warmup=10, decay=0.25) for steps in (110, 210))
    assert [short(step) for step in range(1, 86)] == [long(step) for step in range(1, 86)]
    assert short(85) == 1 > short(87) and 0 < short(110) < 0.05
    with pytest.raises(ValueError, match="decay: 0"):
        schedules["warmup_stable_decay"](steps=10, decay=0)


def test_muon_takes_the_matrices_and_adamw_the_rest():
    network = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 5), nn.Conv2d(1, 2, 3))
    mover = optimizers["muon"](network, lr=0.01, adamw_lr=0.001)
    muon, adamw = ({id(w) for group in part.param_groups for w in group["params"]} for part in mover.parts)
    assert muon == {id(network[1].weight)}
    assert adamw == {id(w) for w in network.parameters()} - muon
    with pytest.raises(ValueError, match="use adamw"):
        optimizers["muon"](nn.Conv2d(1, 2, 3))


def test_the_factor_scales_every_base_rate():
    network = nn.Linear(2, 2)
    mover = optimizers["muon"](network, lr=0.5, adamw_lr=0.25)
    mover.step(0.5, torch.tensor(True))
    assert [group["lr"] for part in mover.parts for group in part.param_groups] == [0.25, 0.125]
    mover.load_state_dict(mover.state_dict())
    mover.step(1.0, torch.tensor(True))
    assert [group["lr"] for part in mover.parts for group in part.param_groups] == [0.5, 0.25]
