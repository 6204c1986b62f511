"""The flow's velocity carries noise to data: against scipy's integrator and the density itself."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from foodgen.core.types import Prediction
from foodgen.diffusion.flow import Flow
from foodgen.diffusion.guidance import NoGuidance
from foodgen.diffusion.process import column
from foodgen.samplers.deterministic import Euler, Heun
from tests.toys import ToyDenoiser

CENTRES, DEVIATION, SHARES = np.array([-1.0, 0.8]), 0.2, np.array([0.3, 0.7])


def posterior_mean(x, t):
    """E[clean | x_t] of the mixture, by Bayes' rule in numpy."""
    alpha, sigma = 1 - t, t
    variance = alpha**2 * DEVIATION**2 + sigma**2
    log_joint = np.log(SHARES) - 0.5 * (x[:, None] - alpha * CENTRES) ** 2 / variance
    weights = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return (weights * (CENTRES + alpha * DEVIATION**2 / variance * (x[:, None] - alpha * CENTRES))).sum(axis=1)


class Toy(ToyDenoiser):
    def __init__(self):
        super().__init__()
        self.process = Flow()

    def forward(self, x, t, labels=None):
        clean = torch.from_numpy(posterior_mean(x.flatten().double().numpy(), float(t[0]))).reshape(x.shape).to(x)
        scales = self.process.preconditioning(t)
        velocity = (clean - scales.c_skip * x) / scales.c_out  # what a network of the flow puts out
        return Prediction(clean, x + column(1 - t) * velocity)


@pytest.mark.parametrize(("sampler", "steps", "tolerance"), [(Euler, 400, 0.02), (Heun, 100, 2e-3)])
def test_samplers_integrate_the_velocity(sampler, steps, tolerance):
    start = torch.linspace(-2.5, 2.5, 41)
    ends = sampler(NoGuidance(), steps=steps)(Toy(), lambda: start[:, None, None, None]).flatten()
    exact = integrate.solve_ivp(
        lambda t, x: (x - posterior_mean(x, t)) / t, (1.0, 1e-5), start.double().numpy(), rtol=1e-8, atol=1e-8
    )
    np.testing.assert_allclose(ends.numpy(), exact.y[:, -1], atol=tolerance)


def test_noise_becomes_the_data():
    noise = torch.from_numpy(stats.norm.ppf((np.arange(5000) + 0.5) / 5000)).float()
    samples = Heun(NoGuidance(), steps=60)(Toy(), lambda: noise[:, None, None, None]).flatten().numpy()

    def share_below(x):
        return sum(share * stats.norm(centre, DEVIATION).cdf(x) for share, centre in zip(SHARES, CENTRES, strict=True))

    assert stats.kstest(samples, share_below).statistic < 0.01
