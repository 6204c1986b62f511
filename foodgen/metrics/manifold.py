"""Quality and variety apart: precision and recall (Kynkaanniemi 2019), density and coverage (Naeem 2020).

Real features span balls, each as wide as the way to its k-th nearest neighbour of the same set. Precision asks
how many generated images lie in some real ball, recall how many real ones lie in some generated ball.
"""

from typing import Any

import torch
from torch import Tensor

from foodgen.core.registry import metrics
from foodgen.core.types import Metric, MetricInputs

ROWS = 2048  # of a distance matrix that are held at a time


def radii(features: Tensor, k: int) -> Tensor:
    """Each row's distance to its k-th nearest other row, (count,). Raises ValueError for k rows or fewer."""
    if len(features) <= k:
        raise ValueError(f"the {k}-th neighbour wants {k + 1} images at least, not {len(features)}")
    return torch.cat([torch.cdist(part, features).kthvalue(k + 1).values for part in features.split(ROWS)])


def balls_around(points: Tensor, centres: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """How many balls each point lies in, (points,), and which balls hold a point at all, (centres,)."""
    counts, held = [], torch.zeros(len(centres), dtype=torch.bool)
    for part in points.split(ROWS):
        inside = torch.cdist(part, centres) <= radius
        counts.append(inside.sum(dim=1))
        held |= inside.any(dim=0)
    return torch.cat(counts), held


@metrics.add_to_registry(name="precision")
class Precision(Metric):
    """Share of generated images within the real ones' manifold (`precision`), and the other way round (`recall`).

    `precision_by_class` is that of each class's generated images, in the manifold of all real ones.
    """

    name = "precision"
    lower_is_better = False
    k = 3

    def __call__(self, inputs: MetricInputs) -> dict[str, Any]:
        generated, real = inputs.generated.double(), inputs.real.double()
        precise, _ = balls_around(generated, real, radii(real, self.k))
        recalled, _ = balls_around(real, generated, radii(generated, self.k))
        inside = (precise > 0).double()
        labels = inputs.labels.unique().tolist()
        by_class = {label: round(inside[inputs.labels == label].mean().item(), 4) for label in labels}
        recall = (recalled > 0).double().mean().item()
        return {"precision": inside.mean().item(), "recall": recall, "precision_by_class": by_class}


@metrics.add_to_registry(name="coverage")
class Coverage(Metric):
    """Share of real balls that hold generated images (`coverage`), and how many hold an image, over k (`density`)."""

    name = "coverage"
    lower_is_better = False
    k = 5

    def __call__(self, inputs: MetricInputs) -> dict[str, Any]:
        generated, real = inputs.generated.double(), inputs.real.double()
        counts, held = balls_around(generated, real, radii(real, self.k))
        return {"coverage": held.double().mean().item(), "density": counts.double().mean().item() / self.k}
