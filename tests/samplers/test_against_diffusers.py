"""Samplers against diffusers' schedulers, step for step on a made-up network."""

import diffusers
import numpy as np
import pytest
import torch

from foodgen.core.registry import samplers
from foodgen.diffusion.ddpm import DDPM
from foodgen.diffusion.denoiser import PreconditionedDenoiser
from foodgen.diffusion.flow import Flow
from foodgen.diffusion.guidance import NoGuidance

STEPS = 20
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
MEANINGS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
# The cosine schedule ends at so little signal that noise prediction divides by it: it is not compared there.
PAIRS = [("linear", "eps"), ("linear", "v"), ("linear", "x0"), ("cosine", "v"), ("cosine", "x0")]


class MadeUp(torch.nn.Module):
    """Some smooth function of x and time."""

    def forward(self, x, time, labels=None):
        time = time[:, None, None, None] / 1000
        return torch.sin(2 * x + 3 * time) * 0.7 + 0.3 * x.roll(1, -1) * (1 - time)


def start():
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(5))


def ours(sampler, process, noise=start):
    model = PreconditionedDenoiser(MadeUp(), process, channels=2, image_size=4, classes=0)
    return samplers[sampler](guidance=NoGuidance(), steps=STEPS)(model, noise)


def theirs(scheduler, x, time_of=lambda t: t + 1):
    """time_of: our time of theirs; DDPM's times are 1..T with us, 0..T-1 with them."""
    for t in scheduler.timesteps:
        x = scheduler.step(MadeUp()(x, torch.full((len(x),), float(time_of(t)))), t, x).prev_sample
    return x


def common(schedule, predicts):
    return {
        "beta_schedule": SCHEDULES[schedule],
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": MEANINGS[predicts],
        "timestep_spacing": "trailing",
    }


def scaled(process):
    return start() * process.sigma(torch.tensor([1000.0]))


@pytest.mark.parametrize(("schedule", "predicts"), PAIRS)
def test_euler_on_ddpm_is_ddim(schedule, predicts):
    process = DDPM(schedule, predicts)
    scheduler = diffusers.DDIMScheduler(clip_sample=False, **common(schedule, predicts))
    scheduler.set_timesteps(STEPS)
    torch.testing.assert_close(ours("euler", process), theirs(scheduler, scaled(process)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("schedule", "predicts"), PAIRS)
def test_ancestral_on_ddpm_is_ddpm(schedule, predicts, monkeypatch):
    process = DDPM(schedule, predicts)
    noises = [start(), *torch.randn(STEPS, 3, 2, 4, 4)]
    left = iter(noises)
    ended = ours("ancestral", process, lambda: next(left))
    fresh = iter(noises[1:])
    module = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
    monkeypatch.setattr(module, lambda *_, **__: next(fresh))
    scheduler = diffusers.DDPMScheduler(clip_sample=False, variance_type="fixed_small", **common(schedule, predicts))
    scheduler.set_timesteps(STEPS)
    torch.testing.assert_close(ended, theirs(scheduler, scaled(process)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("schedule", "predicts"), PAIRS)
def test_dpm_solver_on_ddpm_is_theirs(schedule, predicts):
    process = DDPM(schedule, predicts)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", **common(schedule, predicts)
    )
    scheduler.set_timesteps(STEPS)
    torch.testing.assert_close(ours("dpm_solver", process), theirs(scheduler, scaled(process)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_on_flow_is_flow_match_euler(shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, STEPS + 1)[:-1])
    ended = theirs(scheduler, start(), time_of=lambda t: t)
    torch.testing.assert_close(ours("euler", Flow(shift=shift)), ended, rtol=1e-4, atol=1e-4)
