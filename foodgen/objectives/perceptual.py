"""Distances of an image from the one that it is to look like, by features and by pixels."""

import torch
from torch import Tensor
from torch.nn import functional

from foodgen.core.networks import FeatureMaps
from foodgen.core.registry import penalties
from foodgen.objectives.penalties import Penalty, PenaltyInputs


def perceptual_distance(features: FeatureMaps, images: Tensor, targets: Tensor) -> Tensor:
    """LPIPS without its weights (Zhang 2018): mean squared difference of unit feature vectors at each position."""
    with torch.no_grad():
        expected = features(targets)
    pairs = zip(features(images), expected, strict=True)
    return torch.stack([((_unit(ours) - _unit(theirs)) ** 2).sum(dim=1).mean() for ours, theirs in pairs]).mean()


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features.float(), dim=1)


class PairedPenalty(Penalty):
    """A distance of each generated image from the real one of the same index."""

    network = "model"
    paired = True


@penalties.add_to_registry(name="perceptual")
class Perceptual(PairedPenalty):
    """`perceptual_distance` in a frozen network's features, in the precision of the training."""

    def __init__(self, features: FeatureMaps, weight: float = 1.0, interval: int = 1) -> None:
        super().__init__(weight, interval)
        self.features = features.requires_grad_(False)

    def forward(self, inputs: PenaltyInputs) -> Tensor:
        """The distance, before its weight."""
        return self.value(inputs)

    def value(self, inputs: PenaltyInputs) -> Tensor:
        return perceptual_distance(self.features, inputs.fake, inputs.real)


@penalties.add_to_registry(name="pixel_error")
class PixelError(PairedPenalty):
    """Mean absolute error of the pixels, once both images are averaged down to `resolution`."""

    def __init__(self, resolution: int, weight: float = 1.0, interval: int = 1) -> None:
        super().__init__(weight, interval)
        self.resolution = resolution

    def value(self, inputs: PenaltyInputs) -> Tensor:
        fake, real = (functional.adaptive_avg_pool2d(x.float(), self.resolution) for x in (inputs.fake, inputs.real))
        return (fake - real).abs().mean()
