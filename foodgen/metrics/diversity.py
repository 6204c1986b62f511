"""Mode collapse: images of a class that hardly differ, beside how much real ones do."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from foodgen.core.types import Images


def deviations(values: Tensor, labels: Sequence[int]) -> dict[int, float]:
    """Root mean variance within each class that has two images or more; values: (n, ...)."""
    values, numbers = values.flatten(1).float(), torch.as_tensor(labels)
    groups = {label: values[numbers == label] for label in numbers.unique().tolist()}
    return {label: group.var(dim=0).mean().sqrt().item() for label, group in groups.items() if len(group) > 1}


def diversity(made: Tensor, labels: Sequence[int], real: Tensor, real_labels: Sequence[int]) -> dict[int, float]:
    """Each class's deviation as a share of the real one's: about 1 in health, near 0 after a collapse."""
    expected = deviations(real, real_labels)
    return {label: value / expected[label] for label, value in deviations(made, labels).items() if expected.get(label)}


class PixelDiversity:
    """How varied generated images of each class are, as a share of real ones.

    real       images to compare with
    per_class  number of them that are used
    """

    def __init__(self, real: Images, per_class: int = 20) -> None:
        self.real, self.per_class = real, per_class

    @cached_property
    def sample(self) -> tuple[Tensor, list[int]]:
        """Real images of each class, uint8, and their labels."""
        labels = np.asarray(self.real.labels)
        chosen = np.concatenate([np.flatnonzero(labels == label)[: self.per_class] for label in np.unique(labels)])
        return torch.stack([self.real[int(index)][0] for index in chosen]), labels[chosen].tolist()

    def __call__(self, images: Tensor, labels: Sequence[int]) -> dict[str, float]:
        """images: uint8, (n, 3, size, size). By class, where some have two images; else of all classes together."""
        real, real_labels = self.sample
        if len({*labels}) == len(labels):
            shares = diversity(images, [0] * len(images), real, [0] * len(real))  # none of a single image
            return {"all classes together": shares[0]} if shares else {}
        shares = diversity(images, labels, real, real_labels)
        return {self.real.classes[label]: share for label, share in shares.items()}
