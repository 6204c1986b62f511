"""One inference: images, sampled or from a folder, into class folders, with a grid, scores and the configuration."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import Tensor

from foodgen.core import distributed
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.files import write_text
from foodgen.evaluation.sampling import save_images
from foodgen.evaluation.scoring import Scorer, Scores

IMAGES, GRID, METRICS, DETAILS, CONFIG = "images", "grid.png", "metrics.json", "details.json", "inference.yaml"
CONFIG_OF_FOLDER = "scoring.yaml"  # the configuration where the images were not sampled here
FEW = 2048  # images, below which Inception's covariance matrices are not of full rank


@dataclass
class Inference:
    """Images of one seed or several, and their scores.

    folder            gets images/<class>/, grid.png, metrics.json and inference.yaml
    overwrite         whether images of an earlier inference may be replaced
    sample            seed to images, uint8 (n, 3, size, size)
    from_folder       whether they were in a folder before
    labels            class numbers of the images
    classes           names
    seeds             the first one's images are kept
    evaluate          seed to metrics of the model on real images
    baseline          subsets of training images, as indices: scored too, and distances are computed to them
    save_grid         (images, labels, path)
    save_pairs        (images, nearest pairs, path) to a picture of generated images beside training images
    evaluation_count  how many images the network has processed; helper networks are not counted
    visualisations    names to what saves a picture of that name, given a path
    facts             what else metrics.json says
    """

    folder: Path
    overwrite: bool
    sample: Callable[[int], Tensor]
    from_folder: bool
    labels: Sequence[int]
    classes: Sequence[str]
    seeds: Sequence[int]
    scorer: Scorer | None
    evaluate: Callable[[int], dict[str, float]] | None
    baseline: Sequence[Sequence[int]]
    save_grid: Callable[[Tensor, Sequence[int], Path], None]
    save_pairs: Callable[[Tensor, Sequence[Sequence[float]], Path], None]
    evaluation_count: Callable[[], int] | None
    visualisations: Mapping[str, Callable[[Path], None]]
    config: str
    facts: dict[str, Any] = field(default_factory=dict)
    scored: list[str] = field(default_factory=list, init=False)  # names of the numbers found

    def run(self) -> dict[str, Any]:
        """Sample, write, score; what metrics.json holds. Raises UserError."""
        if distributed.is_main():
            self._prepare_folder()
        distributed.barrier()
        images, found, details = self.score(self._save)
        # write
        if distributed.is_main():
            write_text(self.folder / METRICS, json.dumps(found, indent=1) + "\n")
            if details:
                write_text(self.folder / DETAILS, json.dumps(self._by_class_name(details)) + "\n")
            for name, pairs in details.items():
                if name.endswith("nearest_pairs"):
                    self.save_pairs(images, pairs, self.folder / f"{name.replace('/', '-')}.png")
        for name, save in self.visualisations.items():
            save(self.folder / name)
        if distributed.is_main() and "fid" in self.scored and len(images) < FEW:
            print(
                f"note: FID is biased upwards for few images ({len(images)}); compare at equal counts", file=sys.stderr
            )
        return found

    def score(self, keep: Callable[[Tensor], None]) -> tuple[Tensor, dict[str, Any], dict[str, Any]]:
        """The first seed's images, which `keep` gets before they are scored; numbers and facts; details."""
        kept, details = Tensor(), dict[str, Any]()
        numbers: dict[str, list[float]] = {}
        count = self.evaluation_count or (lambda: 0)
        minutes, evaluations = 0.0, 0
        for index, seed in enumerate(self.seeds):
            # sample
            start, before = time.monotonic(), count()
            images = self.sample(seed)
            minutes += (time.monotonic() - start) / 60
            evaluations += count() - before  # metrics of models evaluate the network as well
            if index == 0:
                kept = images
                keep(images)
            # score
            scores = self.scorer(images, self.labels, self.baseline) if self.scorer and self.labels else Scores()
            details = details or scores.details
            of_model = self.evaluate(seed) if self.evaluate else {}
            for name, value in (scores.numbers | of_model).items():
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
        if evaluations and len(kept):
            found["evaluations"] = evaluations / (len(kept) * len(self.seeds))
        found |= {"generated_count": len(kept), **self.facts, "sampling_minutes": round(minutes, 3)}
        return kept, found, details

    def _save(self, images: Tensor) -> None:
        if not distributed.is_main() or self.from_folder:
            return
        shutil.rmtree(self.folder / IMAGES, ignore_errors=True)  # checked by _prepare_folder
        save_images(images, self.labels, self.classes, self.folder / IMAGES)
        if self.labels:
            self.save_grid(images, self.labels, self.folder / GRID)

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
        if self.from_folder and (self.folder / METRICS).exists() and not self.overwrite:
            raise ConfigError(
                f"{self.folder / METRICS} exists already: add inference.overwrite=true, or another inference.output_dir"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / (CONFIG_OF_FOLDER if self.from_folder else CONFIG), self.config)
        except OSError as error:
            raise DataError(f"inference.output_dir: {self.folder} cannot be written ({error})") from None
