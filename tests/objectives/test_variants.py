"""Objectives beside plain denoising: IDDPM's hybrid, uncertainty, alignment, classification, autoencoding."""

import pytest
import torch
from torch import nn

from foodgen.core.errors import ConfigError
from foodgen.core.randomness import seed_step
from foodgen.core.registry import build
from foodgen.core.types import Batch
from foodgen.diffusion.classifier import NoisyClassifier
from foodgen.diffusion.ddpm import DDPM
from foodgen.diffusion.denoiser import PreconditionedDenoiser
from foodgen.diffusion.edm import EDM
from foodgen.models.dit import DiT
from foodgen.models.vae import KLAutoencoder, PatchDiscriminator
from foodgen.objectives.autoencoding import Autoencoding
from foodgen.objectives.classification import Classification
from foodgen.objectives.denoising import AlignedDenoising, Denoising
from foodgen.objectives.hybrid import Hybrid, LossSecondMomentResampler


def batch(count=6, size=8):
    torch.manual_seed(3)
    return Batch(torch.rand(count, 3, size, size) * 2 - 1, torch.arange(count) % 2)


class Two(nn.Module):
    """Two gains: of the predicted noise, and of the variance's place."""

    def __init__(self):
        super().__init__()
        self.noise, self.place = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.1))

    def forward(self, x, time, labels=None):
        return torch.cat([self.noise * x, self.place * x], dim=1)


def hybrid(**more):
    return Hybrid(
        PreconditionedDenoiser(Two(), DDPM("cosine", num_timesteps=20), 3, 8, classes=2), class_dropout=0.0, **more
    )


def gradients(objective):
    seed_step(0, 1)
    losses = objective.loss(batch())
    objective.zero_grad()
    losses["loss"].backward()
    return objective.model.network.noise.grad, objective.model.network.place.grad, losses


def test_the_bound_moves_the_variance_alone():
    plain = Denoising(
        PreconditionedDenoiser(Two(), DDPM("cosine", num_timesteps=20), 3, 8, classes=2), class_dropout=0.0
    )
    without, _, simple = gradients(plain)
    of_noise, of_place, losses = gradients(hybrid(vlb_weight=0.5))
    torch.testing.assert_close(of_noise, without)
    torch.testing.assert_close(losses["error"], simple["loss"])
    assert of_place.abs() > 0
    expected = losses["error"] + 0.5 * losses["bits_per_dimension"]
    torch.testing.assert_close(losses["loss"], expected)


def test_a_variance_is_wanted_and_times_too():
    class One(Two):
        def forward(self, x, time, labels=None):
            return self.noise * x

    seed_step(0, 1)
    with pytest.raises(ValueError, match=r"model\.network\.outputs"):
        Hybrid(PreconditionedDenoiser(One(), DDPM(), 3, 8, classes=2)).loss(batch())
    with pytest.raises(ValueError, match=r"model\.process: .*ddpm"):
        Hybrid(PreconditionedDenoiser(Two(), EDM(), 3, 8, classes=2))


def test_importance_is_uniform_until_every_time_is_known():
    times = LossSecondMomentResampler(4, history=2, uniform_prob=0.0)
    uniform = (torch.arange(400) + 0.5) / 400
    drawn, weights = times.sample(uniform)
    assert [int((drawn == t).sum()) for t in (1, 2, 3, 4)] == [100] * 4
    assert (weights == 1).all()


def test_importance_draws_in_proportion_and_undoes_it():
    times = LossSecondMomentResampler(4, history=2, uniform_prob=0.0)
    known = torch.tensor([1.0, 2.0, 3.0, 4.0])
    for _ in range(3):  # the oldest of three makes room
        times.update(torch.tensor([1, 2, 3, 4]), known)
    torch.testing.assert_close(times.probabilities(), (known / 10).double())
    drawn, weights = times.sample(torch.linspace(0.0005, 0.9995, 1000))
    assert int((drawn == 4).sum()) == pytest.approx(400, abs=1)
    losses = known[drawn.long() - 1]
    assert (weights * losses).mean().item() == pytest.approx(2.5, rel=1e-3)  # the uniform mean
    assert (weights * losses).std().item() < 1e-3  # and no variance is left


def test_importance_is_learned_while_training_and_kept():
    objective = hybrid(importance_sampling=True)
    gradients(objective)
    assert int(objective.resampler.counts.sum()) == 6
    assert "resampler.losses" in objective.state_dict()


def test_uncertainty_is_least_where_it_is_right():
    """Of error * exp(-u) + u the minimum is at u = ln(error): the loss is 1 + ln(error) there."""

    class Zero(nn.Module):
        def forward(self, x, time, labels=None):
            return 0 * x

    objective = Denoising(PreconditionedDenoiser(Zero(), EDM(), 3, 8, classes=2, uncertainty=True), class_dropout=0.0)
    moved = torch.optim.Adam(objective.parameters(), lr=0.05)
    for step in range(150):
        seed_step(0, step)
        losses = objective.loss(batch())
        moved.zero_grad()
        losses["loss"].backward()
        moved.step()
    t = torch.tensor([0.3])
    images, noise = torch.rand(500, 3, 8, 8) * 2 - 1, torch.randn(500, 3, 8, 8)
    error = (objective.model.target(images, noise, t.expand(500)) ** 2).mean()
    assert objective.model.log_loss(t).item() == pytest.approx(error.log().item(), abs=0.3)


class Maps(nn.Module):
    """Two frozen feature maps: colours of halves and of quarters."""

    widths = (3, 3)

    def forward(self, images):
        return [nn.functional.avg_pool2d(images, size) for size in (2, 4)]


def aligned(**more):
    torch.manual_seed(0)
    net = DiT(3, 8, classes=2, width=8, depth=3, heads=2, patch=4)
    return AlignedDenoising(
        PreconditionedDenoiser(net, EDM(), 3, 8, classes=2, alignment=3), Maps(), layer=1, until=100, **more
    )


def test_alignment_draws_features_near_and_fades():
    objective = aligned(weight=1.0)
    assert objective.phases(100)[0].loss.args == (0.0,)
    assert objective.phases(25)[0].loss.args == (0.75,)
    moved = torch.optim.Adam(objective.parameters(), lr=0.01)
    seen = []
    for step in range(60):
        seed_step(0, step)
        losses = objective.aligned_loss(1.0, batch())
        moved.zero_grad()
        losses["loss"].backward()
        moved.step()
        seen.append(losses["misalignment"].item())
    assert seen[-1] < seen[0] - 0.3
    seed_step(0, 1)
    faded = objective.aligned_loss(0.0, batch())
    seed_step(0, 1)
    torch.testing.assert_close(faded["loss"], objective.loss(batch())["loss"])


def test_alignment_wants_as_many_channels():
    net = DiT(3, 8, classes=2, width=8, depth=3, heads=2)
    with pytest.raises(ValueError, match=r"model\.alignment: layer 0 has 3 channels"):
        AlignedDenoising(PreconditionedDenoiser(net, EDM(), 3, 8, classes=2, alignment=5), Maps(), layer=0)


def test_a_classifier_learns_its_classes():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x, time):
            return self.linear(x.mean(dim=(2, 3)))

    objective = Classification(NoisyClassifier(Mean(), EDM(), 3, 8))
    labels = torch.arange(64) % 2
    images = (labels.float() - 0.5)[:, None, None, None].expand(64, 3, 8, 8)
    moved = torch.optim.Adam(objective.parameters(), lr=0.1)
    for step in range(60):
        seed_step(0, step)
        losses = objective.loss(Batch(images, labels))
        moved.zero_grad()
        losses["loss"].backward()
        moved.step()
    assert losses["accuracy"] > 0.85
    with pytest.raises(ConfigError, match=r"objective\.model: PatchDiscriminator is not a Classifier"):
        build("objective", {"name": "classification", "model": {"name": "patch_discriminator", "channels": 3}})


def autoencoder(**more):
    torch.manual_seed(0)
    model = KLAutoencoder(3, 8, latent_channels=2, width=8, multipliers=(1, 2), blocks=1, momentum=0.9)
    return Autoencoding(model, **more)


def test_an_autoencoder_learns_and_keeps_its_latents_scale():
    objective = autoencoder(features=Maps(), perceptual_weight=0.1)
    moved = torch.optim.Adam(objective.model.parameters(), lr=0.005)
    images = Batch(nn.functional.interpolate(torch.rand(16, 3, 2, 2) * 2 - 1, size=8), torch.zeros(16))
    errors = []
    for step in range(80):
        seed_step(0, step)
        losses = objective.phases(1)[0].loss(images)
        moved.zero_grad()
        losses["loss"].backward()
        moved.step()
        errors.append(losses["error"].item())
    assert errors[-1] < 0.5 * errors[0]
    with torch.no_grad():
        mean, log_variance = objective.model.encode(images.images)
        latents = objective.model.normalise(mean + (0.5 * log_variance).exp() * torch.randn_like(mean))
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(2), rtol=0.1, atol=0)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(2), rtol=0, atol=0.2)
    torch.testing.assert_close(objective.model.normalise(objective.model.denormalise(latents)), latents)


def test_the_divergence_is_torchs():
    objective = autoencoder()
    mean, log_variance = objective.model.encode(batch().images)
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1).mean()
    seed_step(0, 1)
    torch.testing.assert_close(objective.autoencoder_loss(False, batch())["kl"], expected, rtol=1e-4, atol=1e-5)


def test_the_adversary_weighs_as_much_as_the_rest_at_the_last_layer():
    objective = autoencoder(discriminator=PatchDiscriminator(3, 8, 1), discriminator_start=5, adversarial_weight=1.0)
    early, late = objective.phases(4), objective.phases(5)
    assert [phase.network for phase in early] == ["model", "discriminator"]
    seed_step(0, 1)
    assert "adversarial" not in early[0].loss(batch())
    last = objective.model.last.weight
    seed_step(0, 1)
    losses = late[0].loss(batch())
    pushed = losses["adversarial_scale"] * losses["adversarial"]
    rest = losses["loss"] - pushed
    (whole,), (other,) = (torch.autograd.grad(value, last, retain_graph=True) for value in (rest, pushed))
    assert other.norm().item() == pytest.approx(whole.norm().item(), rel=0.01)
    judged = objective.discriminator_loss(batch())
    assert set(judged) == {"loss", "real_logit", "fake_logit"}
