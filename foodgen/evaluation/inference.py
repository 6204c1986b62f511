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
from foodgen.core.files import MANIFEST, write_text
from foodgen.evaluation.sampling import ImageBatch, ImageFolder
from foodgen.evaluation.scoring import Scorer, Scores
from foodgen.evaluation.visualisations import VISUALISATIONS

IMAGES, GRID, METRICS, DETAILS, CONFIG = "images", "grid.png", "metrics.json", "details.json", "inference.yaml"
PARTIAL = "images.partial"  # until all are there
CONFIG_OF_FOLDER = "scoring.yaml"  # the configuration where the images were not sampled here
PER_CLASS = 8  # images of a class in the grid
FEW = 2048  # images, below which Inception's covariance matrices are not of full rank


class _Stream:
    """Batches on their way: written, a few kept to be shown, and the time that they took to make.

    batches  (indices, images)
    write    gets each batch
    keep     indices of images to keep
    finish   gets the kept images, by index, after the last batch
    """

    def __init__(
        self,
        batches: Iterator[ImageBatch],
        write: Callable[[Sequence[int], Tensor], None] | None,
        keep: Collection[int],
        finish: Callable[[Mapping[int, Tensor]], None],
    ) -> None:
        self.batches, self.write, self.keep, self.finish = batches, write, keep, finish
        self.kept: dict[int, Tensor] = {}
        self.seconds = 0.0

    def __iter__(self) -> Iterator[ImageBatch]:
        start = time.monotonic()
        for indices, images in self.batches:
            self.seconds += time.monotonic() - start
            if self.write:
                self.write(indices, images)
            self.kept |= {index: images[i].clone() for i, index in enumerate(indices) if index in self.keep}
            yield indices, images
            start = time.monotonic()
        self.finish(self.kept)


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
    send              (numbers, file of a grid, rows by class) to trackers
    visualisations    names to what saves a picture of that name, given a path
    image             index to an image of a folder, uint8 (3, size, size)
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
    send: Callable[[Mapping[str, float], Path, Sequence[Mapping[str, Any]]], None]
    config: str
    image: Callable[[int], Tensor] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    scored: list[str] = field(default_factory=list, init=False)  # names of the numbers found

    def run(self) -> dict[str, Any]:
        """Sample, write, score; what metrics.json holds. Raises UserError."""
        if distributed.is_main():
            self._prepare_folder()
        distributed.barrier()
        files = ImageFolder(self.folder / PARTIAL, self.labels, self.classes)
        if self.from_folder:
            found, details = self.score(written=self._replace_results)
        else:
            found, details = self.score(files.write, self.folder / GRID, self._keep_images)
        files.folder = self.folder / IMAGES
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
        if distributed.is_main() and self.scored:
            numbers = {name: found[name] for name in self.scored}
            self.send(numbers, self.folder / GRID, self._rows_by_class(details))
        count = found["generated_count"]
        if distributed.is_main() and "fid" in self.scored and count < FEW:
            print(f"note: FID is biased upwards for few images ({count}); compare at equal counts", file=sys.stderr)
        return found

    def score(
        self,
        write: Callable[[Sequence[int], Tensor], None] | None = None,
        grid: Path | None = None,
        written: Callable[[], None] = lambda: None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Numbers and facts; details. No more images are held than a batch and those of the grid.

        write    gets the first seed's images, batch by batch: their indices, and uint8 (batch, 3, size, size)
        grid     file for a grid of the first seed's images
        written  called when they have all been written, before they are scored
        """
        details = dict[str, Any]()
        numbers: dict[str, list[float]] = {}
        evaluation_count = self.evaluation_count or (lambda: 0)
        minutes, evaluations = 0.0, 0
        for index, seed in enumerate(self.seeds):
            before = evaluation_count()

            def finish(kept: Mapping[int, Tensor], first: bool = index == 0, before: int = before) -> None:
                nonlocal evaluations
                evaluations += evaluation_count() - before  # metrics of models evaluate the network later
                if first:
                    written()
                    self._save_grid(kept, grid)

            keep = self._shown() if index == 0 and grid else set()
            stream = _Stream(self.sample(seed), write if index == 0 else None, keep, finish)
            scores = Scores()
            if self.scorer:
                scores = self.scorer(stream, self.labels, self.baseline, self.model, seed)
            else:
                for _ in stream:
                    pass
            minutes += stream.seconds / 60
            details = details or scores.details
            for name, value in scores.numbers.items():
                numbers.setdefault(name, []).append(value)
        self.scored = list(numbers)
        found: dict[str, Any] = {name: fmean(values) for name, values in numbers.items()}
        if len(self.seeds) > 1:
            found["deviation"] = {name: stdev(values) for name, values in numbers.items()}
            found["by_seed"] = numbers
        if self.scorer and self.baseline:
            found |= self._real_baseline(self.scorer)
        if evaluations and self.labels:
            found["evaluations"] = evaluations / (len(self.labels) * len(self.seeds))
        found |= {"generated_count": len(self.labels), **self.facts, "sampling_minutes": round(minutes, 3)}
        return found, details

    def _real_baseline(self, scorer: Scorer) -> dict[str, Any]:
        by_subset = scorer.real_baseline(self.baseline, sorted(self.labels))
        found: dict[str, Any] = {"real_baseline": {name: fmean(values) for name, values in by_subset.items()}}
        found["real_baseline_by_subset"] = by_subset
        if by_subset and scorer.of_reference:
            found["real_baseline_reference_count"] = len(scorer.reference) - len(self.labels)
        return found

    def _shown(self) -> set[int]:
        """Indices of the first images of each class."""
        seen = Counter[int]()
        shown = set()
        for index, label in enumerate(self.labels):
            if seen[label] < PER_CLASS:
                shown.add(index)
            seen[label] += 1
        return shown

    def _keep_images(self) -> None:
        """Let the images that all processes have written take the place of an earlier inference's."""
        distributed.barrier()
        self._replace_results()
        if distributed.is_main() and (self.folder / PARTIAL).is_dir():
            (self.folder / PARTIAL).replace(self.folder / IMAGES)

    def _replace_results(self) -> None:
        """Remove what an earlier inference has left, if it may be replaced; from here on the folder is this one's."""
        if not distributed.is_main():
            return
        if not self.from_folder:
            shutil.rmtree(self.folder / IMAGES, ignore_errors=True)
        earlier = [GRID, METRICS, DETAILS, *(f"{name}.{kind}" for name in VISUALISATIONS for kind in ("png", "npz"))]
        for path in [*(self.folder / name for name in earlier), *self.folder.glob("*nearest_pairs.png")]:
            path.unlink(missing_ok=True)
        write_text(self.folder / self.config_name, self.config)

    @property
    def config_name(self) -> str:
        """The file of the folder that says how its contents were made, and by what they are known as ours."""
        return CONFIG_OF_FOLDER if self.from_folder else CONFIG

    def _save_grid(self, own: Mapping[int, Tensor], path: Path | None) -> None:
        """Write a grid of all processes' images, by index."""
        if path is None:
            return
        images = {index: image for part in distributed.gather(dict(own)) for index, image in part.items()}
        if distributed.is_main() and images:
            order = sorted(images)
            self.save_grid(torch.stack([images[i] for i in order]), [self.labels[i] for i in order], path)

    def _rows_by_class(self, details: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A row for each class that has images, with what is known of it."""
        ending = "_by_class"
        columns = {name.removesuffix(ending): own for name, own in details.items() if name.endswith(ending)}
        counts = Counter(self.labels)
        return [
            {"class": self.classes[label], "images": counts[label]}
            | {name: values.get(label) for name, values in columns.items()}
            for label in sorted(counts)
        ]

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
        if (self.folder / MANIFEST).exists():
            raise ConfigError(f"inference.output_dir: {self.folder} holds a model; choose another folder")
        if self.from_folder and (self.folder / CONFIG).exists():
            raise ConfigError(
                f"{self.folder} holds sampled images and their scores; choose another inference.output_dir"
            )
        filled = images.exists() and (not images.is_dir() or any(images.iterdir()))
        there = [images] if filled and not self.from_folder else []
        there += [path for path in (self.folder / METRICS, self.folder / GRID) if path.exists()]
        if there and not (self.folder / self.config_name).is_file():
            raise ConfigError(f"{there[0]} was not made by inference.py and stays; choose another inference.output_dir")
        if there and not self.overwrite:
            state = "holds images already" if there[0] == images else "exists already"
            raise ConfigError(
                f"{there[0]} {state}: add inference.overwrite=true to replace it, or another inference.output_dir"
            )
        shutil.rmtree(self.folder / PARTIAL, ignore_errors=True)  # of an interrupted inference
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / PARTIAL).mkdir()
            if self.from_folder or not self.labels:
                (self.folder / PARTIAL).rmdir()
        except OSError as error:
            raise DataError(f"inference.output_dir: {self.folder} cannot be written ({error})") from None
