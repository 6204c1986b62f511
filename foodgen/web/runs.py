"""Runs as the page shows them: rows, curves and the newest grid."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from foodgen.core.errors import UserError

METRICS, LAST = "metrics.jsonl", 50  # a run's file of rows, and the rows that are shown
POINTS = 500  # of a curve
NOT_MEASURED = {"step", "images", "minutes"}


def names(folder: Path) -> list[str]:
    """Runs in `folder`, the latest first."""
    found = [path for path in folder.glob(f"*/{METRICS}") if path.is_file()]
    return [path.parent.name for path in sorted(found, key=lambda path: -path.stat().st_mtime)]


def rows_of(folder: Path, name: str | None) -> list[dict[str, Any]]:
    """A run's rows so far. Raises UserError if there is no such run."""
    if name is None or name not in names(folder):
        raise UserError(f"run: there is no '{name}' in {folder}")
    text = (folder / name / METRICS).read_text(errors="replace")
    complete = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]  # the last is being written
    rows = []
    for line in complete:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def keys_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rows measure: losses first, scores of validation, the rest."""
    found = {key for row in rows for key, value in row.items() if isinstance(value, int | float)} - NOT_MEASURED
    return sorted(found, key=lambda key: (not key.endswith("loss"), not key.startswith("val/"), key))


def curve(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[float]]:
    """Steps and values of a key, as `step` and `value`, thinned out to about POINTS."""
    points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float) and "step" in row]
    points = points[:: max(1, len(points) // POINTS)]
    return {"step": [float(step) for step, _ in points], "value": [float(value) for _, value in points]}


def newest_grid(folder: Path, name: str) -> Path | None:
    """The last grid of images that the run has sampled."""
    grids = sorted((folder / name).glob("grids/*.png"), key=lambda path: path.stat().st_mtime)
    return grids[-1] if grids else None
