"""Images of a model into class folders, or of a folder, with a grid, their scores and their configuration."""

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
from foodgen.engine.checkpoint import replace_text
from foodgen.engine.evaluator import save_images
from foodgen.engine.scoring import Scorer, Scores

IMAGES, GRID, METRICS, DETAILS, CONFIG = "images", "grid.png", "metrics.json", "details.json", "inference.yaml"
GIVEN = "scoring.yaml"  # the configuration beside the scores of a folder that was not drawn here
FEW = 2048  # images, under which Inception's covariances are not of full rank


@dataclass
class Inference:
    """One drawing of images, or several with other seeds.

    folder     gets images/<class>/, grid.png, metrics.json and inference.yaml
    overwrite  whether the images of an earlier drawing may go
    draw       seed to images, uint8 (n, 3, size, size); `given` if they lay in a folder before
    labels     class numbers of the images to draw
    classes    names
    seeds      of the drawings; the first one's images are kept
    measure    seed to what the model makes of real images
    floor      draws of training images, as indices: scored as well, and distances taken to them
    paint      (images, labels, path) to a grid's file
    pair       (images, nearest pairs, path) to a picture of generated images beside training images
    passes     tells how many images have gone through the network, if one draws; helpers' are not counted
    exhibits   names to what paints a picture of that name, given a path
    facts      what metrics.json says beside the scores
    """

    folder: Path
    overwrite: bool
    draw: Callable[[int], Tensor]
    given: bool
    labels: Sequence[int]
    classes: Sequence[str]
    seeds: Sequence[int]
    scorer: Scorer | None
    measure: Callable[[int], dict[str, float]] | None
    floor: Sequence[Sequence[int]]
    paint: Callable[[Tensor, Sequence[int], Path], None]
    pair: Callable[[Tensor, Sequence[Sequence[float]], Path], None]
    passes: Callable[[], int] | None
    exhibits: Mapping[str, Callable[[Path], None]]
    config: str
    facts: dict[str, Any] = field(default_factory=dict)
    scored: list[str] = field(default_factory=list, init=False)  # names of the numbers found

    def run(self) -> dict[str, Any]:
        """Draw, write, score; what metrics.json holds. Raises UserError."""
        if distributed.is_main():
            self._claim()
        distributed.barrier()
        images, found, details = self.score(self._save)
        if distributed.is_main():
            replace_text(self.folder / METRICS, json.dumps(found, indent=1) + "\n")
            if details:
                replace_text(self.folder / DETAILS, json.dumps(self._named(details)) + "\n")
            for name, pairs in details.items():
                if name.endswith("nearest_pairs"):
                    self.pair(images, pairs, self.folder / f"{name.replace('/', '-')}.png")
        for name, paint in self.exhibits.items():
            paint(self.folder / name)
        if distributed.is_main() and "fid" in self.scored and len(images) < FEW:
            print(
                f"note: FID is biased upwards for few images ({len(images)}); compare at equal counts", file=sys.stderr
            )
        return found

    def score(self, keep: Callable[[Tensor], None]) -> tuple[Tensor, dict[str, Any], dict[str, Any]]:
        """The first seed's images, which `keep` is called with before they are scored; numbers and facts; details."""
        kept, details = Tensor(), dict[str, Any]()
        numbers: dict[str, list[float]] = {}
        count = self.passes or (lambda: 0)
        minutes, passes = 0.0, 0
        for place, seed in enumerate(self.seeds):
            began, before = time.monotonic(), count()
            images = self.draw(seed)
            minutes += (time.monotonic() - began) / 60
            passes += count() - before  # measures look at images as well
            scores = Scores()
            if place == 0:
                kept = images
                keep(images)
            if self.scorer and self.labels:
                scores = self.scorer(images, self.labels, self.floor)
            details = details or scores.details
            measured = self.measure(seed) if self.measure else {}
            for name, value in (scores.numbers | measured).items():
                numbers.setdefault(name, []).append(value)
        self.scored = list(numbers)
        found: dict[str, Any] = {name: fmean(values) for name, values in numbers.items()}
        if len(self.seeds) > 1:
            found["deviation"] = {name: stdev(values) for name, values in numbers.items()}
            found["by_seed"] = numbers
        if self.scorer and self.floor:
            floors = self.scorer.floor(self.floor, sorted(self.labels))
            found["floor"] = {name: fmean(values) for name, values in floors.items()}
            found["floor_by_draw"] = floors
        if passes and len(kept):
            found["evaluations"] = passes / (len(kept) * len(self.seeds))
        found |= {"generated_count": len(kept), **self.facts, "drawing_minutes": round(minutes, 3)}
        return kept, found, details

    def _save(self, images: Tensor) -> None:
        if not distributed.is_main() or self.given:
            return
        shutil.rmtree(self.folder / IMAGES, ignore_errors=True)  # allowed by _claim
        save_images(images, self.labels, self.classes, self.folder / IMAGES)
        if self.labels:
            self.paint(images, self.labels, self.folder / GRID)

    def _named(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """Details by class under the classes' names."""
        return {
            name: {self.classes[label]: value for label, value in detail.items()}
            if isinstance(detail, dict)
            else detail
            for name, detail in details.items()
        }

    def _claim(self) -> None:
        """Make the folder ready: no images of an earlier drawing may mix with these."""
        images = self.folder / IMAGES
        if self.given and (self.folder / CONFIG).exists():
            raise ConfigError(f"{self.folder} holds a drawing and its scores; choose another inference.output_dir")
        if not self.given and images.exists() and (not images.is_dir() or any(images.iterdir())):
            if not self.overwrite:
                raise ConfigError(
                    f"{images} holds images already: add inference.overwrite=true to replace them, "
                    f"or another inference.output_dir"
                )
            if not (self.folder / CONFIG).is_file():
                raise ConfigError(
                    f"{images} was not made by inference.py and stays; choose another inference.output_dir"
                )
        if self.given and (self.folder / METRICS).exists() and not self.overwrite:
            raise ConfigError(
                f"{self.folder / METRICS} exists already: add inference.overwrite=true, or another inference.output_dir"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_text(self.folder / (GIVEN if self.given else CONFIG), self.config)
        except OSError as error:
            raise DataError(f"inference.output_dir: {self.folder} cannot be written ({error})") from None
