"""Scoring images against real ones: every metric in its feature space, and the floor that real photos set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from foodgen.core import distributed
from foodgen.core.errors import ConfigError
from foodgen.core.randomness import seed_of
from foodgen.core.types import Evidence, FeatureSpace, Images, Metric
from foodgen.engine.evaluator import interleave, warn_of_collapse


@dataclass
class Judge:
    """A metric in a feature space; `name` is how it is asked for: "fid", or "classifier/fid" in another space."""

    name: str
    space: str
    metric: Metric
    of_models = False

    @property
    def lower_is_better(self) -> bool:
        return self.metric.lower_is_better

    def key(self, name: str) -> str:
        """What one of the metric's numbers is called."""
        return f"{self.space}/{name}" if "/" in self.name else name


@dataclass
class Panel:
    """All judges of one feature space.

    space     images to features
    judges    its metrics
    real      computes (and keeps) the features of the reference
    training  the training images' features, some at a time
    draw      indices of training images to their features
    """

    space: FeatureSpace
    judges: Sequence[Judge]
    real: Callable[[], Tensor]
    training: Callable[[], Iterator[Tensor]]
    draw: Callable[[Sequence[int]], Tensor]

    @property
    def saw_training(self) -> bool:
        """Whether the features were learnt on the training images, which then make no floor."""
        return getattr(self.space, "saw_training", False)


@dataclass
class Scores:
    """Numbers by name, and what is too much for a row: tables by class, nearest pairs."""

    numbers: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, judge: Judge, found: Mapping[str, Any]) -> None:
        """Take in what a metric says."""
        for name, value in found.items():
            target = self.numbers if isinstance(value, float | int) else self.details
            target[judge.key(name)] = value


def disjoint_draws(images: Images, labels: Sequence[int], draws: int) -> list[list[int]]:
    """Indices of as many images of each class as `labels` have, up to `draws` times, none of them twice."""
    wanted = np.bincount(labels, minlength=len(images.classes))
    have = np.asarray(images.labels)
    mixed = [
        np.random.default_rng(seed_of("draw", label)).permutation(np.flatnonzero(have == label))
        for label in range(len(images.classes))
    ]
    possible = min((len(own) // count for own, count in zip(mixed, wanted, strict=True) if count), default=0)
    return [
        [int(i) for own, count in zip(mixed, wanted, strict=True) for i in own[draw * count : (draw + 1) * count]]
        for draw in range(min(draws, possible))
    ]


class Scorer:
    """Scores generated images against a reference set.

    panels      one for each feature space; variety is looked at in the first
    reference   real images
    spread      (features, labels, real features, real labels) to each class's share of the real variety
    batch_size  images at a time
    precision   that Inception's features are computed in
    """

    def __init__(
        self,
        panels: Sequence[Panel],
        reference: Images,
        spread: Callable[[Tensor, Sequence[int], Tensor, Sequence[int]], Mapping[int, float]],
        batch_size: int,
        precision: str = "fp32",
    ) -> None:
        self.panels, self.reference, self.spread, self.batch_size = panels, reference, spread, batch_size
        self.precision = precision
        self.floors: dict[tuple[int, ...], dict[str, float]] = {}  # of draws seen before

    def __call__(self, images: Tensor, labels: Sequence[int], draws: Sequence[Sequence[int]] = ()) -> Scores:
        """Every metric's numbers and the features' spread; on processes other than the first, nothing.

        images  uint8 (n, 3, size, size)
        draws   indices of training images, that distances are taken to as well: fid_to_training is their mean

        Warns of classes that have collapsed.
        """
        scores = Scores()
        for number, panel in enumerate(self.panels):
            generated = self._features(panel.space, images)
            if not distributed.is_main():
                continue
            evidence = self._evidence(panel, generated, labels)
            for judge in panel.judges:
                scores.add(judge, _judged(judge, evidence))
                if judge.metric.to_training and draws and not panel.saw_training:
                    scores.numbers |= self._to_training(panel, judge, evidence, draws)
            if number == 0:
                shares = self.spread(generated, labels, evidence.real, self.reference.labels)
                named = {self.reference.classes[label]: share for label, share in shares.items()}
                warn_of_collapse("features", named)
                scores.numbers |= {"feature_spread": sum(shares.values()) / len(shares)} if shares else {}
        return scores

    def identity(self) -> list[str]:
        """What its numbers depend on beside the images scored: the spaces, and the reference as far as it is files."""
        listing = getattr(self.reference, "listing", None)
        return [panel.space.identity for panel in self.panels] + ([listing.digest()] if listing else [])

    def _to_training(
        self, panel: Panel, judge: Judge, evidence: Evidence, draws: Sequence[Sequence[int]]
    ) -> dict[str, float]:
        labels = evidence.labels.sort().values
        others = [replace(evidence, real=panel.draw(draw), real_labels=labels) for draw in draws]
        name = judge.metric.name
        return {f"{judge.key(name)}_to_training": fmean(_judged(judge, other)[name] for other in others)}

    def floor(self, draws: Sequence[Sequence[int]], labels: Sequence[int]) -> dict[str, list[float]]:
        """What real training images score in place of generated ones: each number, once for each draw of them.

        draws, labels  indices of training images, class after class, and their class numbers
        """
        found: dict[str, list[float]] = {}
        for draw in draws if distributed.is_main() else []:
            if tuple(draw) not in self.floors:
                self.floors[tuple(draw)] = self._of_draw(draw, labels)
            for name, value in self.floors[tuple(draw)].items():
                found.setdefault(name, []).append(value)
        return found

    def _of_draw(self, draw: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
        scores = Scores()
        for panel in self.panels:
            judges = [judge for judge in panel.judges if judge.metric.of_sets and not panel.saw_training]
            if judges:
                evidence = self._evidence(panel, panel.draw(draw), labels)
                for judge in judges:
                    scores.add(judge, _judged(judge, evidence))
        return scores.numbers

    def _features(self, space: FeatureSpace, images: Tensor) -> Tensor:
        mine = images[distributed.rank() :: distributed.world_size()]
        starts = range(0, len(mine), self.batch_size)
        bar = tqdm(starts, desc="scoring", unit="batch", disable=None, leave=False)
        parts = [space(mine[start : start + self.batch_size]) for start in bar]
        return interleave(distributed.gather(torch.cat(parts) if parts else torch.empty(0, space.width)))

    def _evidence(self, panel: Panel, generated: Tensor, labels: Sequence[int]) -> Evidence:
        real_labels = torch.as_tensor(self.reference.labels)
        classify = getattr(panel.space, "classify", None)
        return Evidence(generated, torch.as_tensor(labels), panel.real(), real_labels, panel.training, classify)


def _judged(judge: Judge, evidence: Evidence) -> dict[str, Any]:
    try:
        return judge.metric(evidence)
    except ValueError as error:
        raise ConfigError(f"{judge.name}: {error}") from None
