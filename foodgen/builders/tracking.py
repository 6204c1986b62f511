"""Trackers of a configuration: W&B and others that rows, images and scores are sent to."""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foodgen.core.config import to_tree
from foodgen.core.errors import ConfigError
from foodgen.core.registry import build, trackers
from foodgen.core.settings import Config
from foodgen.core.types import TrackerBackend

log = logging.getLogger("foodgen")


def check_trackers(config: Config) -> None:
    """Raise ConfigError for a tracker that there is not, or whose package is missing."""
    for label, part in config.trackers.items():
        if part is not None:
            try:
                backend: type[TrackerBackend] = trackers[str(part.get("name"))]
                backend.check()
            except ConfigError as error:
                raise ConfigError(f"trackers.{label}: {error}") from None


def make_backends(config: Config, folder: Path, run_id: str, step: int) -> list[TrackerBackend]:
    """The trackers of a training beside metrics.jsonl. Raises ConfigError.

    step  that the run goes on from
    """
    about = {"folder": folder, "run_id": run_id, "step": step, "name": folder.name, "config": to_tree(config)}
    return _backends(config, about)


def _backends(config: Config, injected: Mapping[str, Any]) -> list[TrackerBackend]:
    return [
        build("trackers", part, f"trackers.{label}", project=config.exp.wandb_project, **injected)
        for label, part in config.trackers.items()
        if part is not None and (config.exp.use_wandb or part.get("name") != "wandb")
    ]


def send_scores(config: Config, folder: Path, meta: Mapping[str, Any]) -> Callable[..., None]:
    """What sends an inference's scores to the configuration's trackers, to the training's own run where it is known.

    folder  of the inference
    meta    the checkpoint's; a folder of images and exported weights have no run, and get one of their own

    The result takes numbers by name, a grid's file and rows of a table by class. It never raises.
    """
    step, known = int(meta.get("step", 0)), meta.get("run_id")
    about: dict[str, Any] = {
        "folder": folder,
        "run_id": str(known or uuid.uuid4().hex[:8]),
        "step": None,
        "name": None if known else folder.name,
        "config": {"inference_settings": to_tree(config)},  # beside the training's own
    }

    def send(numbers: Mapping[str, float], grid: Path, by_class: Sequence[Mapping[str, Any]]) -> None:
        try:
            backends = _backends(config, about)
        except Exception as error:
            log.warning("no tracker has got the scores (%s: %s)", type(error).__name__, error)
            return
        for backend in backends:
            try:
                backend.log({"step": step} | {f"inference/{name}": value for name, value in numbers.items()})
                if grid.is_file():
                    backend.image(step, "inference/grid", grid)
                if by_class:
                    backend.table(step, "inference/by_class", by_class)
                backend.close(0)
            except Exception as error:  # the scores are in metrics.json
                log.warning("%s has not got the scores (%s: %s)", type(backend).__name__, type(error).__name__, error)

    return send
