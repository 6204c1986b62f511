"""Multistep sampling from an upsampler: what each pass sees, and that exact networks keep the photos' distribution."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import inference
import train
from foodgen.core.networks import Upsampler
from foodgen.samplers.multistep import Multistep
from tests.runs import last
from tests.test_recipes import stop_at

SPREAD = 0.5  # standard deviation of the toy's photos, whose pixels are independent of each other


class Posterior(Upsampler):
    """Draws from the exact posterior of Gaussian photos that are four equal pixels each, given the noisy small one."""

    noise_shape, image_size = (3, 4, 4), 8

    def __init__(self, sigmas):
        super().__init__()
        self.sigmas, self.seen = [*sigmas], []

    def encode(self, images):
        low = functional.avg_pool2d(images, 2)
        return low, torch.full_like(low, -30.0)

    def decode(self, latents, labels=None):
        sigma = self.sigmas[len(self.seen)]
        self.seen.append(latents)
        gain = SPREAD**2 / (SPREAD**2 + sigma**2)
        low = gain * latents + gain**0.5 * sigma * torch.randn_like(latents)
        return low.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def normalise(self, latents):
        return latents

    def denormalise(self, latents):
        return latents


@pytest.mark.parametrize("sigmas", [[20.0], [20, 0.3], [20, 5, 1, 0.4], [20, 0]])
def test_an_exact_posterior_gives_the_photos_distribution(sigmas):
    """Whatever the levels: noise is added again to what has the right distribution, and taken off exactly."""
    model = Posterior(sigmas)
    torch.manual_seed(0)
    images = Multistep(sigmas)(model, lambda: torch.randn(4000, 3, 4, 4))
    assert images.shape == (4000, 3, 8, 8)
    assert images.std().item() == pytest.approx(SPREAD, rel=0.01)
    assert abs(images.mean().item()) < 0.01
    assert len(model.seen) == len(sigmas)


def test_each_pass_sees_the_image_before_with_the_noise_of_its_level():
    sigmas, drawn = [20, 5, 0.4], []

    def noise():
        drawn.append(torch.randn(2, 3, 4, 4))
        return drawn[-1]

    model = Posterior(sigmas)
    decode, made = model.decode, []
    model.decode = lambda *inputs: made.append(decode(*inputs)) or made[-1]
    Multistep(sigmas)(model, noise)
    assert torch.equal(model.seen[0], 20 * drawn[0])
    for step, sigma in enumerate(sigmas[1:], start=1):
        torch.testing.assert_close(model.seen[step], model.encode(made[step - 1])[0] + sigma * drawn[step])


@pytest.mark.parametrize("sigmas", [[], [1, 1], [1, 2], [1, -0.5]])
def test_levels_that_do_not_fall_are_named(sigmas):
    with pytest.raises(ValueError, match=r"sigmas: .* do not fall"):
        Multistep(sigmas)


def test_another_network_than_an_upsampler_is_refused():
    with pytest.raises(ValueError, match="multistep samples from an upsampler; Linear is none"):
        Multistep().check(nn.Linear(2, 2))


def test_a_trained_upsampler_is_sampled_from_the_command_line(small, tmp_path, monkeypatch):
    """The same images for every batch size; other levels give others."""
    stop_at(2, monkeypatch)
    train.main(small("small/upsampler", "exp.run=up"))
    few = ["inference.count=8", "inference.metrics=[]", "exp.run=up", f"train.checkpoint_path={last(tmp_path, 'up')}"]
    found = []
    for number, options in enumerate((["data.val_batch_size=8"], ["data.val_batch_size=3"], ["sampler.sigmas=[9,1]"])):
        folder = tmp_path / str(number)
        sampler = "sampler={name: multistep}"
        inference.main(small("small/upsampler", *few, sampler, *options, f"inference.output_dir={folder}"))
        found.append([path.read_bytes() for path in sorted((folder / "images").glob("*/*.png"))])
    assert len(found[0]) == 8
    assert found[0] == found[1] != found[2]
