"""Samplers on a Gaussian data distribution, whose exact denoiser and probability flow are known."""

import pytest
import torch

from foodgen.core.registry import processes, samplers
from foodgen.core.types import Prediction
from foodgen.diffusion.guidance import NoGuidance
from foodgen.diffusion.process import column
from tests.toys import ToyDenoiser

MEAN, DEVIATION = 0.3, 0.4
PROCESSES = {
    "ddpm": {},
    "ddpm_cosine": {"schedule": "cosine", "prediction": "v"},
    "edm": {"sigma_data": 0.4},
    "flow": {},
}


def make_process(name):
    return processes[name.split("_")[0]](**PROCESSES[name])


class ExactDenoiser(ToyDenoiser):
    """E[clean | x_t] for clean ~ N(MEAN, DEVIATION squared)."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, x, t, labels=None):
        alpha, sigma = column(self.process.alpha(t)), column(self.process.sigma(t))
        gain = alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2)
        clean = MEAN + gain * (x - alpha * MEAN)
        return Prediction(clean, self.process.eps(x, clean, t))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("sampler", ["euler", "heun", "ancestral", "dpm_solver"])
def test_recovers_mean_and_spread(process, sampler):
    model = ExactDenoiser(make_process(process))
    steps = 1000 if sampler == "ancestral" else 200  # its diversity is short by order 1 / steps
    walker = samplers[sampler](guidance=NoGuidance(), steps=steps)
    drawn = walker(model, lambda: torch.randn(20_000, 1, 1, 1))
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.012)
    assert drawn.std().item() == pytest.approx(DEVIATION, rel=0.025)


def error(sampler, process, steps):
    """Largest distance from the exact end of the flow: a point keeps its number of deviations all the way."""
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None, None, None]
    top = process.timesteps(steps)[:1]
    alpha, sigma = process.alpha(top), process.sigma(top)
    deviations = (start * sigma - alpha * MEAN) / (alpha**2 * DEVIATION**2 + sigma**2).sqrt()
    end = samplers[sampler](guidance=NoGuidance(), steps=steps)(ExactDenoiser(process), lambda: start)
    return (end - (MEAN + DEVIATION * deviations)).abs().max().item()


@pytest.mark.parametrize("process", ["edm", "flow"])
@pytest.mark.parametrize(("sampler", "least", "most"), [("euler", 1.7, 2.4), ("heun", 3.4, 4.6)])
def test_order_of_convergence(process, sampler, least, most):
    path = make_process(process)
    ratio = error(sampler, path, 40) / error(sampler, path, 80)
    assert least < ratio < most


@pytest.mark.parametrize("process", ["edm", "flow"])
def test_dpm_solver_beats_euler_at_equal_looks(process):
    path = make_process(process)
    assert error("dpm_solver", path, 40) < error("euler", path, 40) / 3


def test_clip_bounds_the_predicted_image():
    model = ExactDenoiser(make_process("edm"))
    drawn = samplers["euler"](guidance=NoGuidance(), steps=20, clip_denoised=0.5)(
        model, lambda: 3 * torch.randn(500, 1, 1, 1)
    )
    assert drawn.abs().max() <= 0.5 + 1e-5


@pytest.mark.parametrize("sampler", ["euler", "heun", "ancestral", "dpm_solver"])
def test_refuses_no_steps(sampler):
    with pytest.raises(ValueError, match="steps"):
        samplers[sampler](guidance=NoGuidance(), steps=0)
