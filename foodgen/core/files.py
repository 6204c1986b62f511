"""Files that are written whole or not at all, and JSON by lines."""

import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger("foodgen")
MANIFEST = "MANIFEST.json"  # of a checkpoint's or an exported folder's files


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to, of the same suffix, which takes the place of `path` at the end; without errors only.

    Makes the folder. Processes that write the same file do not disturb each other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.partial{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def new_array(path: Path, kind: Any, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file as an array that is written through, its place on the disk taken. Raises OSError without one.

    Without that a disk that gets full while the array is filled ends the process by a signal (SIGBUS).
    """
    array: np.memmap = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with atomic(path) as temporary:
        temporary.write_text(text)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; without the last line if a kill cut it off."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            log.warning("%s: an unreadable line was left out", path)
    return rows
