"""Visualisations of a model: interpolations in the latent, and a sampler's denoised images along one trajectory."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from foodgen.core.randomness import Noise
from foodgen.evaluation.sampling import SamplingLoop

COLUMNS = 8


class InterpolatedNoise:
    """Spherical interpolation between two normal noises; standard normal at every point.

    ends       two functions that return noise, (batch, *shape)
    positions  between them, from 0 to 1, (batch,)
    """

    def __init__(self, ends: Sequence[Callable[[], Tensor]], positions: Tensor) -> None:
        self.ends, self.angle = ends, positions * math.pi / 2

    def __call__(self) -> Tensor:
        """(batch, *shape)."""
        first, second = (end() for end in self.ends)
        angle = self.angle.to(first.device).reshape(-1, *[1] * (first.dim() - 1))
        return angle.cos() * first + angle.sin() * second


def interpolation(
    sampling: SamplingLoop, model: nn.Module, labels: Sequence[int], seed: int
) -> tuple[Tensor, list[int]]:
    """For each label COLUMNS images from one noise to another; and the labels of all images."""

    def source(seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device) -> InterpolatedNoise:
        rows = [index // COLUMNS for index in indices]
        ends = [Noise(seed, [2 * row + end for row in rows], shape, device) for end in (0, 1)]
        return InterpolatedNoise(ends, torch.tensor([index % COLUMNS for index in indices]) / (COLUMNS - 1))

    repeated = [label for label in labels for _ in range(COLUMNS)]
    return sampling(model, repeated, seed, source), repeated


def trajectory(sampling: SamplingLoop, model: nn.Module, labels: Sequence[int], seed: int) -> tuple[Tensor, list[int]]:
    """For each label COLUMNS images from the first denoised one to the sample; and the labels of all images."""
    shown = list(sampling.trajectory(model, labels, seed))
    chosen = torch.linspace(0, len(shown) - 1, COLUMNS).round().long().tolist()
    images = torch.stack([shown[index] for index in chosen], dim=1)
    return images.flatten(0, 1), [label for label in labels for _ in range(COLUMNS)]


VISUALISATIONS = {"interpolation": interpolation, "trajectory": trajectory}
