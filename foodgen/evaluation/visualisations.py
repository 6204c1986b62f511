"""Visualisations of a model: interpolations in the latent, and a sampler's denoised images along one trajectory."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core.randomness import Noise
from foodgen.evaluation.sampling import SamplingLoop

COLUMNS = 8


class InterpolatedNoise:
    """Spherical interpolation between two normal noises, COLUMNS images each; standard normal at every point."""

    def __init__(self, seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device | str) -> None:
        rows = [index // COLUMNS for index in indices]
        self.ends = [Noise(seed, [2 * row + end for row in rows], shape, device) for end in (0, 1)]
        angle = torch.tensor([index % COLUMNS for index in indices]) / (COLUMNS - 1) * math.pi / 2
        angle = angle.to(device).reshape(-1, *[1] * len(shape))
        self.weights = (angle.cos(), angle.sin())

    def __call__(self) -> Tensor:
        """(batch, *shape)."""
        return self.weights[0] * self.ends[0]() + self.weights[1] * self.ends[1]()


def interpolation(
    sampling: SamplingLoop, model: nn.Module, labels: Sequence[int], seed: int
) -> tuple[Tensor, list[int]]:
    """For each label COLUMNS images from one noise to another; and the labels of all images."""
    repeated = [label for label in labels for _ in range(COLUMNS)]
    return sampling(model, repeated, seed, InterpolatedNoise), repeated


def trajectory(sampling: SamplingLoop, model: nn.Module, labels: Sequence[int], seed: int) -> tuple[Tensor, list[int]]:
    """For each label COLUMNS of the sampler's denoised images, from first to last; and the labels of all images."""
    sampler: Any = copy.copy(sampling.sampler)
    denoised: list[Tensor] = []
    sampler.guidance = _recorded(sampler.guidance, denoised)
    SamplingLoop(sampler, sampling.codec, sampling.device, len(labels), sampling.autocast)(model, labels, seed)
    chosen = torch.linspace(0, len(denoised) - 1, COLUMNS).round().long().tolist()
    asked = torch.tensor(labels, device=sampling.device)
    images = torch.stack([sampling.codec.decode(denoised[index], asked).cpu() for index in chosen], dim=1)
    return images.flatten(0, 1), [label for label in labels for _ in range(COLUMNS)]


def _recorded(guidance: Callable[..., Any], denoised: list[Tensor]) -> Callable[..., Any]:
    def guide(*arguments: Any) -> Any:
        prediction = guidance(*arguments)
        denoised.append(prediction.denoised)
        return prediction

    return guide


VISUALISATIONS = {"interpolation": interpolation, "trajectory": trajectory}
