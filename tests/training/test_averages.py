"""Power-function averages: their profile, and any other length made of snapshots afterwards."""

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import nn

from foodgen.core.errors import CheckpointError
from foodgen.training.checkpoint import Checkpoint, write
from foodgen.training.ema import ExponentialAverage, PowerFunctionAverage, combination, exponent_of, overlap
from foodgen.training.snapshots import Snapshots, average_of


def test_exponents_have_the_relative_deviation():
    """The profile t**gamma on [0, 1] has deviation `length` by its definition."""
    for length in (0.05, 0.1, 0.2):
        gamma = exponent_of(length)
        moment = [integrate.quad(lambda t, n=n, g=gamma: (g + 1) * t ** (g + n), 0, 1)[0] for n in (1, 2)]
        assert (moment[1] - moment[0] ** 2) ** 0.5 == pytest.approx(length, rel=1e-6)
    assert exponent_of(0.05) == pytest.approx(16.97, abs=0.01)  # Karras 2023, section 3.1
    with pytest.raises(ValueError, match=r"length: 0\.5"):
        exponent_of(0.5)


def test_overlaps_are_integrals():
    def profile(t, step, exponent):
        return (exponent + 1) / step * (t / step) ** exponent if t <= step else 0.0

    for one, other in (((100.0, 6.0), (60.0, 17.0)), ((50.0, 17.0), (80.0, 6.0))):
        expected, _ = integrate.quad(
            lambda t, a=one, b=other: profile(t, *a) * profile(t, *b), 0, min(one[0], other[0])
        )
        assert overlap(*map(np.float64, (*one, *other))) == pytest.approx(expected, rel=1e-5)


def test_a_kept_average_is_its_own_combination():
    kept = [(50.0, 17.0), (100.0, 17.0), (100.0, 6.0)]
    np.testing.assert_allclose(combination(kept, (100.0, 6.0)), [0, 0, 1], atol=1e-8)


@pytest.mark.parametrize("length", [0.03, 0.075, 0.25])
def test_few_snapshots_of_constant_weights_give_those_weights(length):
    kept = [(step, exponent_of(known)) for step in (1000.0, 2000.0) for known in (0.05, 0.1)]
    assert combination(kept, (2000.0, exponent_of(length))).sum() == pytest.approx(1)


class Walk(nn.Module):
    """Two weights and a buffer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(()))


def wander(model, averages, steps, after=lambda step: None):
    """Weights move at random, about as training does: drifting, with noise."""
    torch.manual_seed(0)
    with torch.no_grad():
        for step in range(1, steps + 1):
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.1 + 0.02)
            model.seen += 1
            for average in averages:
                average.update(step)
            after(step)


def test_the_profile_of_a_power_function():
    """The average after n steps is the sum of all weights, each by the integral of the profile over its step."""
    model = Walk()
    average = PowerFunctionAverage(model, lengths=[0.1])
    seen = []
    wander(model, [average], 200, lambda step: seen.append(model.linear.weight.clone()))
    gamma = exponent_of(0.1)
    edges = (np.arange(201) / 200) ** (gamma + 1)
    expected = sum(share * weight for share, weight in zip(np.diff(edges), seen, strict=True))
    torch.testing.assert_close(average.model.linear.weight, expected.float(), rtol=1e-3, atol=1e-3)
    assert average.model.seen == 200


def test_any_length_is_made_afterwards(tmp_path):
    model, lengths = Walk(), (0.05, 0.10)
    kept = PowerFunctionAverage(model, lengths, snapshot_step=50)
    tracked = {length: PowerFunctionAverage(model, [length]) for length in (0.06, 0.075, 0.09, 0.15)}
    snapshots = Snapshots(tmp_path)

    def after(step):
        if step % 50 == 0:
            snapshots.save(step, kept.snapshots())

    wander(model, [kept, *tracked.values()], 1000, after)
    place = tmp_path / "checkpoints" / "step-00001000"
    weights = {name: tensor.clone() for name, tensor in kept.model.state_dict().items()}
    write(place, Checkpoint(weights, weights, {}, {"step": 1000, "classes": []}, "{}"))
    size = model.linear.weight.std()
    for length, direct in tracked.items():
        made = average_of(place, length)
        error = (made["linear.weight"] - direct.model.linear.weight).abs().max() / size
        assert error < 0.02, length
        assert made["seen"] == 1000
    other = (kept.model.linear.weight - tracked[0.15].model.linear.weight).abs().max() / size
    assert other > 0.2  # another length is another average


def test_without_snapshots_it_says_so(tmp_path):
    place = tmp_path / "checkpoints" / "step-00000001"
    write(place, Checkpoint({}, {"a": torch.zeros(1)}, {}, {"step": 1, "classes": []}, "{}"))
    with pytest.raises(CheckpointError, match=r"averages: holds no snapshots.*power_function"):
        average_of(place, 0.1)
    with pytest.raises(CheckpointError, match=r"export\.ema_length: 0\.9"):
        average_of(place, 0.9)


def test_both_averages_resume():
    model = Walk()
    average = PowerFunctionAverage(model, [0.05, 0.1])
    wander(model, [average], 20)
    again = PowerFunctionAverage(Walk(), [0.05, 0.1])
    again.load_state_dict({name: tensor.clone() for name, tensor in average.state_dict().items()})
    for length, tensors in average.snapshots().items():
        for name, tensor in tensors.items():
            assert torch.equal(again.snapshots()[length][name], tensor)
    for other in ({}, PowerFunctionAverage(Walk(), [0.1, 0.2]).state_dict()):
        with pytest.raises(KeyError):
            again.load_state_dict(other)
    ExponentialAverage(Walk()).load_state_dict({})


def test_what_lies_beyond_a_resumed_step_is_forgotten(tmp_path):
    snapshots = Snapshots(tmp_path)
    for step in (10, 20, 30):
        snapshots.save(step, {0.05: {"a": torch.zeros(1)}})
    snapshots.forget_after(20)
    assert [entry[:2] for entry in snapshots.until(99)] == [(10, 0.05), (20, 0.05)]
    assert len(snapshots.until(15)) == 1


@pytest.mark.parametrize("wrong", [{"lengths": []}, {"lengths": [0.1, 0.1]}, {"lengths": [0.4]}, {"snapshot_step": -1}])
def test_bad_lengths(wrong):
    with pytest.raises(ValueError, match=r"length|snapshot"):
        PowerFunctionAverage(Walk(), **wrong)
