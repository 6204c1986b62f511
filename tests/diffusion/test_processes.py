"""The mathematics of corruption, against closed forms, scipy and diffusers."""

import diffusers
import pytest
import torch
from scipy import stats

from foodgen.core.registry import processes
from foodgen.diffusion.ddpm import DDPM
from foodgen.diffusion.denoiser import PreconditionedDenoiser
from foodgen.diffusion.process import column

ALL = [
    ("ddpm", {}),
    ("ddpm", {"schedule": "cosine", "prediction": "v"}),
    ("ddpm", {"schedule": "cosine", "prediction": "x0"}),
    ("edm", {}),
    ("flow", {}),
    ("flow", {"shift": 3.0}),
]
everywhere = pytest.mark.parametrize(("name", "arguments"), ALL)


def times(process, count=6):
    """Some training times, noise first."""
    drawn = process.sample_t(torch.linspace(0.05, 0.9, count).double()).float()
    return drawn.sort(descending=True).values


@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_ddpm_schedules_are_diffusers(ours, theirs):
    products = diffusers.DDPMScheduler(beta_schedule=theirs, beta_start=1e-4, beta_end=0.02).alphas_cumprod
    process = DDPM(ours)
    torch.testing.assert_close(process.alphas[1:] ** 2, products, rtol=1e-4, atol=1e-7)
    assert (process.alphas[0], process.sigmas[0]) == (1, 0)


def test_ddpm_keeps_the_variance():
    process = DDPM("cosine")
    torch.testing.assert_close(process.alphas**2 + process.sigmas**2, torch.ones(1001))


@everywhere
def test_grid_descends_to_clean(name, arguments):
    process = processes[name](**arguments)
    for steps in (1, 7, 50):
        grid = process.timesteps(steps)
        assert len(grid) == steps + 1
        assert (grid.diff() < 0).all()
        assert process.sigma(grid[-1:]).item() == 0
        assert process.alpha(grid[-1:]).item() == 1
    with pytest.raises(ValueError, match="steps"):
        process.timesteps(0)


def test_edm_grid_is_equation_5():
    grid = processes["edm"]().timesteps(18)
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)] + [0]
    torch.testing.assert_close(grid, torch.tensor(expected, dtype=torch.float64))


@everywhere
def test_bridge_leads_to_the_distribution_below(name, arguments):
    """x_s from q(x_s | x_t, clean) has the moments of q(x_s | clean), whatever t was."""
    process = processes[name](**arguments)
    t, s = times(process)[:-1], times(process)[1:]
    clean = torch.full((len(t), 1, 1, 1), 0.7)
    at_mean, deviation = process.posterior(column(process.alpha(t)) * clean, clean, t, s)
    gain = process.posterior(torch.ones_like(clean), 0 * clean, t, s)[0]
    torch.testing.assert_close(at_mean, column(process.alpha(s)) * clean, rtol=1e-4, atol=1e-5)
    variance = gain**2 * column(process.sigma(t)) ** 2 + deviation**2
    torch.testing.assert_close(variance.sqrt(), column(process.sigma(s)), rtol=1e-3, atol=1e-5)


@everywhere
def test_bridge_to_clean_is_clean(name, arguments):
    process = processes[name](**arguments)
    t = times(process)
    x, clean = torch.randn(2, len(t), 1, 2, 2)
    mean, deviation = process.posterior(x, clean, t, 0 * t)
    torch.testing.assert_close(mean, clean)
    assert deviation.abs().max() == 0


class Perfect(torch.nn.Module):
    """Outputs whatever it is told to."""

    def forward(self, x, time, labels=None):
        return self.answer


@everywhere
def test_a_perfect_regression_is_a_perfect_denoiser(name, arguments):
    process = processes[name](**arguments)
    t = times(process, 16)
    clean, noise = torch.randn(2, 16, 3, 4, 4)
    network = Perfect()
    network.answer = torch.zeros_like(clean)
    model = PreconditionedDenoiser(network, process, channels=3, image_size=4, classes=5)
    network.answer = model.target(clean, noise, t)
    guess = model(process.q_sample(clean, noise, t), t)
    torch.testing.assert_close(guess.denoised, clean, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(guess.eps, noise, rtol=1e-2, atol=1e-2)


def test_edm_inputs_and_targets_have_unit_variance():
    """Karras 2022, appendix B.6: c_in, c_skip and c_out are made for this."""
    process = processes["edm"](sigma_data=0.5)
    clean, noise = 0.5 * torch.randn(4, 1, 200, 200), torch.randn(4, 1, 200, 200)
    t = torch.tensor([0.01, 0.3, 2.0, 60.0])
    scales = process.preconditioning(t)
    inputs = scales.c_in * process.q_sample(clean, noise, t)
    targets = ((1 - scales.c_skip) * clean - scales.c_skip * column(t) * noise) / scales.c_out
    for values in (inputs, targets):
        torch.testing.assert_close(values.std(dim=(1, 2, 3)), torch.ones(4), rtol=0.02, atol=0)


def test_flow_regresses_the_velocity_and_v_the_papers_v():
    clean, noise = torch.randn(2, 8, 1, 2, 2)
    network = Perfect()
    network.answer = clean
    for process, expected in (
        (processes["flow"](), lambda a, s: noise - clean),
        (processes["ddpm"](prediction="v"), lambda a, s: a * noise - s * clean),
        (processes["ddpm"](prediction="eps"), lambda a, s: noise),
        (processes["ddpm"](prediction="x0"), lambda a, s: clean),
    ):
        t = times(process, 8)
        target = PreconditionedDenoiser(network, process, 1, 2, 0).target(clean, noise, t)
        alpha, sigma = column(process.alpha(t)), column(process.sigma(t))
        torch.testing.assert_close(target, expected(alpha, sigma), rtol=1e-3, atol=1e-3)


def test_training_times_are_distributed_as_said():
    uniform = torch.rand(20_000)
    flow = processes["flow"](logit_mean=0.3, logit_std=0.8).sample_t(uniform)
    assert stats.kstest(torch.logit(flow.double()).numpy(), stats.norm(0.3, 0.8).cdf).pvalue > 1e-3
    edm = processes["edm"](p_mean=-0.8, p_std=1.6).sample_t(uniform)
    assert stats.kstest(edm.double().log().numpy(), stats.norm(-0.8, 1.6).cdf).pvalue > 1e-3
    counts = processes["ddpm"](num_timesteps=10).sample_t(uniform).long().bincount(minlength=11)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:].numpy()).pvalue > 1e-3


def test_times_reach_the_network_on_a_scale_of_about_a_thousand():
    """A share of 1 in an embedding built for a thousand would hardly move it."""
    for name, arguments in ALL:
        process = processes[name](**arguments)
        time = process.preconditioning(process.timesteps(10)[:-1].float()).c_noise
        assert 500 < (time.max() - time.min()) < 3000


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("edm", {"sigma_min": 2.0, "sigma_max": 1.0}),
        ("edm", {"rho": 0}),
        ("flow", {"shift": 0}),
        ("ddpm", {"num_timesteps": 0}),
    ],
)
def test_nonsense_is_refused(name, arguments):
    with pytest.raises(ValueError):
        processes[name](**arguments)


def test_edm_is_preconditioned_as_in_table_1():
    sigma, data = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64), 0.5
    scales = processes["edm"](sigma_data=data).preconditioning(sigma)
    torch.testing.assert_close(scales.c_skip.flatten(), data**2 / (sigma**2 + data**2))
    torch.testing.assert_close(scales.c_out.flatten(), sigma * data / (data**2 + sigma**2) ** 0.5)
    torch.testing.assert_close(scales.c_in.flatten(), 1 / (sigma**2 + data**2) ** 0.5)
    torch.testing.assert_close(scales.c_noise / 1000, sigma.log() / 4)
    weight = (sigma**2 + data**2) / (sigma * data) ** 2  # lambda
    torch.testing.assert_close(weight * scales.c_out.flatten() ** 2, torch.ones(5).double())
