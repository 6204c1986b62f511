"""Checkpoints that survive: written aside, verified by hash, renamed whole, old ones removed last."""

import json
import logging
import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foodgen.core.aliases import read_weights as present_names
from foodgen.core.config import read_saved
from foodgen.core.errors import CheckpointError
from foodgen.core.files import write_text
from foodgen.training.fitting import misfit_of
from foodgen.training.manifest import flush, in_one_line, listed, seal_files, verify
from foodgen.training.meta import FORMAT, FormatError, read_checked

META, CONFIG = "meta.json", "config.yaml"
WEIGHTS, AVERAGE, TRAINING = "weights.safetensors", "ema.safetensors", "training.pt"
SHARDS = "model"  # exported weights: model.safetensors, or model-00001-of-00003.safetensors and so on
PARTNERS = "partners.safetensors"  # exported, if asked for: what the model was trained against
log = logging.getLogger("foodgen")


@dataclass
class Checkpoint:
    """What a run is at one step.

    weights   all that the objective holds
    average   the averaged model's
    training  optimizers and counters: tensors, numbers and lists alone
    meta      step, class names and other plain values
    config    the configuration as YAML
    """

    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    training: dict[str, Any]
    meta: dict[str, Any]
    config: str


class Checkpoints:
    """The checkpoints of one run: <folder>/step-00001000/ and so on.

    keep  how many of the newest stay; the best and the one resumed from stay as well
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.protected: set[str] = set()

    def steps(self) -> list[Path]:
        """The folders of complete checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def save(self, checkpoint: Checkpoint, best: bool = False) -> Path:
        """Write a checkpoint, mark it if it is the best so far, and remove old ones. Raises CheckpointError."""
        target = self.folder / f"step-{checkpoint.meta['step']:08d}"
        write(target, checkpoint)
        try:
            if best:
                write_text(self.folder / "best.txt", target.name)
        except OSError as error:
            raise CheckpointError(f"{self.folder / 'best.txt'}: could not be written ({error})") from error
        self._remove_old()
        return target

    def best(self) -> Path | None:
        """The checkpoint with the best validation metric, if there is one."""
        marked = self.folder / "best.txt"
        if not marked.is_file():
            return None
        name = marked.read_text(errors="replace").strip()
        path = self.folder / name
        if re.fullmatch(r"step-\d+", name) and path.is_dir():
            return path
        log.warning("%s names no checkpoint beside it (%.40r); the newest is taken for the best", marked, name)
        return None

    def newest(self) -> Path | None:
        """The newest undamaged checkpoint, None if there are none at all.

        Raises CheckpointError if all are damaged, or for one of another version, which is no damage.
        """
        paths, reasons = self.steps(), []
        for path in reversed(paths):
            try:
                _, names = _open(path)
                for name in {WEIGHTS, AVERAGE} & names:
                    _tensors(path, name, names)
            except FormatError:
                raise
            except CheckpointError as error:
                log.warning("passed over a damaged checkpoint: %s", error)
                reasons.append(error)
                continue
            return path
        if paths:
            what = f"all {len(paths)} checkpoints are damaged; nothing was started anew"
            raise CheckpointError(f"{self.folder}: {what} (the newest: {reasons[0]})")
        return None

    def _remove_old(self) -> None:
        best = self.best()
        stay = self.protected | ({best.name} if best else set())
        for path in self.steps()[: -self.keep]:
            if path.name not in stay:
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    log.warning("old checkpoint %s was not removed: %s", path, error)

    def remove_partial(self) -> None:
        """Remove what a kill left half written. Only for whoever holds the run's lock."""
        for path in [*self.folder.glob(".writing-*"), *self.folder.glob(".replaced-*")]:
            shutil.rmtree(path, ignore_errors=True)


def write(target: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint's folder, whole or not at all. Raises CheckpointError, for a full disk above all."""
    temporary = target.parent / f".writing-{target.name}"
    needed = sum(t.numel() * t.element_size() for t in [*checkpoint.weights.values(), *checkpoint.average.values()])
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        free = shutil.disk_usage(temporary).free
        if free < 2 * needed:  # weights, average, and about as much for the optimizer
            raise CheckpointError(f"{target}: {needed * 2 / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")
        save_file({k: v.contiguous().cpu() for k, v in checkpoint.weights.items()}, temporary / WEIGHTS)
        save_file({k: v.contiguous().cpu() for k, v in checkpoint.average.items()}, temporary / AVERAGE)
        torch.save(checkpoint.training, temporary / TRAINING)
        seal(temporary, checkpoint.meta, checkpoint.config)
        replaced = target.parent / f".replaced-{target.name}"
        shutil.rmtree(replaced, ignore_errors=True)
        if target.exists():  # of an earlier try at this step, or from before its validation
            target.replace(replaced)
        temporary.replace(target)
        flush(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except CheckpointError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"{target}: could not be written ({str(error) or type(error).__name__})") from error


def seal(folder: Path, meta: dict[str, Any], config: str) -> None:
    """Add meta, configuration and, last of all, the manifest of sizes and hashes; flush everything to disk."""
    (folder / META).write_text(json.dumps({"format": FORMAT, **meta}, indent=1))
    (folder / CONFIG).write_text(config)
    seal_files(folder)


def is_resumable(folder: Path) -> bool:
    """Whether a training can go on from it: an exported folder has weights alone."""
    return (folder / TRAINING).is_file()


def read(folder: Path) -> Checkpoint:
    """A verified checkpoint, all on the CPU. Raises CheckpointError; runs no pickled code."""
    meta, names = _open(folder)
    if not is_resumable(folder):
        raise CheckpointError(f"{folder}: holds weights alone; start from it with train.initial_weights")
    path = listed(folder, TRAINING, names)
    try:
        training = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: cannot be read: damaged, or more than tensors, numbers and lists; nothing of it was run"
        ) from None
    except Exception as error:
        raise CheckpointError(f"{path}: {in_one_line(error)}") from None
    if not isinstance(training, dict) or not {"optimizers", "tracker"} <= training.keys():
        raise CheckpointError(f"{path}: holds no optimizers and averages of what was measured")
    weights, average = (_tensors(folder, name, names) for name in (WEIGHTS, AVERAGE))
    return Checkpoint(weights, average, training, meta, (folder / CONFIG).read_text(errors="replace"))


def read_meta(folder: Path) -> dict[str, Any]:
    """Step, class names and the like of a verified checkpoint or exported folder. Raises CheckpointError."""
    return _open(folder)[0]


def read_average(folder: Path) -> dict[str, Tensor]:
    """The averaged model's weights, float32, of a checkpoint or an exported folder. Raises CheckpointError."""
    _, names = _open(folder)
    shards = sorted(name for name in names if name.startswith(SHARDS) and name.endswith(".safetensors"))
    tensors: dict[str, Tensor] = {}
    for name in [AVERAGE] if AVERAGE in names else shards:
        tensors |= _tensors(folder, name, names)
    if not tensors:
        raise CheckpointError(f"{folder}: holds no weights")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def read_weights(folder: Path, part: str) -> dict[str, Tensor]:
    """The unaveraged weights of one part of a checkpoint's objective, such as its model. Raises CheckpointError."""
    _, names = _open(folder)
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder}: holds averaged weights alone")
    tensors, prefix = _tensors(folder, WEIGHTS, names), f"{part}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def read_partners(folder: Path) -> dict[str, Tensor]:
    """What an exported folder holds of its objective beside the model, such as a discriminator; {} if nothing."""
    _, names = _open(folder)
    return _tensors(folder, PARTNERS, names) if (folder / PARTNERS).is_file() else {}


def _open(folder: Path) -> tuple[dict[str, Any], set[str]]:
    """Meta, and the names of the verified files, of a checkpoint or exported folder. Raises CheckpointError."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such checkpoint")
    names = verify(folder)
    listed(folder, CONFIG, names)
    return read_checked(listed(folder, META, names)), names


def _tensors(folder: Path, name: str, names: set[str]) -> dict[str, Tensor]:
    """A verified file's weights under their present names. Raises CheckpointError, for one that is NaN too."""
    path = listed(folder, name, names)
    try:
        tensors = present_names(load_file(path))
    except Exception as error:  # whatever an untrue header leads to
        raise CheckpointError(f"{path}: {in_one_line(error)}") from None
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and bool(tensor.float().isnan().any()):
            raise CheckpointError(f"{path}: {key} is not a number (NaN): the training had diverged before")
    return tensors


def partners_in(folder: Path) -> dict[str, Tensor]:
    """The objective's weights beside the model, of a checkpoint or an exported folder; {} if there are none."""
    return partners_of(folder) if (folder / WEIGHTS).is_file() else read_partners(folder)


def partners_of(folder: Path) -> dict[str, Tensor]:
    """All that a checkpoint's objective holds beside the model, without networks from packages (`features`)."""
    everything = read(folder).weights.items()
    return {name: own for name, own in everything if name[:6] != "model." and "features" not in name.split(".")}


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights that must fit exactly, but for the precision of floating numbers. Raises CheckpointError."""
    misfit = misfit_of(module.state_dict(), weights)
    try:
        if misfit is None:
            module.load_state_dict(weights)
    except RuntimeError as error:
        misfit = in_one_line(error)
    if misfit is not None:
        raise CheckpointError(f"{path} does not fit the configuration: {misfit}")


def export(
    source: Path,
    target: Path,
    shard_bytes: int,
    average: Mapping[str, Tensor],
    partners: Mapping[str, Tensor] | None = None,
) -> list[Path]:
    """Write `average`, a model of `source`, as bfloat16 safetensors in shards of at most `shard_bytes`.

    partners  what else of the objective is written, as it is, for a training that goes on from the folder

    Raises CheckpointError if `target` exists, if the source is damaged, or if nothing can be written.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise CheckpointError(f"{target}: exists already; choose another export.output_dir")
    meta = read_meta(source)
    if is_resumable(source) and (misfit := misfit_of(read_weights(source, "model"), average)):
        raise CheckpointError(f"{source}: its average is not one of its model: {misfit}")
    halved = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in average.items()}
    kept: dict[str, Any] = {key: meta[key] for key in ("step", "classes", "images", "codec") if key in meta}
    temporary = target.parent / f".writing-{target.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_torch_state_dict(halved, temporary, max_shard_size=shard_bytes)
        if partners:
            save_file({name: tensor.contiguous() for name, tensor in partners.items()}, temporary / PARTNERS)
        seal(temporary, kept, OmegaConf.to_yaml(OmegaConf.create(read_saved(source / CONFIG))))
        temporary.replace(target)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"{target}: could not be written ({error})") from error
    return sorted(target.glob("*.safetensors"))
