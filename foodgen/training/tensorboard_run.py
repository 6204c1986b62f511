"""TensorBoard's event files, beside metrics.jsonl."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foodgen.core.errors import ConfigError
from foodgen.core.registry import trackers
from foodgen.core.types import TrackerBackend


@trackers.add_to_registry(name="tensorboard")
class TensorBoardRun(TrackerBackend):
    """Numbers and images of a run in <folder>/tensorboard.

    folder  of the run
    step    that the run goes on from: what was written of later steps is hidden; None where nothing is trained

    Raises ConfigError if the package is missing.
    """

    @classmethod
    def check(cls) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise ConfigError("tensorboard needs the package of this name: pip install tensorboard") from None

    def __init__(self, folder: Path, step: int | None = 0) -> None:
        self.check()
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=None if step is None else step + 1)

    def log(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if isinstance(value, int | float) and name != "step":
                self.writer.add_scalar(name, value, row["step"])

    def image(self, step: int, name: str, path: Path) -> None:
        with Image.open(path) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self, status: int) -> None:
        self.writer.close()
