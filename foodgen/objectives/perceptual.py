"""Distances of an image from the one that it is to look like, by features and by pixels."""

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from foodgen.core.networks import FeatureMaps
from foodgen.core.registry import penalties
from foodgen.objectives.penalties import Penalty, PenaltyInputs


def perceptual_distance(features: FeatureMaps, images: Tensor, targets: Tensor) -> Tensor:
    """LPIPS without its weights (Zhang 2018), (batch,): mean squared difference of the positions' unit vectors."""
    with torch.no_grad():
        expected = features(targets)
    pairs = zip(features(images), expected, strict=True)
    return torch.stack([((_unit(a) - _unit(b)) ** 2).sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]).mean(dim=0)


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features.float(), dim=1)


class PairedPenalty(Penalty):
    """A distance of each generated image from the real one of the same index."""

    network = "model"
    paired = True

    def value(self, inputs: PenaltyInputs) -> Tensor:
        distances = self.distances(inputs.fake, inputs.real)
        return (distances if inputs.pair_weights is None else distances * inputs.pair_weights).mean()

    @abstractmethod
    def distances(self, fake: Tensor, real: Tensor) -> Tensor:
        """Of each image from its pair, (batch,)."""


@penalties.add_to_registry(name="perceptual")
class Perceptual(PairedPenalty):
    """`perceptual_distance` in a frozen network's features, in the precision of the training."""

    def __init__(self, features: FeatureMaps, weight: float = 1.0, interval: int = 1) -> None:
        super().__init__(weight, interval)
        self.features = features.requires_grad_(False)

    def forward(self, inputs: PenaltyInputs) -> Tensor:
        """The distance, before its weight."""
        return self.value(inputs)

    def distances(self, fake: Tensor, real: Tensor) -> Tensor:
        return perceptual_distance(self.features, fake, real)


@penalties.add_to_registry(name="pixel_error")
class PixelError(PairedPenalty):
    """Mean absolute error of the pixels, once both images are averaged down to `resolution`."""

    def __init__(self, resolution: int, weight: float = 1.0, interval: int = 1) -> None:
        super().__init__(weight, interval)
        if resolution < 1:
            raise ValueError(f"resolution: {resolution} is not at least 1")
        self.resolution = resolution

    def distances(self, fake: Tensor, real: Tensor) -> Tensor:
        fake, real = (functional.adaptive_avg_pool2d(x.float(), self.resolution) for x in (fake, real))
        return (fake - real).abs().mean(dim=(1, 2, 3))
