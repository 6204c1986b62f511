"""Frechet inception distance (Heusel 2017), exact and real for any number of images."""

import torch
from torch import Tensor

from foodgen.core.registry import metrics
from foodgen.core.types import Metric


def root(features: Tensor) -> Tensor:
    """A matrix R with R^T R = the covariance of features, (count, width); at most width rows."""
    centred = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    if len(centred) > centred.shape[1]:
        centred = torch.linalg.qr(centred, mode="r").R
    return centred


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Squared Frechet distance of Gaussians with the means and covariances of two feature sets.

    first, second  (count, width), at least 2 rows each

    tr (S1 S2)^(1/2) is the sum of the singular values of R1 R2^T, where R^T R = S: no matrix root,
    no imaginary part, and no need of more images than features. Raises ValueError for too few rows.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"a covariance wants 2 images at least, not {len(first)} and {len(second)}")
    first, second = first.double(), second.double()
    apart = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    roots = root(first), root(second)
    overlap = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    distance = apart + roots[0].square().sum() + roots[1].square().sum() - 2 * overlap
    return float(distance.clamp(min=0))


@metrics.add_to_registry(name="fid")
class FID(Metric):
    """Distance of generated features from real ones; lower is better. Biased upwards for few images."""

    name = "fid"
    lower_is_better = True

    def __call__(self, generated: Tensor, real: Tensor) -> float:
        return frechet_distance(generated, real)
