"""Kernel inception distance (Binkowski 2018), unbiased, with its standard error."""

from typing import Any

import torch
from torch import Tensor

from foodgen.core.registry import metrics
from foodgen.core.types import Evidence, Metric

ROWS = 2048  # of a kernel matrix that are held at a time


def _kernel_means(rows: Tensor, columns: Tensor, same: bool) -> Tensor:
    """Each row's mean kernel (x y / width + 1)^3 with the columns, without itself if the sets are the same."""
    means = []
    for part in rows.split(ROWS):
        kernel = (part @ columns.T / rows.shape[1] + 1) ** 3
        means.append(kernel.sum(dim=1))
    total = torch.cat(means)
    if not same:
        return total / len(columns)
    own = (rows.square().sum(dim=1) / rows.shape[1] + 1) ** 3
    return (total - own) / (len(columns) - 1)


def kernel_distance(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Squared maximum mean discrepancy of two feature sets, (count, width), without bias, and its standard error.

    All pairs are used, not subsets. The error is the first order of the U-statistic's variance: what its value
    owes to each image is spread by 4 Var / count for either set. Raises ValueError for fewer than 2 rows.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"pairs want 2 images at least, not {len(first)} and {len(second)}")
    first, second = first.double(), second.double()
    within = _kernel_means(first, first, same=True), _kernel_means(second, second, same=True)
    between = _kernel_means(first, second, same=False), _kernel_means(second, first, same=False)
    distance = within[0].mean() + within[1].mean() - 2 * between[0].mean()
    owed = [inside - across for inside, across in zip(within, between, strict=True)]
    error = sum(4 * part.var() / len(part) for part in owed)
    return float(distance), float(error) ** 0.5


@metrics.add_to_registry(name="kid")
class KID(Metric):
    """Kernel distance of generated features from real ones, times 1000 as is usual; unbiased at any count."""

    name = "kid"
    lower_is_better = True
    to_training = True

    def __call__(self, evidence: Evidence) -> dict[str, Any]:
        distance, error = kernel_distance(evidence.generated, evidence.real)
        return {"kid": 1000 * distance, "kid_error": 1000 * error}
