"""Images from a trained model into class folders, with a grid, their scores and the configuration beside them."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from foodgen.core import distributed
from foodgen.core.errors import ConfigError, DataError
from foodgen.engine.checkpoint import replace_text
from foodgen.engine.evaluator import Drawer, Measurer, Scorer, save_images

IMAGES, GRID, METRICS, CONFIG = "images", "grid.png", "metrics.json", "inference.yaml"
FEW = 2048  # images, under which Inception's covariances are not of full rank


@dataclass
class Inference:
    """One drawing of images.

    folder     gets images/<class>/, grid.png, metrics.json and inference.yaml
    overwrite  whether the images of an earlier drawing may go
    model      to draw with
    labels     class numbers of the images to draw
    classes    names
    paint      (images, labels, path) to a grid's file
    facts      what metrics.json says beside the scores
    """

    folder: Path
    overwrite: bool
    model: nn.Module
    labels: Sequence[int]
    classes: Sequence[str]
    seed: int
    drawer: Drawer
    scorer: Scorer | None
    measurer: Measurer | None
    paint: Callable[[Tensor, Sequence[int], Path], None]
    config: str
    facts: dict[str, Any]

    def run(self) -> dict[str, Any]:
        """Draw, write, score; what metrics.json holds. Raises UserError."""
        if distributed.is_main():
            self._claim()
        distributed.barrier()
        began = time.monotonic()
        images = self.drawer(self.model, self.labels, self.seed)
        minutes = (time.monotonic() - began) / 60
        if distributed.is_main():
            shutil.rmtree(self.folder / IMAGES, ignore_errors=True)  # allowed by _claim
            save_images(images, self.labels, self.classes, self.folder / IMAGES)
            if self.labels:
                self.paint(images, self.labels, self.folder / GRID)
        scores = self.scorer(images, self.labels) if self.scorer and self.labels else {}
        measured = self.measurer(self.model, self.seed) if self.measurer else {}
        found = {
            **scores,
            **measured,
            "generated_count": len(images),
            **self.facts,
            "drawing_minutes": round(minutes, 3),
        }
        if distributed.is_main():
            replace_text(self.folder / METRICS, json.dumps(found, indent=1) + "\n")
        if scores and len(images) < FEW:
            print(
                f"note: FID is biased upwards for few images ({len(images)}); compare at equal counts", file=sys.stderr
            )
        return found

    def _claim(self) -> None:
        """Make the folder ready: no images of an earlier drawing may mix with these."""
        images = self.folder / IMAGES
        if images.exists() and (not images.is_dir() or any(images.iterdir())):
            if not self.overwrite:
                raise ConfigError(
                    f"{images} holds images already: add inference.overwrite=true to replace them, "
                    f"or another inference.output_dir"
                )
            if not (self.folder / CONFIG).is_file():
                raise ConfigError(
                    f"{images} was not made by inference.py and stays; choose another inference.output_dir"
                )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_text(self.folder / CONFIG, self.config)
        except OSError as error:
            raise DataError(f"inference.output_dir: {self.folder} cannot be written ({error})") from None
