"""Whether generated images are copies: how near their nearest training image is, beside how near real ones come."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from foodgen.core.registry import metrics
from foodgen.core.types import Metric, MetricInputs

SHOWN = 24  # nearest pairs reported


def nearest(points: Tensor, others: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Each point's smallest distance to any row of `others`, (count,), and that row's number, (count,)."""
    distance = torch.full((len(points),), torch.inf)
    number = torch.zeros(len(points), dtype=torch.long)
    start = 0
    for part in others:
        near, index = torch.cdist(points, part.to(points)).min(dim=1)
        closer = near < distance
        distance, number = torch.where(closer, near, distance), torch.where(closer, start + index, number)
        start += len(part)
    return distance, number


@metrics.add_to_registry(name="memorisation")
class Memorisation(Metric):
    """Nearest training images of generated ones, compared with those of real images that were not trained on.

    memorisation      share of generated images that are nearer to a training image than 99 % of the real ones
                      are: 0.01 is what fresh photos have, copies have 1
    nearer_than_real  chance that a generated image is nearer than a real one: fresh photos have 0.5

    Plain images are near to many others: smooth pictures score high in pixels without being copies. The nearest
    pairs are reported as [generated, training, distance].
    """

    name = "memorisation"
    lower_is_better = True
    of_sets = False
    needs_training = True

    def __call__(self, inputs: MetricInputs) -> dict[str, Any]:
        both = torch.cat([inputs.generated, inputs.real]).float()
        distance, number = nearest(both, inputs.training())
        made, real = distance.split([len(inputs.generated), len(inputs.real)])
        ranks = torch.searchsorted(real.sort().values, made), torch.searchsorted(real.sort().values, made, right=True)
        farther = 1 - (ranks[0] + ranks[1]).double() / (2 * len(real))  # ties count half
        order = made.argsort()[:SHOWN].tolist()
        return {
            "memorisation": (made < torch.quantile(real, 0.01)).double().mean().item(),
            "nearer_than_real": farther.mean().item(),
            "nearest_pairs": [[i, int(number[i]), round(float(made[i]), 4)] for i in order],
        }
