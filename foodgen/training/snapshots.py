"""Snapshots of a run's averages, and an average of any length made of them afterwards (Karras 2023, section 3.2)."""

import re
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
from foodgen.training.manifest import MANIFEST, in_one_line, seal_files, verify

ON_SCHEDULE, AT_END = "step", "end"  # beginnings of folders' names


class Snapshots:
    """<run>/averages/step-00001000/length-0.05.safetensors and so on, in half precision as in EDM2.

    What is kept at a stop between two steps of the schedule is named end-00001234: it serves the checkpoint of that
    step alone. So averages of a run that was stopped and resumed are those of one that was not, to the bit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "averages"
        self.checkpoints = folder / "checkpoints"

    def save(self, step: int, averages: Mapping[float, Mapping[str, Tensor]], kind: str = ON_SCHEDULE) -> None:
        """Write a step's averages, whole or not at all. Raises CheckpointError."""
        target = self.folder / f"{kind}-{step:08d}"
        temporary = self.folder / f".writing-{target.name}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for length, tensors in averages.items():
                halves = {name: tensor.half().contiguous().cpu() for name, tensor in tensors.items()}
                save_file(halves, temporary / f"length-{length:g}.safetensors")
            seal_files(temporary)
            shutil.rmtree(target, ignore_errors=True)  # of the same step, before a resume
            temporary.replace(target)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(f"{target}: could not be written ({error})") from error

    def until(self, step: int) -> list[tuple[int, float, Path]]:
        """(step, length, file) of the schedule's snapshots up to a step, oldest first, and of those of its own stop.

        Raises CheckpointError for a damaged one.
        """
        found = []
        for kind, number, folder in self._folders():
            if (number < step and kind == ON_SCHEDULE) or number == step:
                if (folder / MANIFEST).is_file():  # earlier versions wrote none
                    verify(folder)
                for path in sorted(folder.glob("length-*.safetensors")):
                    if length := re.fullmatch(r"length-(0\.\d+)\.safetensors", path.name):
                        found.append((number, float(length[1]), path))
        return found

    def forget_after(self, step: int) -> None:
        """Remove what a run, resumed at `step`, had kept beyond it, half written, or for checkpoints that are gone."""
        for kind, number, folder in self._folders():
            gone = kind == AT_END and not (self.checkpoints / f"step-{number:08d}").is_dir()
            if number > step or gone:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.folder.glob(".writing-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _folders(self) -> list[tuple[str, int, Path]]:
        """(kind, step, folder) of all, oldest first; those of a step's end after those of its schedule."""
        found = []
        for folder in self.folder.glob("*-*"):
            if name := re.fullmatch(rf"({ON_SCHEDULE}|{AT_END})-(\d+)", folder.name):
                found.append((name[1], int(name[2]), folder))
        return sorted(found, key=lambda entry: (entry[1], entry[0] == AT_END))


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
    averaged: set[str] = set()
    for weight, (_, _, path) in zip(weights, snapshots, strict=True):
        try:
            tensors = load_file(path)
        except Exception as error:  # whatever an untrue header leads to
            raise CheckpointError(f"{path}: {in_one_line(error)}") from None
        averaged = averaged or {*tensors}
        if averaged != {*tensors}:
            raise CheckpointError(f"{path}: holds other weights than the snapshots before it")
        for name, tensor in tensors.items():
            if name not in average or average[name].shape != tensor.shape:
                raise CheckpointError(f"{path}: {name} does not fit {checkpoint}")
            if not bool(tensor.isfinite().all()):
                raise CheckpointError(f"{path}: {name} is not finite")
            total[name] = total.get(name, torch.zeros((), dtype=torch.float64)) + float(weight) * tensor.double()
    return average | {name: tensor.float() for name, tensor in total.items()}
