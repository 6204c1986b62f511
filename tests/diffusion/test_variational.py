"""The variational bound: closed forms, scipy, diffusers, and data whose likelihood is known."""

import math

import diffusers
import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import Normal, kl_divergence

from foodgen.core.types import Prediction
from foodgen.diffusion import variational
from foodgen.diffusion.ddpm import DDPM
from foodgen.diffusion.edm import EDM
from foodgen.diffusion.flow import Flow
from foodgen.diffusion.process import column

PROCESSES = [DDPM("cosine"), DDPM("linear"), EDM(sigma_data=0.3), Flow()]
everywhere = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def test_the_divergence_is_torchs():
    torch.manual_seed(0)
    mean, log_variance, other, other_log = torch.randn(4, 1000, dtype=torch.float64)
    ours = variational.normal_kl(mean, log_variance, other, other_log)
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(other, (other_log / 2).exp()))
    torch.testing.assert_close(ours, theirs)


def test_the_bins_likelihood_is_scipys_and_sums_to_one():
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    mean, deviation = torch.tensor(0.93, dtype=torch.float64), 0.05
    ours = variational.discretized_gaussian_log_likelihood(
        levels, mean, torch.tensor(2 * math.log(deviation)).double()
    ).exp()
    edges = (levels[:-1] + levels[1:]) / 2
    cdf = np.concatenate([[0], stats.norm(0.93, deviation).cdf(edges), [1]])
    torch.testing.assert_close(ours, torch.from_numpy(np.diff(cdf)).clamp(min=1e-12), rtol=1e-4, atol=1e-9)
    assert ours.sum().item() == pytest.approx(1, abs=1e-6)


def test_learned_variances_are_diffusers():
    process = DDPM("cosine")
    theirs = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
    share = torch.rand(1, 3, 4, 4)
    for time in (2, 500, 999):  # their time 0 is our 1
        t = torch.tensor([float(time)])
        expected = theirs._get_variance(time - 1, predicted_variance=2 * share - 1)
        torch.testing.assert_close(process.log_variance(share, t, t - 1), expected, rtol=2e-3, atol=2e-3)


@everywhere
def test_the_bounds_of_the_variance(process):
    grid = process.timesteps(20).float()
    t, s = grid[5:6], grid[6:7]
    ones = torch.ones(1, 1, 1, 1)
    _, deviation = process.posterior(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), t, s)
    torch.testing.assert_close(process.log_variance(0 * ones, t, s).exp(), deviation**2)
    torch.testing.assert_close(process.log_variance(ones, t, s).exp(), process.added_variance(t, s))
    assert process.log_variance(None, t, s) == process.log_variance(0 * ones, t, s)
    last, clean = grid[-2:-1], grid[-1:]
    assert torch.isfinite(process.log_variance(0 * ones, last, clean)).all()
    torch.testing.assert_close(process.log_variance(None, last, clean).exp(), column(process.sigma(last) ** 2))


class Known:
    """The right denoiser of data that is normally distributed: mean 0, a given deviation."""

    def __init__(self, process, deviation):
        self.process, self.deviation = process, deviation

    def __call__(self, x, t):
        alpha, sigma = column(self.process.alpha(t)), column(self.process.sigma(t))
        clean = alpha * self.deviation**2 / (alpha**2 * self.deviation**2 + sigma**2) * x
        return Prediction(clean, self.process.eps(x, clean, t))


@everywhere
def test_the_bound_of_known_data_is_near_its_entropy(process):
    """Values of N(0, 0.3) in 256 levels: no model can do with fewer bits; the right one with hardly more.

    DDPM's first steps are steep, and cost more (IDDPM, figure 2).
    """
    torch.manual_seed(0)
    slack = 0.8 if isinstance(process, DDPM) else 0.2
    deviation, count = 0.3, 100
    clean = ((torch.randn(count, 1, 4, 4) * deviation).clamp(-1, 1) * 127.5).round() / 127.5
    clean = (((clean + 1) * 127.5).round() / 127.5) - 1  # as codecs have it
    denoise, grid = Known(process, deviation), process.vlb_timesteps(1000).float()
    bits = start = variational.prior_term(process, clean, grid[:1].expand(count)).mean()
    for t, s in zip(grid[:-1].expand(count, -1).T, grid[1:].expand(count, -1).T, strict=True):
        x = process.q_sample(clean, torch.randn_like(clean), t)
        bits = bits + variational.vlb_term(process, clean, x, t, s, denoise(x, t)).mean()
    levels = np.linspace(-1, 1, 256)
    chances = np.diff(
        stats.norm(0, deviation).cdf(np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]]))
    )
    entropy = stats.entropy(chances, base=2)
    assert entropy - 0.02 < bits.item() < entropy + slack
    wrong = Known(process, 3 * deviation)
    worse = start
    for t, s in zip(grid[:-1].expand(count, -1).T, grid[1:].expand(count, -1).T, strict=True):
        x = process.q_sample(clean, torch.randn_like(clean), t)
        worse = worse + variational.vlb_term(process, clean, x, t, s, wrong(x, t)).mean()
    assert worse > bits + 0.05


def test_a_term_is_a_monte_carlo_mean_of_log_ratios():
    """KL(q(x_s | x_t, clean) || p(x_s | x_t)) of one number, against samples and against quadrature."""
    process = DDPM("linear", num_timesteps=50)
    t, s = torch.tensor([30.0]), torch.tensor([29.0])
    clean, x, guess = (torch.full((1, 1, 1, 1), value) for value in (0.4, 0.1, -0.2))
    prediction = Prediction(guess, process.eps(x, guess, t), torch.full((1, 1, 1, 1), 0.7))
    ours = variational.vlb_term(process, clean, x, t, s, prediction).item() * math.log(2)
    mean, deviation = process.posterior(x, clean, t, s)
    theirs, _ = process.posterior(x, guess, t, s)
    model = stats.norm(theirs.item(), (0.5 * process.log_variance(prediction.v, t, s)).exp().item())
    truth = stats.norm(mean.item(), deviation.item())
    samples = truth.rvs(200_000, random_state=0)
    ratios = truth.logpdf(samples) - model.logpdf(samples)
    assert ours == pytest.approx(ratios.mean(), abs=5 * ratios.std() / len(ratios) ** 0.5)
    bounds = (truth.mean() - 10 * truth.std(), truth.mean() + 10 * truth.std())
    integral, _ = integrate.quad(lambda v: truth.pdf(v) * (truth.logpdf(v) - model.logpdf(v)), *bounds)
    assert ours == pytest.approx(integral, rel=1e-3)


@everywhere
def test_the_time_of_a_noise_level(process):
    t = process.timesteps(12).float()[1:-1]
    level = process.sigma(t) / process.alpha(t)
    torch.testing.assert_close(process.sigma_to_t(level), t, rtol=1e-3, atol=1e-4)
    assert process.sigma_to_t(torch.tensor([0.0])).item() == 0


@everywhere
def test_the_prior_term_is_small_where_noise_covers_everything(process):
    clean = torch.rand(3, 3, 4, 4) * 2 - 1
    assert (variational.prior_term(process, clean, process.vlb_timesteps(10).float()[:1].expand(3)) < 1e-3).all()
