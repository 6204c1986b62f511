"""The adversarial objective: whose phase it is, with which images, and what is told of it."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from foodgen.core.errors import ConfigError, UserError
from foodgen.core.registry import build
from foodgen.core.types import Batch
from foodgen.objectives.augmentation import Augmentation
from foodgen.training.ema import ExponentialAverage
from foodgen.training.optimizers import AdamW
from foodgen.training.trainer import Trainer

AMBIENT = {"channels": 3, "image_size": 8, "classes": 4}


def node(**changes):
    parts = {
        "name": "adversarial",
        "model": {"name": "dcgan", "width": 4, "z_dim": 4},
        "discriminator": {"name": "sngan_discriminator", "width": 4},
        "loss": {"name": "logistic"},
    }
    return parts | changes


def objective(**changes):
    return build("objective", node(**changes), **AMBIENT)


def batch(count=8):
    return Batch(torch.randn(count, 3, 8, 8), torch.arange(count) % 4)


def weights_of(module):
    return {name: weight.clone() for name, weight in module.named_parameters()}


def trainer(made):
    optimizers = {name: AdamW(getattr(made, name), lr=0.01) for name in ("model", "discriminator")}
    return Trainer(made, lambda start: None, lambda x: x, optimizers, lambda step: 1.0, ExponentialAverage(made.model))


def test_each_player_moves_in_its_turn_alone():
    made = objective(penalties={"r1": {"name": "r1", "weight": 1.0}})
    played = trainer(made)
    for phase in made.phases(1):
        other = {"model": "discriminator", "discriminator": "model"}[phase.network]
        mine, theirs = weights_of(getattr(made, phase.network)), weights_of(getattr(made, other))
        measured = played.optimize(phase, batch(), 1.0)
        assert any(not torch.equal(w, mine[n]) for n, w in getattr(made, phase.network).named_parameters())
        assert all(torch.equal(w, theirs[n]) for n, w in getattr(made, other).named_parameters())
        assert all(w.grad is None for w in getattr(made, other).parameters())
        assert measured[f"{phase.network}/gradient_norm"] > 0


def test_what_is_measured():
    made = objective(
        penalties={
            "r1": {"name": "r1", "weight": 1.0, "interval": 2},
            "path_length": {"name": "path_length", "weight": 1.0, "interval": 3},
        }
    )
    found = [{phase.network: set(phase.loss(batch())) for phase in made.phases(step)} for step in (1, 2, 3)]
    judged = {"loss", "real_logit", "fake_logit", "real_std", "augment_probability"}
    deceived = {"loss", "fake_logit", "fake_std"}
    assert found[0] == {"discriminator": judged, "model": deceived}
    assert found[1] == {"discriminator": judged | {"r1"}, "model": deceived}
    assert found[2] == {"discriminator": judged, "model": deceived | {"path_length"}}
    assert [phase.double_backward for phase in made.phases(2)] == [True, False]
    assert [phase.double_backward for phase in made.phases(3)] == [False, True]


def test_a_lazy_penalty_weighs_as_much_as_one_in_every_step():
    class Flat(nn.Module):
        """A logit that is a plain sum: slopes of 1 everywhere."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 8, 8))

        def forward(self, images, labels):
            return (images * self.weight).sum(dim=(1, 2, 3))

    loss = {"name": "wasserstein"}
    sums = []
    for interval in (1, 5):
        made = objective(loss=loss, penalties={"r1": {"name": "r1", "weight": 0.3, "interval": interval}})
        made.discriminator = Flat()
        total = 0.0
        for step in range(1, 11):
            phase = made.phases(step)[0]
            found = phase.loss(batch())
            total += (found["loss"] - (found["fake_logit"] - found["real_logit"])).item()
        sums.append(total)
    assert sums[0] == pytest.approx(10 * 0.3 * 192 / 2, rel=1e-3)
    assert sums[1] == pytest.approx(sums[0], rel=1e-3)


def test_every_discriminator_turn_has_its_own_images():
    class Watching(nn.Module):
        seen: ClassVar[list] = []

        def forward(self, images, labels):
            self.seen.append((images, labels))
            return images.mean(dim=(1, 2, 3))

    made = objective(discriminator_steps=3)
    made.discriminator = Watching()
    whole = batch(12)
    phases = made.phases(1)
    assert [phase.network for phase in phases] == ["discriminator"] * 3 + ["model"]
    for phase in phases:
        phase.loss(whole)
    real = [images for images, _ in Watching.seen[0:6:2]]
    assert torch.equal(torch.cat(real), whole.images)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(Watching.seen[0:6:2], Watching.seen[1:6:2], strict=True))
    assert len(Watching.seen[6][0]) == 4  # the generator's phase


def test_too_few_images_for_the_turns_are_an_error():
    with pytest.raises(UserError, match=r"data\.train_batch_size: 4 images.*discriminator_steps=3"):
        objective(discriminator_steps=3).phases(1)[0].loss(batch(4))


def test_relativistic_looks_at_real_images_in_the_generators_turn():
    made = objective(loss={"name": "relativistic"})
    found = made.phases(1)[1].loss(batch())
    found["loss"].backward()
    assert any(weight.grad is not None for weight in made.model.parameters())


@pytest.mark.parametrize("pieces", [1, 2])
def test_shared_fakes_are_generated_once_and_give_the_same_gradients(pieces, monkeypatch):
    """As if each phase had generated the same images for itself."""
    monkeypatch.setattr(
        "foodgen.objectives.adversarial.normal_like", lambda x: torch.linspace(-1, 1, x.numel()).view_as(x)
    )
    parts = batch().split(pieces)
    gradients, generated = [], []
    for share in (True, False):
        torch.manual_seed(0)
        made = objective(share_fakes=share, loss={"name": "hinge"})
        made.model.register_forward_hook(lambda *_: generated.append(1))
        for phase in made.phases(1):
            for player in ("model", "discriminator"):  # as the trainer does
                getattr(made, player).requires_grad_(player == phase.network)
            for part in parts:
                phase.loss(part)["loss"].backward()
        assert not made.shared
        gradients.append([weight.grad for weight in made.parameters()])
        assert all(gradient is not None for gradient in gradients[-1])
    for shared, own in zip(*gradients, strict=True):
        torch.testing.assert_close(shared, own)
    assert len(generated) == pieces + 2 * pieces


@pytest.mark.parametrize("phase", [0, 1])
def test_the_discriminator_sees_disturbed_images_alone(phase):
    class Blank(Augmentation):
        def augment(self, images):
            return images * 0

    class Watching(nn.Module):
        seen: ClassVar[list] = []

        def forward(self, images, labels):
            self.seen.append(images)
            return images.mean(dim=(1, 2, 3))

    Watching.seen.clear()
    made = objective(loss={"name": "relativistic"}, penalties={"r1": {"name": "r1", "weight": 1.0}})
    made.discriminator, made.augmentation = Watching(), Blank(1.0)
    made.phases(1)[phase].loss(batch())
    assert len(Watching.seen) == (3 if phase == 0 else 2)  # real, fake, and R1's look
    assert not any(images.any() for images in Watching.seen)


def test_adaptive_augmentation_hears_of_the_real_logits():
    made = objective(augmentation={"name": "ada", "interval": 1, "ramp": 16, "probability": 0.5})
    made.phases(1)[0].loss(batch())
    assert made.augmentation.probability.item() in (0.0, 1.0)  # 8 of the ramp's 16 images further


@pytest.mark.parametrize("model", ["sngan", "sagan", "stylegan2", "r3gan"])
def test_turns_compute_under_bf16(model):
    small = {
        "sngan": ({"width": 4}, {"width": 4}),
        "sagan": ({"width": 8, "attention_at": 8}, {"width": 8, "attention_at": 4}),
        "stylegan2": (
            {"channel_base": 16, "channel_max": 8, "w_dim": 8, "z_dim": 4},
            {"channel_base": 16, "channel_max": 8},
        ),
        "r3gan": ({"widths": [8, 8], "group": 4}, {"widths": [8, 8], "group": 4}),
    }[model]
    made = objective(
        model={"name": model, **small[0]},
        discriminator={"name": f"{model}_discriminator", **small[1]},
        penalties={"r1": {"name": "r1", "weight": 1.0}, "path_length": {"name": "path_length", "weight": 1.0}},
        augmentation={"name": "ada", "probability": 0.5},
    )
    for phase in made.phases(4):
        with torch.autocast("cpu", torch.bfloat16):
            found = phase.loss(batch())
        assert all(value.dtype == torch.float32 and value.isfinite() for value in found.values())
        found["loss"].backward()
        assert all(w.grad is None or w.grad.isfinite().all() for w in made.parameters())


def test_penalties_are_left_out_by_null():
    made = objective(penalties={"r1": {"name": "r1", "weight": 1.0}, "r2": None})
    assert list(made.penalties) == ["r1"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model": {"name": "sngan_discriminator"}}, r"objective: model: SNGANDiscriminator is no Generator"),
        ({"discriminator": {"name": "dcgan"}}, r"objective: discriminator: DCGAN is a generator"),
        ({"penalties": {"loss": {"name": "r1", "weight": 1.0}}}, r"penalties: 'loss' is the name of something else"),
        ({"penalties": {"r1": False}}, r"objective\.penalties\.r1: a part is expected, or null"),
        ({"penalties": 3}, r"objective\.penalties: parts are expected"),
        ({"discriminator_steps": 0}, r"objective: discriminator_steps: 0"),
        (
            {"penalties": {"r1": {"name": "r3", "weight": 1.0}}},
            r"objective\.penalties\.r1\.name: no penalty is named 'r3'",
        ),
        ({"penalties": {"r1": {"name": "r1"}}}, r"objective\.penalties\.r1\.weight is missing"),
        ({"loss": {"name": "hing"}}, r"objective\.loss\.name: no GAN loss is named 'hing'; did you mean 'hinge'"),
        (
            {"augmentation": {"name": "diff_augment", "policy": ["cut"]}},
            r"objective\.augmentation: policy: there is no cut",
        ),
    ],
)
def test_mistakes_are_named(changes, match):
    with pytest.raises(ConfigError, match=match):
        objective(**changes)
