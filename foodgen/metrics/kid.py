"""Kernel inception distance (Binkowski 2018), unbiased also for sets with fixed numbers of images a class."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from foodgen.core.registry import metrics
from foodgen.core.types import Metric, MetricInputs

ROWS = 1024  # of a kernel matrix that are held at a time


def _means(rows: Tensor, columns: Tensor, labels: Tensor, own: Tensor | None) -> Tensor:
    """Each row's mean kernel (x y / width + 1)^3 with the columns, (rows,).

    labels  of the columns
    own     labels of the rows, if these are the columns: a class's mean leaves the row itself out
    """
    members = functional.one_hot(labels).to(rows)  # (columns, classes)
    counts, shares = members.sum(dim=0), members.mean(dim=0)
    means = []
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        sums = (part @ columns.T / rows.shape[1] + 1).pow(3) @ members  # (part, classes)
        sizes = counts.expand_as(sums)
        if own is not None:
            mine = functional.one_hot(own[start : start + ROWS], len(counts)).to(rows)
            itself = (part.square().sum(dim=1, keepdim=True) / rows.shape[1] + 1).pow(3)
            sums, sizes = sums - mine * itself, sizes - mine
        means.append((sums / sizes.clamp(min=1)) @ shares)
    return torch.cat(means)


def _variance_within(values: Tensor, labels: Tensor) -> Tensor:
    """Of values around their class's mean, averaged over the images."""
    groups = [values[labels == label] for label in labels.unique()]
    return sum((group.var() * len(group) for group in groups), start=values.new_zeros(())) / len(values)


def kernel_distance(
    first: Tensor, second: Tensor, first_labels: Tensor | None = None, second_labels: Tensor | None = None
) -> tuple[float, float]:
    """Squared maximum mean discrepancy of two feature sets, (count, width), without bias, and its standard error.

    labels  class numbers, (count,), if each class's count was fixed beforehand, as for class-balanced sets. Two images
            of such a set are less often of one class than two drawn freely, which would bias the distance
            downwards: so each pair of classes is averaged by itself. Without labels, or where a
            class has a single image, all are taken for one class, which is the estimator of the paper.

    All pairs are used, not subsets. The error is the first order of the U-statistic's variance, which is what its
    value owes to each image; for equal distributions, where that order vanishes, it is too large by half.
    Raises ValueError for fewer than 2 rows.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"pairs want 2 images at least, not {len(first)} and {len(second)}")
    a, b = first.double(), second.double()
    of_a, of_b = _usable(first_labels, a), _usable(second_labels, b)
    within = _means(a, a, of_a, of_a), _means(b, b, of_b, of_b)
    between = _means(a, b, of_b, None), _means(b, a, of_a, None)
    distance = within[0].mean() + within[1].mean() - 2 * between[0].mean()
    owed = [inside - across for inside, across in zip(within, between, strict=True)]
    error = 4 * _variance_within(owed[0], of_a) / len(a) + 4 * _variance_within(owed[1], of_b) / len(b)
    return float(distance), float(error) ** 0.5


def _usable(labels: Tensor | None, rows: Tensor) -> Tensor:
    if labels is None or int(labels.unique(return_counts=True)[1].min()) < 2:
        return torch.zeros(len(rows), dtype=torch.long)
    return labels


@metrics.add_to_registry(name="kid")
class KID(Metric):
    """Kernel distance of generated features from real ones, times 1000 as is usual; unbiased at any count."""

    name = "kid"
    lower_is_better = True
    to_training = True

    def __call__(self, inputs: MetricInputs) -> dict[str, Any]:
        distance, error = kernel_distance(inputs.generated, inputs.real, inputs.labels, inputs.real_labels)
        return {"kid": 1000 * distance, "kid_error": 1000 * error}
