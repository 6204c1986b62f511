"""How well denoisers of different paths restore the same held-out images at the same noise levels.

python3 -m benchmarks.denoising_error exp.config_path=configs/benchmarks/denoising_error.yaml "runs=[runs/edm]"

Every process is x = alpha clean + sigma noise, so that equal sigma / alpha is the same task, whatever the network
predicts.
Prints a line of JSON for each run: the bits per dimension, their standard error, and the mean squared error of the
predicted clean image, on values in [-1, 1], by noise level.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from foodgen.builders.models import load_pretrained
from foodgen.core import command_line, config
from foodgen.core.errors import UserError
from foodgen.core.networks import Denoiser
from foodgen.core.randomness import isolated_randomness, normal_like
from foodgen.core.settings import STRICT, OnlyPath
from foodgen.data.codecs import RGB
from foodgen.data.folder import Folder
from foodgen.metrics.of_models import BitsPerDimension

LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH, EVERY = 101, 2  # images at a time; every second one is looked at


@dataclass(config=STRICT)
class Settings:
    """What this script reads: class folders of held-out images; runs, checkpoints or exported folders."""

    exp: OnlyPath
    images: str
    image_size: int
    runs: list[str]


@torch.no_grad()
def measure(run: str, images: Folder) -> dict[str, object]:
    """What is printed of one run."""
    model = load_pretrained(run, images.classes, torch.device("cpu"))
    if not isinstance(model, Denoiser):
        raise UserError(f"runs: {run} holds no denoiser")
    bits: list[Tensor] = []
    errors: dict[float, list[Tensor]] = {level: [] for level in LEVELS}
    for start in range(0, len(images) // EVERY, BATCH):
        pixels, labels = images.batch(range(EVERY * start, min(EVERY * (start + BATCH), len(images)), EVERY))
        clean = RGB(images.image_size).encode(pixels)
        with isolated_randomness(0, start):  # the same noise for every run
            bits.append(BitsPerDimension(terms=4).per_image(model, clean, labels))
            for level in LEVELS:
                t = model.process.sigma_to_t(torch.full((len(clean),), level))
                prediction = model(model.process.q_sample(clean, normal_like(clean), t), t, labels)
                errors[level].append(((prediction.denoised - clean) ** 2).flatten(1).mean(dim=1))
    each = torch.cat(bits)
    return {
        "bits_per_dimension": each.mean().item(),
        "standard_error": (each.std() / len(each) ** 0.5).item(),
    } | {f"error_at_{level}": torch.cat(values).mean().item() for level, values in errors.items()}


def main(arguments: Sequence[str]) -> None:
    """Print a line of each run."""
    settings = config.load(arguments, Settings)
    images = Folder(Path(settings.images), settings.image_size)
    for run in settings.runs:
        print(json.dumps({"run": Path(run).name, **measure(run, images)}), flush=True)


if __name__ == "__main__":
    command_line.run(main)
