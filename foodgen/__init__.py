"""foodgen trains, samples and scores image generators on class folders of small photos."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foodgen.builders.pipeline import Pipeline


def load(path: str | Path, device: str = "auto", batch_size: int = 64) -> "Pipeline":
    """A trained model to sample from: `foodgen.load("checkpoints/gan").sample(["pizza"], seed=1)`.

    path        a run's folder, a checkpoint, or an exported folder
    device      "auto", "cpu", "cuda", "mps", ...
    batch_size  images sampled at a time

    Raises foodgen.core.errors.UserError.
    """
    from foodgen.builders import pipeline

    return pipeline.load(path, device, batch_size)
