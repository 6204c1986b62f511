"""Runs as the page shows them: rows, curves and the newest grid."""

import json
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from foodgen.core.errors import UserError
from foodgen.web.values import brief

METRICS, LAST = "metrics.jsonl", 50  # a run's file of rows, and the rows that are shown
POINTS = 500  # of a curve
NOT_MEASURED = {"step", "images", "minutes"}


def names(folder: Path) -> list[str]:
    """Runs in `folder`, the latest first."""
    return [path.parent.name for path in reversed(_by_date(folder.glob(f"*/{METRICS}")))]


def _by_date(paths: Iterable[Path]) -> list[Path]:
    """The files among some paths, the latest last; a run may be removed while it is looked at."""
    dates: dict[Path, float] = {}
    for path in paths:
        with suppress(OSError):
            state = path.stat()
            if stat.S_ISREG(state.st_mode):
                dates[path] = state.st_mtime
    return sorted(dates, key=dates.__getitem__)


def rows_of(folder: Path, name: str | None) -> list[dict[str, Any]]:
    """A run's rows so far. Raises UserError if there is no such run."""
    if name is None or name not in names(folder):
        raise UserError(f"run: there is no {brief(name, quoted=True)} in {folder}")
    try:
        text = (folder / name / METRICS).read_text(errors="replace")
    except OSError as error:
        raise UserError(f"run: {name} cannot be read ({error.strerror})") from None
    complete = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]  # the last is being written
    rows = []
    for line in complete:
        with suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def keys_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rows measure: losses first, scores of validation, the rest."""
    found = {key for row in rows for key, value in row.items() if _is_number(value)} - NOT_MEASURED
    return sorted(found, key=lambda key: (not key.endswith("loss"), not key.startswith("val/"), key))


def curve(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[float]]:
    """Steps and values of a key, as `step` and `value`, thinned out to about POINTS."""
    points = [(row["step"], row[key]) for row in rows if _is_number(row.get(key)) and _is_number(row.get("step"))]
    points = points[:: max(1, len(points) // POINTS)]
    return {"step": [float(step) for step, _ in points], "value": [float(value) for _, value in points]}


def _is_number(value: Any) -> bool:
    """Whether it can be drawn, as a float."""
    return isinstance(value, int | float) and abs(value) < 1e300


def newest_grid(folder: Path, name: str) -> Path | None:
    """The last grid of images that the run has sampled."""
    grids = _by_date((folder / name).glob("grids/*.png"))
    return grids[-1] if grids else None


def read_grid(path: Path | None) -> Image.Image | None:
    """A grid's image; None if there is none or it cannot be read."""
    if path is None:
        return None
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
