"""The folder of a run: who may write in it, and which of its checkpoints is meant."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from foodgen.core import distributed
from foodgen.core.config import defaults, difference, merge, read_saved, to_tree
from foodgen.core.errors import CheckpointError, ConfigError
from foodgen.core.locations import locate
from foodgen.core.settings import Config
from foodgen.training.checkpoint import CONFIG, Checkpoints, read_meta

log = logging.getLogger("foodgen")


def run_folder(config: Config) -> Path:
    """Where everything of this run lies. Raises ConfigError for a name that leads out of exp.exp_dir."""
    name = Path(str(config.exp.run or Path(config.exp.config_path).stem))
    if name.is_absolute() or not name.name or ".." in name.parts:
        raise ConfigError(f"exp.run: '{name}' is no name of a folder in exp.exp_dir")
    return Path(config.exp.exp_dir) / name


@contextmanager
def locked(config: Config) -> Iterator[None]:
    """Hold the run's folder, so that no second process trains in it. Raises ConfigError if one does."""
    folder = run_folder(config)
    if distributed.start_rank() > 0:
        yield
        return
    lock = FileLock(folder / "run.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{folder}: another process trains here; wait for it or choose another exp.run") from None
    except OSError as error:
        raise ConfigError(f"exp.exp_dir: {folder} cannot be written ({error})") from None
    try:
        yield
    finally:
        if [path.name for path in folder.iterdir()] == ["run.lock"]:  # a mistake ended the run before it began
            (folder / "run.lock").unlink()  # while it is held: another process makes a file of its own, or has none
            folder.rmdir()
        lock.release()


def checkpoint_to_resume(config: Config) -> Path | None:
    """The checkpoint to resume, None for a new run. Raises ConfigError rather than mix two runs in a folder."""
    folder, asked = run_folder(config), config.train.checkpoint_path
    checkpoints = Checkpoints(folder / "checkpoints", config.train.keep_checkpoints)
    if asked is None:
        if (folder / "metrics.jsonl").exists() or checkpoints.steps():
            raise ConfigError(
                f"{folder} holds a run already: add train.checkpoint_path=latest to resume it, or another exp.run"
            )
        return None
    checkpoints.remove_partial()
    newest = checkpoints.newest()
    found = _named(asked, checkpoints)
    if found is None:
        log.warning("%s holds no checkpoint: the run starts from the beginning", folder)
        return None
    if "run_id" not in read_meta(found):
        raise ConfigError(f"train.checkpoint_path: {found} holds weights alone; give it as train.initial_weights")
    if newest is None and (folder / "metrics.jsonl").exists():
        raise ConfigError(f"{folder} holds a run already: give another exp.run to branch off {found}")
    if newest is not None and found.resolve() != newest.resolve():
        raise ConfigError(
            f"train.checkpoint_path: {folder} has gone on to {newest.name}; give another exp.run to branch off {found}"
        )
    return found


def _named(asked: str, checkpoints: Checkpoints) -> Path | None:
    """The run's "latest" or "best" checkpoint, None if there is none; of another run's folder its newest; or a path."""
    if asked == "latest":
        return checkpoints.newest()
    if asked == "best":
        return checkpoints.best() or checkpoints.newest()
    path = Path(asked)
    if not (path / "checkpoints").is_dir():
        return path
    newest = Checkpoints(path / "checkpoints", keep=2).newest()
    if newest is None:
        raise ConfigError(f"train.checkpoint_path: {path / 'checkpoints'} holds no checkpoint")
    return newest


def find_checkpoint(config: Config) -> Path:
    """The checkpoint or exported folder that `train.checkpoint_path` names. Raises UserError.

    It is a path, "latest" or "best" of the run, or a run's folder, whose best checkpoint is meant.
    """
    asked = config.train.checkpoint_path
    if asked is None:
        raise ConfigError("train.checkpoint_path=PATH is missing; train.checkpoint_path=latest takes the run's newest")
    if asked not in ("latest", "best"):
        return checkpoint_in(Path(asked))
    folder = run_folder(config) / "checkpoints"
    found = _named(asked, Checkpoints(folder, config.train.keep_checkpoints))
    if found is None:
        raise ConfigError(f"train.checkpoint_path: {folder} holds no checkpoint")
    return found


def checkpoint_in(path: Path) -> Path:
    """A checkpoint or exported folder itself, of the hub too; of a run's folder its best, else its newest, checkpoint.

    Raises CheckpointError if there is none.
    """
    path = locate(path)
    if not (path / "checkpoints").is_dir():
        return path
    checkpoints = Checkpoints(path / "checkpoints", keep=2)
    found = checkpoints.best() or checkpoints.newest()
    if found is None:
        raise CheckpointError(f"{path / 'checkpoints'}: holds no checkpoint")
    return found


def describe_changes(config: Config, resumed: Path) -> list[str]:
    """A line for each value that differs from the configuration that the checkpoint was made with."""
    old = merge(defaults(Config), read_saved(resumed / CONFIG))
    ignored = "train.checkpoint_path"
    return [line for line in difference(old, to_tree(config)) if not line.startswith(ignored)]
