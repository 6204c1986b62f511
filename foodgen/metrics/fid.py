"""Frechet inception distance (Heusel 2017), exact and real for any number of images."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from foodgen.core.registry import metrics
from foodgen.core.types import Metric, MetricInputs


def root(features: Tensor) -> Tensor:
    """A matrix R with R^T R = the covariance of features, (count, width); at most width rows."""
    centred = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    if len(centred) > centred.shape[1]:
        centred = torch.linalg.qr(centred, mode="r").R
    return centred


class Gaussian:
    """The mean and a root of the covariance of a feature set, (count, width) with at least 2 rows; else ValueError."""

    def __init__(self, features: Tensor) -> None:
        if len(features) < 2:
            raise ValueError(f"a covariance wants 2 images at least, not {len(features)}")
        self.mean, self.root = features.double().mean(dim=0), root(features.double())

    def distance(self, other: "Gaussian") -> float:
        """Squared Frechet distance.

        tr (S1 S2)^(1/2) is the sum of the singular values of R1 R2^T, where R^T R = S: no matrix root, no imaginary
        part, and no need of more images than features.
        """
        apart = (self.mean - other.mean).square().sum()
        overlap = torch.linalg.svdvals(self.root @ other.root.T).sum()
        distance = apart + self.root.square().sum() + other.root.square().sum() - 2 * overlap
        return float(distance.clamp(min=0))


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Squared Frechet distance of two feature sets' Gaussians, (count, width). Raises ValueError for too few rows."""
    return Gaussian(first).distance(Gaussian(second))


@metrics.add_to_registry(name="fid")
class FID(Metric):
    """Distance of generated features from real ones; lower is better. Biased upwards for few images."""

    name = "fid"
    lower_is_better = True
    to_training = True

    def __call__(self, inputs: MetricInputs) -> dict[str, Any]:
        return {"fid": frechet_distance(inputs.generated, inputs.real)}


@metrics.add_to_registry(name="fid_infinity")
class FIDInfinity(Metric):
    """The distance that endlessly many generated images would have: a line through FID against 1 / n (Chong 2019).

    The real images stay as many as they are, and so does their share of the bias. Below 5,000 generated
    images the line is a guess.
    """

    name = "fid_infinity"
    lower_is_better = True
    points = 8  # on the line, from half of the images to all

    def __call__(self, inputs: MetricInputs) -> dict[str, Any]:
        count = len(inputs.generated)
        if count < 100:
            raise ValueError(f"a line cannot be drawn through parts of {count} images; 5,000 and more make it firm")
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        sizes = [round(float(size)) for size in torch.linspace(max(2, count // 2), count, self.points)]
        real = Gaussian(inputs.real)
        distances = [Gaussian(inputs.generated[order[:size]]).distance(real) for size in sizes]
        _, intercept = np.polyfit(1 / np.array(sizes), distances, 1)
        return {"fid_infinity": float(intercept)}
