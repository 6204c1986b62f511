"""Scores of images against real ones: every metric in its feature space, and the real-data baseline."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foodgen.core import distributed
from foodgen.core.errors import ConfigError
from foodgen.core.randomness import seed_of
from foodgen.core.types import FeatureSpace, Images, Metric, MetricInputs, OfModel
from foodgen.evaluation.sampling import ImageBatch, interleave, warn_of_collapse


@dataclass
class MetricSpec:
    """A metric in a feature space, or in the space "model".

    name  how it is asked for: "fid", or "classifier/fid" in another space than the default one
    """

    name: str
    space: str
    metric: Metric

    @property
    def lower_is_better(self) -> bool:
        return self.metric.lower_is_better

    def key(self, name: str) -> str:
        """The name of one of the metric's numbers in a row."""
        return f"{self.space}/{name}" if "/" in self.name else name


@dataclass
class MetricGroup:
    """All metrics of one feature space.

    space        images to features
    specs        the metrics
    real         features of the reference
    training     features of all training images, in chunks
    of_training  indices of training images to their features
    """

    space: FeatureSpace
    specs: Sequence[MetricSpec]
    real: Callable[[], Tensor]
    training: Callable[[], Iterator[Tensor]]
    of_training: Callable[[Sequence[int]], Tensor]


@dataclass
class Scores:
    """Numbers by name; and details, which do not fit in a row: tables by class, nearest pairs."""

    numbers: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, spec: MetricSpec, found: Mapping[str, Any]) -> None:
        """Take in the result of a metric."""
        for name, value in found.items():
            target = self.numbers if isinstance(value, float | int) else self.details
            target[spec.key(name)] = value


def disjoint_subsets(images: Images, labels: Sequence[int], count: int) -> list[list[int]]:
    """Up to `count` disjoint sets of indices, each with as many images of each class as `labels` has."""
    per_class = np.bincount(labels, minlength=len(images.classes))
    known = np.asarray(images.labels)
    shuffled = [
        np.random.default_rng(seed_of("draw", label)).permutation(np.flatnonzero(known == label))
        for label in range(len(images.classes))
    ]
    possible = min((len(own) // size for own, size in zip(shuffled, per_class, strict=True) if size), default=0)
    return [
        [
            int(i)
            for own, size in zip(shuffled, per_class, strict=True)
            for i in own[subset * size : (subset + 1) * size]
        ]
        for subset in range(min(count, possible))
    ]


class Scorer:
    """Scores generated images against a reference set, and their model on it.

    groups        one for each feature space; the diversity is computed in the first
    reference     real images
    diversity     (features, labels, real features, real labels) to each class's diversity relative to real images
    precision     of the Inception network
    of_reference  whether the baseline's subsets are images of the reference, and compared with the rest of it
    training      the training images, if they are another set

    Attributes, for metrics of models: `of_model`, these metrics, and `evaluate`, which takes (model, seed, number of it
    on an image) to the number's mean over the reference.
    """

    def __init__(
        self,
        groups: Sequence[MetricGroup],
        reference: Images,
        diversity: Callable[[Tensor, Sequence[int], Tensor, Sequence[int]], Mapping[int, float]],
        precision: str = "fp32",
        of_reference: bool = False,
        training: Images | None = None,
    ) -> None:
        self.groups, self.reference, self.diversity, self.precision = groups, reference, diversity, precision
        self.of_reference, self.training = of_reference, training
        self.of_model: Sequence[MetricSpec] = ()
        self.evaluate: Callable[[nn.Module, int, OfModel], float] | None = None
        self.baselines: dict[tuple[int, ...], dict[str, float]] = {}  # of subsets seen before

    def __call__(
        self,
        batches: Iterable[ImageBatch],
        labels: Sequence[int],
        subsets: Sequence[Sequence[int]] = (),
        model: nn.Module | None = None,
        seed: int = 0,
    ) -> Scores:
        """Every metric's numbers and the features' diversity; on other processes than the first, those of models alone.

        batches  this process's images; features are kept of them, and they are not
        labels   class numbers of the images of all processes
        subsets  indices of training images, which distances are taken to as well: fid_to_training is their mean
        model    that generated them, for metrics of models; their noise follows from `seed`

        Warns of classes that have collapsed.
        """
        scores = Scores()
        of_groups = self._features(batches)
        for spec in self.of_model:
            assert model is not None and self.evaluate is not None
            nothing = torch.empty(0)
            mean = partial(self.evaluate, model, seed)
            inputs = MetricInputs(nothing, nothing, nothing, nothing, lambda: iter(()), mean_of_model=mean)
            scores.add(spec, _compute(spec, inputs))
        if not distributed.is_main():
            return scores
        for index, (group, features) in enumerate(zip(self.groups, of_groups, strict=True)):
            inputs = self._inputs(group, features, labels)
            for spec in group.specs:
                scores.add(spec, _compute(spec, inputs))
                if spec.metric.to_training and subsets and not (group.space.saw_training or self.of_reference):
                    scores.numbers |= self._to_training(group, spec, inputs, subsets)
            if index == 0:
                ratios = self.diversity(features, labels, inputs.real, self.reference.labels)
                warn_of_collapse("features", {self.reference.classes[label]: ratio for label, ratio in ratios.items()})
                if ratios:
                    scores.numbers["feature_diversity"] = sum(ratios.values()) / len(ratios)
                    scores.details["feature_diversity_by_class"] = ratios
        return scores

    def identity(self) -> list[str]:
        """What the numbers depend on beside the images scored: spaces and reference."""
        sets = [self.reference, *([] if self.training is None else [self.training])]
        return [*(group.space.identity for group in self.groups), *(images.listing.digest() for images in sets)]

    def _to_training(
        self, group: MetricGroup, spec: MetricSpec, inputs: MetricInputs, subsets: Sequence[Sequence[int]]
    ) -> dict[str, float]:
        labels = inputs.labels.sort().values
        others = [replace(inputs, real=group.of_training(subset), real_labels=labels) for subset in subsets]
        name = spec.metric.name
        return {f"{spec.key(name)}_to_training": fmean(_compute(spec, other)[name] for other in others)}

    def real_baseline(self, subsets: Sequence[Sequence[int]], labels: Sequence[int]) -> dict[str, list[float]]:
        """The scores of real training images in place of generated ones: each number, once for each subset.

        subsets, labels  indices of training images, or of the reference, class after class, and their class numbers
        """
        found: dict[str, list[float]] = {}
        for subset in subsets if distributed.is_main() else []:
            if tuple(subset) not in self.baselines:
                self.baselines[tuple(subset)] = self._baseline_of(subset, labels)
            for name, value in self.baselines[tuple(subset)].items():
                found.setdefault(name, []).append(value)
        return found

    def _baseline_of(self, subset: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
        scores = Scores()
        for group in self.groups:
            specs = [spec for spec in group.specs if spec.metric.of_sets and not group.space.saw_training]
            if specs:
                if self.of_reference:
                    inputs = self._beside_the_rest(group, subset, labels)
                else:
                    inputs = self._inputs(group, group.of_training(subset), labels)
                for spec in specs:
                    scores.add(spec, _compute(spec, inputs))
        return scores.numbers

    def _beside_the_rest(self, group: MetricGroup, subset: Sequence[int], labels: Sequence[int]) -> MetricInputs:
        real = group.real()
        rest = torch.ones(len(real), dtype=torch.bool).index_fill(0, torch.as_tensor(subset), False)
        inputs = self._inputs(group, real[list(subset)], labels)
        return replace(inputs, real=real[rest], real_labels=inputs.real_labels[rest])

    def _features(self, batches: Iterable[ImageBatch]) -> list[Tensor]:
        """Features of the images of all processes in each group's space, (n, width), in the order of their indices."""
        parts: list[list[Tensor]] = [[torch.empty(0, group.space.width)] for group in self.groups]
        for _, images in batches:
            for own, group in zip(parts, self.groups, strict=True):
                own.append(group.space(images))
        return [interleave(distributed.gather(torch.cat(own))) for own in parts]

    def _inputs(self, group: MetricGroup, features: Tensor, labels: Sequence[int]) -> MetricInputs:
        real_labels = torch.as_tensor(self.reference.labels)
        classify = group.space.classifier()
        return MetricInputs(features, torch.as_tensor(labels), group.real(), real_labels, group.training, classify)


def _compute(spec: MetricSpec, inputs: MetricInputs) -> dict[str, Any]:
    try:
        return spec.metric(inputs)
    except ValueError as error:
        raise ConfigError(f"{spec.name}: {error}") from None
