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


def spread(made: Tensor, labels: Sequence[int], real: Tensor, real_labels: Sequence[int]) -> dict[int, float]:
    """Each class's deviation as a share of the real one's: about 1 in health, near 0 after a collapse."""
    return _shares(deviations(made, labels), deviations(real, real_labels))


def _shares(made: dict[int, float], real: dict[int, float]) -> dict[int, float]:
    return {label: value / real[label] for label, value in made.items() if real.get(label)}


class PixelSpread:
    """How varied generated images of each class are, as a share of real ones.

    real       images to compare with
    per_class  how many of them are looked at
    """

    def __init__(self, real: Images, per_class: int = 20) -> None:
        self.real, self.per_class = real, per_class

    @cached_property
    def expected(self) -> dict[int, float]:
        labels = np.asarray(self.real.labels)
        chosen = np.concatenate([np.flatnonzero(labels == label)[: self.per_class] for label in np.unique(labels)])
        return deviations(torch.stack([self.real[int(index)][0] for index in chosen]), labels[chosen].tolist())

    def __call__(self, images: Tensor, labels: Sequence[int]) -> dict[int, float]:
        """images: uint8, (n, 3, size, size); of classes with two images or more."""
        return _shares(deviations(images, labels), self.expected)
