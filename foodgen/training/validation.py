"""Validation while training: a grid of the averaged model's images, their scores, a warning of collapse."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from foodgen.core import distributed
from foodgen.core.settings import Train
from foodgen.evaluation.sampling import (
    SamplingLoop,
    balanced_labels,
    check_proportions,
    matching_labels,
    warn_of_collapse,
)
from foodgen.evaluation.scoring import MetricSpec, Scorer
from foodgen.training.tracker import Tracker

log = logging.getLogger("foodgen")


class Validation:
    """Samples from a model, saves a grid, scores.

    settings    the configuration's `train` section
    batch_size  images a step
    classes     their number
    folder      of the run
    seed        of the noise
    tracker     which rows and grids go to
    sampling, scorer, first, save_grid, diversity  as Session's

    Raises ConfigError if as many images as `val_count` cannot have the reference's shares of classes.
    """

    def __init__(
        self,
        settings: Train,
        classes: int,
        folder: Path,
        seed: int,
        tracker: Tracker,
        sampling: SamplingLoop,
        scorer: Scorer | None,
        first: MetricSpec | None,
        save_grid: Callable[[Tensor, Sequence[int], Path], None],
        diversity: Callable[[Tensor, Sequence[int]], Mapping[str, float]],
    ) -> None:
        self.folder, self.seed, self.tracker = folder, seed, tracker
        self.sampling, self.scorer, self.first = sampling, scorer, first
        self.save_grid, self.diversity = save_grid, diversity
        self.grid_labels = balanced_labels(settings.grid_count, range(classes))
        self.labels: list[int] = []
        if scorer and scorer.groups:
            self.labels = matching_labels(settings.val_count, scorer.reference)
            check_proportions(self.labels, scorer.reference, "train.val_count")

    def __call__(self, step: int, images_seen: int, model: nn.Module) -> float | None:
        """Validate the averaged model of a step: the first metric, lower is better; None if there are no metrics."""
        distributed.copy_from_main(model)  # batch norm has seen other images on other processes
        if self.sampling.generates:
            images = self.sampling(model, self.grid_labels, self.seed)
            if distributed.is_main():
                self._grid(step, images)
                warn_of_collapse("pixels", self.diversity(images, self.grid_labels))
        if self.scorer is None or self.first is None:
            return None
        batches = self.sampling.batches(model, self.labels, self.seed)
        scores = self.scorer(batches, self.labels, model=model, seed=self.seed).numbers
        scores = distributed.gather(scores)[0]
        row = {f"val/{name}": value for name, value in scores.items()}
        about = {"val/count": len(self.labels), "val/precision": self.scorer.precision} if self.scorer.groups else {}
        self.tracker.write({"step": step, "images": images_seen, **about, **row})
        self.tracker.say(f"step {step}: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
        return scores[self.first.name] if self.first.lower_is_better else -scores[self.first.name]

    def _grid(self, step: int, images: Tensor) -> None:
        path = self.folder / "grids" / f"step-{step:08d}.png"
        try:
            self.save_grid(images, self.grid_labels, path)
        except OSError as error:
            log.warning("%s could not be written (%s); training goes on", path, error)
            return
        self.tracker.image(step, "grid", path)
