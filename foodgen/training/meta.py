"""What a checkpoint says of itself beside its weights, and of which types it must be."""

import json
from pathlib import Path, PurePath
from typing import Any

from foodgen.core.errors import CheckpointError
from foodgen.training.manifest import in_one_line

FORMAT = 1
NUMBER = (int, float)
TYPES: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "images": (int,),
    "validated": (int,),
    "minutes": NUMBER,
    "best": (*NUMBER, type(None)),
    "best_by": (list,),
    "classes": (list,),
    "run_id": (str,),
    "codec": (str,),
    "torch": (str,),
}
REQUIRED = ("step", "classes")


class FormatError(CheckpointError):
    """The checkpoint is whole, and of another version of this program."""


def read_checked(path: Path) -> dict[str, Any]:
    """A meta.json. Raises FormatError for another format, CheckpointError for what it lacks or has of a wrong type."""
    try:
        meta = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {in_one_line(error)}") from None
    if not isinstance(meta, dict):
        raise CheckpointError(f"{path}: a mapping of keys is expected")
    if meta.get("format") != FORMAT:
        raise FormatError(f"{path.parent}: is of format {meta.get('format')}, this version reads {FORMAT}")
    for key, types in TYPES.items():
        if key in meta and (not isinstance(meta[key], types) or isinstance(meta[key], bool)):
            raise CheckpointError(f"{path}: {key} cannot be {meta[key]!r:.40}")
        if key in REQUIRED and key not in meta:
            raise CheckpointError(f"{path}: {key} is missing")
    if meta["step"] < 0:
        raise CheckpointError(f"{path}: step cannot be {meta['step']}")
    _check_classes(path, meta["classes"])
    return meta


def _check_classes(path: Path, classes: list[Any]) -> None:
    """Images are written to folders named after the classes, so that a name must not lead out of its folder."""
    for name in classes:
        if not isinstance(name, str) or name in ("", "..") or PurePath(name).name != name or "\0" in name:
            raise CheckpointError(f"{path}: classes: {name!r:.40} is no name of a class")
    if len({*classes}) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise CheckpointError(f"{path}: classes: {twice} is there twice")
