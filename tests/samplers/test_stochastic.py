"""The stochastic sampler: Heun without churn, the data's distribution with it, on every process."""

import pytest
import torch

from foodgen.core.types import Prediction
from foodgen.diffusion.ddpm import DDPM
from foodgen.diffusion.edm import EDM
from foodgen.diffusion.flow import Flow
from foodgen.diffusion.guidance import NoGuidance
from foodgen.diffusion.process import column
from foodgen.samplers.ancestral import Ancestral
from foodgen.samplers.deterministic import Heun
from foodgen.samplers.stochastic import Stochastic
from tests.toys import ToyDenoiser

EVERY = pytest.mark.parametrize("process", [DDPM("cosine"), EDM(), Flow()], ids=lambda p: type(p).__name__)


class Normal(ToyDenoiser):
    """The right denoiser of N(0.5, 0.6), with a learned variance if one is given."""

    def __init__(self, process, share=None):
        super().__init__()
        self.process, self.share = process, share

    def forward(self, x, t, labels=None):
        alpha, sigma = column(self.process.alpha(t)), column(self.process.sigma(t))
        clean = 0.5 + alpha * 0.36 / (alpha**2 * 0.36 + sigma**2) * (x - alpha * 0.5)
        share = None if self.share is None else torch.full_like(x, self.share)
        return Prediction(clean, self.process.eps(x, clean, t), share)


def noise():
    return torch.randn(20_000, 1, 1, 1)


@EVERY
def test_without_churn_it_is_heun(process):
    torch.manual_seed(0)
    start = noise()
    plain = Heun(NoGuidance(), steps=10)(Normal(process), lambda: start)
    torch.testing.assert_close(Stochastic(NoGuidance(), steps=10, s_churn=0.0)(Normal(process), lambda: start), plain)


@EVERY
def test_churn_keeps_the_distribution_and_forgets_the_start(process):
    torch.manual_seed(0)
    starts = []

    def remembered():
        starts.append(noise())
        return starts[-1]

    walk = Stochastic(NoGuidance(), steps=100, s_churn=20.0, s_min=0.01, s_max=None, s_noise=1.0)
    samples = walk(Normal(process), remembered).flatten()
    assert samples.mean().item() == pytest.approx(0.5, abs=0.03)
    assert samples.std().item() == pytest.approx(0.6, rel=0.04)
    assert len(starts) > 20
    follows = torch.corrcoef(torch.stack([samples, starts[0].flatten()]))[0, 1]
    assert follows < 0.9  # without churn it is 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_ancestral_sampling_uses_a_learned_variance(share):
    """Between the bounds lies the right one; with many steps both ends give the distribution."""
    torch.manual_seed(0)
    samples = Ancestral(NoGuidance(), steps=200)(Normal(DDPM("cosine"), share), noise)
    assert samples.std().item() == pytest.approx(0.6, rel=0.05)


def test_the_lowest_learned_variance_is_the_fixed_one():
    process = DDPM("cosine")
    runs = []
    for share in (None, 0.0):
        torch.manual_seed(0)
        runs.append(Ancestral(NoGuidance(), steps=7)(Normal(process, share), noise))
    torch.testing.assert_close(*runs)


@pytest.mark.parametrize("wrong", [{"s_churn": -1.0}, {"s_noise": 0.0}])
def test_bad_numbers(wrong):
    with pytest.raises(ValueError, match="churn"):
        Stochastic(NoGuidance(), **wrong)
