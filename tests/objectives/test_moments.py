"""The Frechet distance as a loss: its transport map, its gradient, and what it does to a generator."""

import pytest
import torch
from torch import nn

from foodgen.core.networks import FeatureMaps
from foodgen.metrics.fid import frechet_distance
from foodgen.objectives.moments import FeatureMoments, covariance, mean, transport_map
from foodgen.objectives.penalties import PenaltyInputs


class Raw(FeatureMaps):
    """Features that are the pixels themselves."""

    widths = (6,)

    def forward(self, images):
        return [images]


def skewed(count, seed):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    return torch.randn(count, 6, generator=generator, dtype=torch.float64) @ mix + seed


def inputs(real, fake):
    return PenaltyInputs(None, None, real[:, :, None, None], fake[:, :, None, None], None)


def test_the_map_carries_one_covariance_to_the_other():
    real, fake = torch.cov(skewed(500, 1).T), torch.cov(skewed(500, 2).T)
    transport = transport_map(real, fake, least=0.0)
    torch.testing.assert_close(transport @ fake @ transport, real)
    torch.testing.assert_close(transport, transport.T)


def test_moments_are_those_of_all_images():
    penalty = FeatureMoments(Raw(), memory=1e12)
    real, fake = skewed(64, 1).float(), skewed(64, 2).float()
    for part in range(4):
        penalty(inputs(real[16 * part : 16 * part + 16], fake[16 * part : 16 * part + 16]))
    for moments, images in ((penalty.real, real), (penalty.fake, fake)):
        torch.testing.assert_close(mean(moments), images.double().mean(dim=0))
        torch.testing.assert_close(covariance(moments), torch.cov(images.double().T, correction=0))


def test_its_gradient_is_the_frechet_distances():
    """Against differences of the distance that the metric computes."""
    real, fake = skewed(400, 1), skewed(400, 2)
    penalty = FeatureMoments(Raw(), memory=1e12, refresh=1)
    moved = fake.float().requires_grad_(True)
    penalty(inputs(real.float(), moved)).backward()
    for row, column in ((0, 0), (3, 5), (17, 2)):
        ends = []
        for step in (-1e-2, 1e-2):
            other = fake.clone()
            other[row, column] += step
            ends.append(frechet_distance(other, real))
        slope = (ends[1] - ends[0]) / 2e-2
        assert moved.grad[row, column].item() == pytest.approx(slope, rel=0.03, abs=2e-4)


def test_descending_it_brings_the_distance_to_nothing():
    real, start = skewed(2000, 1).float(), skewed(2000, 2).float()
    penalty = FeatureMoments(Raw(), memory=200, real_images=2000, refresh=5)
    generator = nn.Linear(6, 6)
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.003)
    before = frechet_distance(generator(start).detach(), real)
    for step in range(1500):
        rows = torch.arange(50 * step, 50 * step + 50) % 2000
        penalty(inputs(real[rows], generator(start[rows]))).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert frechet_distance(generator(start).detach(), real) < 0.02 * before


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="refresh: 0"):
        FeatureMoments(Raw(), refresh=0)
