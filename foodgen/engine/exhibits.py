"""Pictures that explain a model: from one noise to another, and what it believes on the way from noise to image."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core.randomness import Noise
from foodgen.engine.evaluator import Drawer

COLUMNS = 8


class Between:
    """Noise on the arc from one normal noise to another, COLUMNS images an arc; normal at every place of it."""

    def __init__(self, seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device | str) -> None:
        rows = [index // COLUMNS for index in indices]
        ends = [Noise(seed, [2 * row + end for row in rows], shape, device) for end in (0, 1)]
        angle = torch.tensor([index % COLUMNS for index in indices]) / (COLUMNS - 1) * math.pi / 2
        angle = angle.to(device).reshape(-1, *[1] * len(shape))
        self.ends, self.shares = ends, (angle.cos(), angle.sin())

    def __call__(self) -> Tensor:
        """(batch, *shape)."""
        return self.shares[0] * self.ends[0]() + self.shares[1] * self.ends[1]()


def interpolation(drawer: Drawer, model: nn.Module, labels: Sequence[int], seed: int) -> tuple[Tensor, list[int]]:
    """COLUMNS images for each label, from one image to another along their noise; and all images' labels."""
    wanted = [label for label in labels for _ in range(COLUMNS)]
    return drawer(model, wanted, seed, Between), wanted


def trajectory(drawer: Drawer, model: nn.Module, labels: Sequence[int], seed: int) -> tuple[Tensor, list[int]]:
    """For each label COLUMNS of the guided guesses of the clean image, from the first to the last; and their labels."""
    sampler: Any = copy.copy(drawer.sampler)
    seen: list[Tensor] = []
    sampler.guidance = _watched(sampler.guidance, seen)
    watching = Drawer(sampler, drawer.codec, drawer.device, len(labels), drawer.autocast)
    watching(model, labels, seed)
    chosen = torch.linspace(0, len(seen) - 1, COLUMNS).round().long().tolist()
    images = torch.stack([drawer.codec.decode(seen[place]).cpu() for place in chosen], dim=1)
    return images.flatten(0, 1), [label for label in labels for _ in range(COLUMNS)]


def _watched(guidance: Callable[..., Any], seen: list[Tensor]) -> Callable[..., Any]:
    def look(*arguments: Any) -> Any:
        guess = guidance(*arguments)
        seen.append(guess.clean)
        return guess

    return look


EXHIBITS = {"interpolation": interpolation, "trajectory": trajectory}
