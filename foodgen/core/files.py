"""Files that are written whole or not at all, and JSON by lines."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger("foodgen")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to, of the same suffix, which takes the place of `path` at the end; without errors only.

    Makes the folder. Processes that write the same file do not disturb each other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
