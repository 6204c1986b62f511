"""Guidance: what it computes, where it acts, and where it must change nothing."""

import pytest
import torch

from foodgen.core.types import Prediction
from foodgen.diffusion.denoiser import PreconditionedDenoiser
from foodgen.diffusion.edm import EDM
from foodgen.diffusion.guidance import ClassifierFreeGuidance, NoGuidance


class Labelled(torch.nn.Module):
    """Adds its label; counts its calls and the images that it saw."""

    def __init__(self):
        super().__init__()
        self.calls, self.images = 0, 0

    def forward(self, x, time, labels=None):
        self.calls, self.images = self.calls + 1, self.images + len(x)
        labels = torch.full((len(x),), 5) if labels is None else labels
        return torch.tanh(x) + labels.float()[:, None, None, None]


@pytest.fixture
def model():
    return PreconditionedDenoiser(Labelled(), EDM(), channels=1, image_size=2, classes=5)


X, T, LABELS = torch.randn(3, 1, 2, 2), torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0, 1, 2])


def close(first: Prediction, second: Prediction):
    torch.testing.assert_close(first.denoised, second.denoised)
    torch.testing.assert_close(first.eps, second.eps, rtol=1e-4, atol=1e-5)


def test_scale_one_is_no_guidance_at_no_cost(model):
    close(ClassifierFreeGuidance(scale=1)(model, X, T, LABELS), NoGuidance()(model, X, T, LABELS))
    assert model.network.images == 6


def test_the_formula(model):
    with_class, without = model(X, T, LABELS), model(X, T, torch.full((3,), 5))
    guided = ClassifierFreeGuidance(scale=2.5)(model, X, T, LABELS)
    torch.testing.assert_close(guided.denoised, without.denoised + 2.5 * (with_class.denoised - without.denoised))
    # both halves describe the same x: clean + sigma noise
    torch.testing.assert_close(guided.denoised + guided.eps, X, rtol=1e-4, atol=1e-4)


def test_scale_zero_forgets_the_class(model):
    close(ClassifierFreeGuidance(scale=0)(model, X, T, LABELS), model(X, T, None))


def test_the_interval_is_of_noise_levels(model):
    plain = model(X, T, LABELS)
    guidance = ClassifierFreeGuidance(scale=3, interval=(0.2, 0.9))
    close(guidance(model, X, T, LABELS), plain)
    assert (guidance(model, X, 0.5 * T, LABELS).denoised - model(X, 0.5 * T, LABELS).denoised).abs().max() > 0.1


def test_without_labels_there_is_nothing_to_guide(model):
    close(ClassifierFreeGuidance(scale=3)(model, X, T, None), model(X, T, None))


@pytest.mark.parametrize("interval", [(1.0,), (2.0, 1.0), (-1.0, 1.0)])
def test_bad_intervals(interval):
    with pytest.raises(ValueError, match="interval"):
        ClassifierFreeGuidance(interval=interval)
