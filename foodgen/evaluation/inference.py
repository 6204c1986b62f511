"""One inference: images, sampled or from a folder, into class folders, with a grid, scores and the configuration."""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core import distributed
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.files import write_text
from foodgen.evaluation.sampling import ImageBatch, ImageFolder
from foodgen.evaluation.scoring import Scorer, Scores

IMAGES, GRID, METRICS, DETAILS, CONFIG = "images", "grid.png", "metrics.json", "details.json", "inference.yaml"
CONFIG_OF_FOLDER = "scoring.yaml"  # the configuration where the images were not sampled here
PER_CLASS = 8  # images of a class in the grid
FEW = 2048  # images, below which Inception's covariance matrices are not of full rank


class _Stream:
    """Batches on their way: written, a few kept to be shown, and the time that they took to make.

    batches  (indices, images)
    write    gets each batch
    expected   indices of images to keep
    count    how many images the network has processed; asked once the last batch has been made
    """

    def __init__(
        self,
        batches: Iterator[ImageBatch],
        write: Callable[[Sequence[int], Tensor], None] | None,
        expected: Collection[int],
        count: Callable[[], int],
    ) -> None:
        self.batches, self.write, self.expected, self.count = batches, write, expected, count
        self.shown: dict[int, Tensor] = {}
        self.seconds, self.counted = 0.0, 0

    def __iter__(self) -> Iterator[ImageBatch]:
        start = time.monotonic()
        for indices, images in self.batches:
            self.seconds += time.monotonic() - start
            if self.write:
                self.write(indices, images)
            self.shown |= {index: images[i].clone() for i, index in enumerate(indices) if index in self.expected}
            yield indices, images
            start = time.monotonic()
        self.counted = self.count()


@dataclass
class Inference:
    """Images of one seed or several, and their scores.

    folder            gets images/<class>/, grid.png, metrics.json and inference.yaml
    overwrite         whether images of an earlier inference may be replaced
    sample            seed to this process's images, batch by batch
    from_folder       whether they were in a folder before
    labels            class numbers of the images of all processes
    classes           names
    seeds             the first one's images are kept
    model             for metrics of models; None for a folder's images
    baseline          subsets of training images, as indices: scored too, and distances are computed to them
    save_grid         (images, labels, path)
    save_pairs        (index to a generated image, nearest pairs, path) to a picture of them beside training images
    evaluation_count  how many images the network has processed; helper networks are not counted
    visualisations    names to what saves a picture of that name, given a path
    facts             what else metrics.json says
    """

    folder: Path
    overwrite: bool
    sample: Callable[[int], Iterator[ImageBatch]]
    from_folder: bool
    labels: Sequence[int]
    classes: Sequence[str]
    seeds: Sequence[int]
    scorer: Scorer | None
    model: nn.Module | None
    baseline: Sequence[Sequence[int]]
    save_grid: Callable[[Tensor, Sequence[int], Path], None]
    save_pairs: Callable[[Callable[[int], Tensor], Sequence[Sequence[float]], Path], None]
    evaluation_count: Callable[[], int] | None
    visualisations: Mapping[str, Callable[[Path], None]]
    config: str
    image: Callable[[int], Tensor] | None = None  # index to an image of a folder
    facts: dict[str, Any] = field(default_factory=dict)
    scored: list[str] = field(default_factory=list, init=False)  # names of the numbers found

    def run(self) -> dict[str, Any]:
        """Sample, write, score; what metrics.json holds. Raises UserError."""
        if distributed.is_main():
            self._prepare_folder()
        distributed.barrier()
        files = ImageFolder(self.folder / IMAGES, self.labels, self.classes)
        found, details = self.score(
            files.write if not self.from_folder else None, self.folder / GRID if not self.from_folder else None
        )
        distributed.barrier()  # all processes have written their images
        # write
        if distributed.is_main():
            write_text(self.folder / METRICS, json.dumps(found, indent=1) + "\n")
            if details:
                write_text(self.folder / DETAILS, json.dumps(self._by_class_name(details)) + "\n")
            for name, pairs in details.items():
                if name.endswith("nearest_pairs"):
                    self.save_pairs(self.image or files.read, pairs, self.folder / f"{name.replace('/', '-')}.png")
        for name, save in self.visualisations.items():
            save(self.folder / name)
        count = found["generated_count"]
        if distributed.is_main() and "fid" in self.scored and count < FEW:
            print(f"note: FID is biased upwards for few images ({count}); compare at equal counts", file=sys.stderr)
        return found

    def score(
        self, write: Callable[[Sequence[int], Tensor], None] | None = None, grid: Path | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Numbers and facts; details. No more images are held than a batch and those of the grid.

        write  gets the first seed's images, batch by batch: their indices, and uint8 (batch, 3, size, size)
        grid   file for a grid of the first seed's images
        """
        details = dict[str, Any]()
        numbers: dict[str, list[float]] = {}
        evaluation_count = self.evaluation_count or (lambda: 0)
        minutes, evaluations = 0.0, 0
        for index, seed in enumerate(self.seeds):
            first, before = index == 0, evaluation_count()
            shown = self._shown() if first and grid else set()
            stream = _Stream(self.sample(seed), write if first else None, shown, evaluation_count)
            scores = Scores()
            if self.scorer:
                scores = self.scorer(stream, self.labels, self.baseline, self.model, seed)
            else:
                for _ in stream:
                    pass
            minutes += stream.seconds / 60
            evaluations += stream.counted - before  # metrics of models evaluate the network as well, but later
            if first and grid:
                self._save_grid(stream.shown, grid)
            details = details or scores.details
            for name, value in scores.numbers.items():
                numbers.setdefault(name, []).append(value)
        self.scored = list(numbers)
        found: dict[str, Any] = {name: fmean(values) for name, values in numbers.items()}
        if len(self.seeds) > 1:
            found["deviation"] = {name: stdev(values) for name, values in numbers.items()}
            found["by_seed"] = numbers
        if self.scorer and self.baseline:
            baselines = self.scorer.real_baseline(self.baseline, sorted(self.labels))
            found["real_baseline"] = {name: fmean(values) for name, values in baselines.items()}
            found["real_baseline_by_subset"] = baselines
        if evaluations and self.labels:
            found["evaluations"] = evaluations / (len(self.labels) * len(self.seeds))
        found |= {"generated_count": len(self.labels), **self.facts, "sampling_minutes": round(minutes, 3)}
        return found, details

    def _shown(self) -> set[int]:
        """Indices of the first images of each class."""
        seen = Counter[int]()
        shown = set()
        for index, label in enumerate(self.labels):
            if seen[label] < PER_CLASS:
                shown.add(index)
            seen[label] += 1
        return shown

    def _save_grid(self, own: Mapping[int, Tensor], path: Path) -> None:
        """Write a grid of all processes' images, by index."""
        images = {index: image for part in distributed.gather(dict(own)) for index, image in part.items()}
        if distributed.is_main() and images:
            order = sorted(images)
            self.save_grid(torch.stack([images[i] for i in order]), [self.labels[i] for i in order], path)

    def _by_class_name(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """Details by class under the classes' names."""
        return {
            name: {self.classes[label]: value for label, value in detail.items()}
            if isinstance(detail, dict)
            else detail
            for name, detail in details.items()
        }

    def _prepare_folder(self) -> None:
        """Create the folder. Raises ConfigError rather than mix or overwrite images or scores."""
        images = self.folder / IMAGES
        if self.from_folder and (self.folder / CONFIG).exists():
            raise ConfigError(
                f"{self.folder} holds sampled images and their scores; choose another inference.output_dir"
            )
        if not self.from_folder and images.exists() and (not images.is_dir() or any(images.iterdir())):
            if not self.overwrite:
                raise ConfigError(
                    f"{images} holds images already: add inference.overwrite=true to replace them, "
                    f"or another inference.output_dir"
                )
            if not (self.folder / CONFIG).is_file():
                raise ConfigError(
                    f"{images} was not made by inference.py and stays; choose another inference.output_dir"
                )
        if not self.from_folder:
            shutil.rmtree(images, ignore_errors=True)
        if self.from_folder and (self.folder / METRICS).exists() and not self.overwrite:
            raise ConfigError(
                f"{self.folder / METRICS} exists already: add inference.overwrite=true, or another inference.output_dir"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / (CONFIG_OF_FOLDER if self.from_folder else CONFIG), self.config)
        except OSError as error:
            raise DataError(f"inference.output_dir: {self.folder} cannot be written ({error})") from None
