"""Snapshots of a run's averages, and an average of any length made of them afterwards (Karras 2023, section 3.2)."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from foodgen.core.errors import CheckpointError
from foodgen.training.checkpoint import read_average, read_meta
from foodgen.training.ema import combination, exponent_of


class Snapshots:
    """<run>/averages/step-00001000/length-0.05.safetensors and so on, in half precision as in EDM2."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "averages"

    def save(self, step: int, averages: Mapping[float, Mapping[str, Tensor]]) -> None:
        """Write a step's averages, whole or not at all. Raises CheckpointError."""
        target = self.folder / f"step-{step:08d}"
        temporary = self.folder / f".writing-{target.name}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for length, tensors in averages.items():
                halves = {name: tensor.half().contiguous().cpu() for name, tensor in tensors.items()}
                save_file(halves, temporary / f"length-{length:g}.safetensors")
            shutil.rmtree(target, ignore_errors=True)  # of the same step, before a resume
            temporary.replace(target)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(f"{target}: could not be written ({error})") from error

    def until(self, step: int) -> list[tuple[int, float, Path]]:
        """(step, length, file) of all snapshots up to a step, oldest first."""
        files = sorted(self.folder.glob("step-*/length-*.safetensors"))
        found = [(int(path.parent.name.split("-")[1]), float(path.stem.split("-", 1)[1]), path) for path in files]
        return [entry for entry in found if entry[0] <= step]

    def forget_after(self, step: int) -> None:
        """Remove what a run, resumed at `step`, had kept beyond it."""
        for path in self.folder.glob("step-*"):
            if int(path.name.split("-")[1]) > step:
                shutil.rmtree(path, ignore_errors=True)


def average_of(checkpoint: Path, length: float) -> dict[str, Tensor]:
    """The averaged model of a run's checkpoint with another length. Raises CheckpointError.

    What is not averaged (buffers) is the checkpoint's own.
    """
    step = read_meta(checkpoint)["step"]
    try:
        exponent = exponent_of(length)
    except ValueError as error:
        raise CheckpointError(f"export.ema_{error}") from None
    snapshots = Snapshots(checkpoint.parent.parent).until(step)
    if not snapshots:
        raise CheckpointError(
            f"{checkpoint.parent.parent / 'averages'}: holds no snapshots up to step {step}; train with "
            f"ema.name=power_function"
        )
    last = snapshots[-1][0]
    weights = combination([(step, exponent_of(known)) for step, known, _ in snapshots], (last, exponent))
    average = read_average(checkpoint)
    total: dict[str, Tensor] = {}
    for weight, (_, _, path) in zip(weights, snapshots, strict=True):
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: {error}") from None
        for name, tensor in tensors.items():
            if name not in average or average[name].shape != tensor.shape:
                raise CheckpointError(f"{path}: {name} does not fit {checkpoint}")
            total[name] = total.get(name, torch.zeros((), dtype=torch.float64)) + float(weight) * tensor.double()
    return average | {name: tensor.float() for name, tensor in total.items()}
