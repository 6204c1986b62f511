"""Penalties against players whose gradients are known."""

import pytest
import torch
from torch import nn

from foodgen.core.randomness import seed_step
from foodgen.core.registry import penalties
from foodgen.core.types import Generator
from foodgen.objectives.penalties import PenaltyInputs

LABELS = torch.zeros(6, dtype=torch.long)


class Linear(nn.Module):
    """The logit w . x: its gradient is w everywhere."""

    def __init__(self, shape):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, images, labels=None):
        return (images * self.weight).sum(dim=(1, 2, 3))


class Quadratic(nn.Module):
    """The logit |x|^2 / 2: its gradient is x."""

    def forward(self, images, labels=None):
        return images.square().sum(dim=(1, 2, 3)) / 2


class Scaled(Generator):
    """An orthogonal map of the noise, times a factor: every unit step moves the image by the factor."""

    def __init__(self, size, factor):
        super().__init__()
        self.noise_shape = (3 * size**2,)
        self.map = nn.Parameter(factor * torch.linalg.qr(torch.randn(3 * size**2, 3 * size**2)).Q)
        self.size = size

    def images(self, latent, labels, noise):
        return (latent @ self.map.T).unflatten(1, (3, self.size, self.size))


def inputs(discriminator=None, model=None, size=4):
    real, fake = torch.randn(6, 3, size, size), torch.randn(6, 3, size, size)
    return PenaltyInputs(model, discriminator, real, fake, LABELS)


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_r1_and_r2_of_a_linear_discriminator(name):
    discriminator = Linear((3, 4, 4))
    size = penalties[name](weight=1.0)(inputs(discriminator))
    torch.testing.assert_close(size, discriminator.weight.square().sum() / 2)
    size.backward()
    torch.testing.assert_close(discriminator.weight.grad, discriminator.weight.detach())


def test_r1_looks_at_real_images_and_r2_at_generated_ones():
    seen = inputs(Quadratic())
    for name, images in (("r1", seen.real), ("r2", seen.fake)):
        torch.testing.assert_close(penalties[name](weight=1.0)(seen), images.square().sum(dim=(1, 2, 3)).mean() / 2)


@pytest.mark.parametrize("center", [0.0, 1.0])
def test_gradient_penalty_of_a_linear_discriminator(center):
    discriminator = Linear((3, 4, 4))
    size = penalties["gradient_penalty"](center=center)(inputs(discriminator))
    torch.testing.assert_close(size, (discriminator.weight.norm() - center).square())


def test_gradient_penalty_looks_between_real_and_fake():
    seen = inputs(Quadratic())
    seen.real[:], seen.fake[:] = 3.0, 1.0  # gradients between |1| and |3|
    seed_step(0, 1)
    sizes = torch.stack([penalties["gradient_penalty"](center=0.0)(seen) for _ in range(300)])
    assert ((sizes > 48) & (sizes < 9 * 48)).all()
    assert sizes.mean().item() == pytest.approx(48 * 13 / 3, rel=0.02)  # mean of t^2 over [1, 3]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_path_length_of_an_orthogonal_generator(factor):
    model = Scaled(12, factor)
    penalty = penalties["path_length"](batch_fraction=1.0, decay=0.5)
    size = penalty(inputs(model=model, size=12))
    # the projection has a deviation of 1 / size, so its norm over 3 channels is about sqrt(3)
    length = factor * 3**0.5
    assert penalty.mean.item() == pytest.approx(length / 2, rel=0.05)
    assert size.item() == pytest.approx((length / 2) ** 2, rel=0.1)
    size.backward()
    assert (model.map.grad * model.map).sum() > 0  # shorter paths lower it while the mean is below them
    for _ in range(12):
        size = penalty(inputs(model=model, size=12))
    assert size.item() < 0.02 * length**2  # equal paths cost nothing once the mean is known


def test_path_length_takes_its_part_of_the_batch():
    model = Scaled(4, 1.0)
    seen = []
    original = model.images
    model.images = lambda latent, *rest: (seen.append(len(latent)), original(latent, *rest))[1]
    penalties["path_length"](batch_fraction=0.5)(inputs(model=model))
    penalties["path_length"](batch_fraction=0.01)(inputs(model=model))
    assert seen == [3, 1]


@pytest.mark.parametrize("name", ["r1", "r2", "gradient_penalty"])
def test_penalties_ignore_autocast(name):
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3)

    class MetricSpec(nn.Module):
        def forward(self, images, labels):
            return network(images).tanh().sum(dim=(1, 2, 3))

    seen, sizes = inputs(MetricSpec()), []
    for enabled in (False, True):
        seed_step(0, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            sizes.append(penalties[name](weight=1.0)(seen))
    assert sizes[1].dtype == torch.float32
    assert torch.equal(sizes[0], sizes[1])


@pytest.mark.parametrize(("name", "arguments"), [("r1", {"weight": -1.0}), ("r2", {"weight": 1.0, "interval": 0})])
def test_senseless_numbers_are_refused(name, arguments):
    with pytest.raises(ValueError, match="interval"):
        penalties[name](**arguments)
