"""Guidance by other models, against Bayes' rule and in combination; the noisy classifier; features to align."""

import pytest
import torch
from torch import nn

from foodgen.core.types import Prediction
from foodgen.diffusion.classifier import NoisyClassifier
from foodgen.diffusion.ddpm import DDPM
from foodgen.diffusion.denoiser import PreconditionedDenoiser
from foodgen.diffusion.edm import EDM
from foodgen.diffusion.flow import Flow
from foodgen.diffusion.guidance import Autoguidance, ClassifierFreeGuidance, ClassifierGuidance, NoGuidance, Together
from foodgen.diffusion.process import column
from foodgen.samplers.ancestral import Ancestral
from foodgen.samplers.deterministic import Euler
from tests.toys import ToyClassifier, ToyDenoiser

CENTRES, DEVIATION, SHARES = torch.tensor([-1.0, 1.0]), 0.35, torch.tensor([0.25, 0.75])
EVERY = [DDPM("cosine"), EDM(), Flow()]


class Mixture(ToyDenoiser, ToyClassifier):
    """The right answers for one number from two normal distributions, the class telling which."""

    def __init__(self, process):
        super().__init__()
        self.process, self.null_label, self.noise_shape = process, 2, (1, 1, 1)
        self.unused = nn.Parameter(torch.zeros(()))

    def parts(self, x, t):
        """Log joint density of x_t and each class, and each class's mean clean value: (batch, 2)."""
        alpha, sigma = self.process.alpha(t)[:, None], self.process.sigma(t)[:, None]
        value, variance = x.flatten(1), alpha**2 * DEVIATION**2 + sigma**2
        log_joint = SHARES.log() - 0.5 * (value - alpha * CENTRES) ** 2 / variance - 0.5 * variance.log()
        clean = CENTRES + alpha * DEVIATION**2 / variance * (value - alpha * CENTRES)
        return log_joint, clean

    def forward(self, x, t, labels=None):
        log_joint, clean = self.parts(x, t)
        weights = log_joint.softmax(dim=1)
        if labels is not None:
            known = nn.functional.one_hot(labels.clamp(max=1), 2).float()
            weights = torch.where((labels < 2)[:, None], known, weights)
        clean = (weights * clean).sum(dim=1)[:, None, None, None]
        return Prediction(clean, self.process.eps(x, clean, t))

    def log_probability(self, x, t, labels):
        log_joint, _ = self.parts(x, t)
        return log_joint.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]

    regression = None


class Classless(Mixture):
    """Knows the mixture, not the classes."""

    def forward(self, x, t, labels=None):
        return super().forward(x, t, None)


def loader(model):
    return lambda path: model


X = torch.linspace(-2, 2, 9)[:, None, None, None]


@pytest.mark.parametrize("process", EVERY, ids=lambda p: type(p).__name__)
def test_a_classifier_makes_of_a_classless_model_one_of_the_class(process):
    """Bayes: p(x | class) is proportional to p(x) p(class | x), at every noise level."""
    guidance = ClassifierGuidance("there", loader(Mixture(process)), scale=1.0)
    for t in process.timesteps(10).float()[1:-1]:
        times, labels = t.expand(9), torch.ones(9, dtype=torch.long)
        x = X * process.sigma(times[:1])
        guided, right = guidance(Classless(process), x, times, labels), Mixture(process)(x, times, labels)
        torch.testing.assert_close(guided.denoised, right.denoised, rtol=1e-2, atol=2e-3)
        torch.testing.assert_close(guided.eps, right.eps, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("sampler", [Ancestral, Euler])
@pytest.mark.parametrize("process", EVERY, ids=lambda p: type(p).__name__)
def test_classifier_guidance_shifts_samples_to_the_class(process, sampler):
    torch.manual_seed(0)
    count = 4000
    labels = torch.zeros(count, dtype=torch.long)
    walk = sampler(ClassifierGuidance("there", loader(Mixture(process)), scale=1.0), steps=100)
    samples = walk(Classless(process), lambda: torch.randn(count, 1, 1, 1), labels).flatten()
    assert samples.mean().item() == pytest.approx(CENTRES[0].item(), abs=0.05)
    assert samples.std().item() == pytest.approx(DEVIATION, rel=0.1)
    plain = sampler(NoGuidance(), steps=100)(Classless(process), lambda: torch.randn(count, 1, 1, 1), labels)
    assert (plain > 0).float().mean().item() == pytest.approx(SHARES[1].item(), abs=0.04)


def test_noise_alone_is_not_pushed():
    flow = Flow()
    classifier, t = ClassifierGuidance("there", loader(Mixture(flow)), scale=5.0), torch.ones(9)
    here = Classless(flow)(X, t)
    guided = classifier(Classless(flow), X, t, torch.ones(9, dtype=torch.long))
    torch.testing.assert_close(guided.denoised, here.denoised)


def test_guiding_by_oneself_is_no_guidance():
    model, t, labels = Mixture(EDM()), torch.full((9,), 0.5), torch.ones(9, dtype=torch.long)
    plain = model(X, t, labels)
    for scale in (0.0, 1.0, 3.0):
        guided = Autoguidance("there", loader(model), scale=scale)(model, X, t, labels)
        torch.testing.assert_close(guided.denoised, plain.denoised)
        torch.testing.assert_close(guided.eps, plain.eps)


def test_autoguidance_moves_away_from_the_guide():
    model, guide, t = Mixture(EDM()), Classless(EDM()), torch.full((9,), 1.0)
    labels = torch.ones(9, dtype=torch.long)
    better, worse = model(X, t, labels), guide(X, t, labels)
    guided = Autoguidance("there", loader(guide), scale=2.5)(model, X, t, labels)
    torch.testing.assert_close(guided.denoised, worse.denoised + 2.5 * (better.denoised - worse.denoised))
    torch.testing.assert_close(
        Autoguidance("there", loader(guide), scale=1.0)(model, X, t, labels).denoised, better.denoised
    )


def test_together_they_add_up_each_in_its_interval():
    model, t, labels = Mixture(EDM()), torch.full((9,), 1.0), torch.ones(9, dtype=torch.long)
    free, classifier = ClassifierFreeGuidance(2.0), ClassifierGuidance("there", loader(model), scale=0.5)
    asleep = Autoguidance("there", loader(Classless(EDM())), scale=9.0, interval=(3.0, None))
    both = Together({"free": free, "classifier": classifier, "asleep": asleep})(model, X, t, labels)
    here = model(X, t, labels).denoised
    parts = [one(model, X, t, labels).denoised - here for one in (free, classifier)]
    torch.testing.assert_close(both.denoised, here + parts[0] + parts[1])
    torch.testing.assert_close(both.denoised + column(t) * both.eps, X, rtol=1e-4, atol=1e-5)  # still of one x_t


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Mixture(Flow()), "another path"),
        (Mixture(EDM()).requires_grad_(False), None),
        (nn.Linear(1, 1), "not a denoiser"),
    ],
)
def test_a_guide_that_does_not_fit_is_refused(guide, message):
    guidance = Together({"auto": Autoguidance("runs/guide", loader(guide))})
    if message is None:
        guidance.check(Mixture(EDM()))
        return
    with pytest.raises(ValueError, match=rf"guidances\.auto\.guide: runs/guide .*{message}"):
        guidance.check(Mixture(EDM()))


def test_paths_that_differ_in_their_schedule_alone_are_refused():
    with pytest.raises(ValueError, match="another path"):
        ClassifierGuidance("there", loader(Mixture(DDPM("linear")))).check(Mixture(DDPM("cosine")))


def test_paths_of_another_length_are_refused():
    with pytest.raises(ValueError, match="another path"):
        ClassifierGuidance("there", loader(Mixture(DDPM("cosine")))).check(Mixture(DDPM("cosine", num_timesteps=4000)))


def test_the_noisy_classifiers_probabilities():
    class Flat(nn.Module):
        def forward(self, x, time):
            return torch.stack([x.flatten(1).sum(1), 0 * time], dim=1)

    classifier = NoisyClassifier(Flat(), EDM(), channels=1, image_size=1)
    t = torch.full((9,), 0.7)
    both = [classifier.log_probability(X, t, torch.full((9,), label)).exp() for label in (0, 1)]
    torch.testing.assert_close(both[0] + both[1], torch.ones(9))
    assert (both[0].diff() > 0).all()


def test_a_network_without_a_feature_map_is_not_aligned():
    with pytest.raises(ValueError, match="alignment: Linear returns no features"):
        PreconditionedDenoiser(nn.Linear(1, 1), EDM(), channels=1, image_size=1, classes=0, alignment=4)
