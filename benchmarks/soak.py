"""What a training holds while it runs: memory, file handles, threads and disk, as rows and as a figure.

python3 -m benchmarks.soak exp.config_path=configs/benchmarks/soak.yaml pid=PID run=runs/NAME

Looks at a training of another process every few seconds until it ends or time is up, then says how much each number
rose after the first minutes. Wants Linux, which tells these numbers in /proc.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from foodgen.core import command_line
from foodgen.core import config as configuration
from foodgen.core.errors import ConfigError
from foodgen.core.files import read_jsonl
from foodgen.core.settings import STRICT, Above, OnlyPath, Positive
from foodgen.reporting.plots import new_figure, save_figure, style

NUMBERS = {  # what is drawn, by its name in rows
    "memory_mb": "memory of its own, MB",
    "handles": "file handles",
    "threads": "threads",
    "disk_mb": "the run's folder, MB",
}


@dataclass(config=STRICT)
class Settings:
    """What this script reads: a training, where rows and figure go, and for how long to look."""

    exp: OnlyPath
    pid: Positive
    run: str
    target: str
    figure: str
    every_seconds: Above
    minutes: Above
    first_minutes: Above


def look(pid: int, run: Path) -> dict[str, float]:
    """The numbers now. Raises OSError once the process has ended."""
    process = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    memory = dict(line.split(":", 1) for line in (process / "smaps_rollup").read_text().splitlines()[1:])
    sizes = {name: int(value.split()[0]) / 1024 for name, value in memory.items()}
    return {
        "resident_mb": sizes["Rss"],
        "memory_mb": sizes["Private_Clean"] + sizes["Private_Dirty"],
        "handles": len([*(process / "fd").iterdir()]),
        "threads": int(status["Threads"]),
        "disk_mb": sum(_size(path) for path in run.rglob("*")) / 1e6,
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # an old checkpoint that goes meanwhile
        return 0


def watch(settings: Settings) -> list[dict[str, Any]]:
    """Rows of all looks, each written at once. Raises ConfigError if there is no such process or folder."""
    run, target, began = Path(settings.run), Path(settings.target), time.monotonic()
    if not run.is_dir():
        raise ConfigError(f"run: {run} is not a folder")
    try:
        look(settings.pid, run)
    except OSError as error:
        raise ConfigError(f"pid: {settings.pid} cannot be looked at ({error})") from None
    target.unlink(missing_ok=True)
    while (minutes := (time.monotonic() - began) / 60) < settings.minutes:
        try:
            row = {"minutes": round(minutes, 2), **look(settings.pid, run)}
        except OSError:
            break
        with target.open("a") as file:
            file.write(json.dumps(row) + "\n")
        time.sleep(settings.every_seconds)
    return read_jsonl(target)


def rise(rows: Sequence[dict[str, Any]], name: str, first: float) -> tuple[float, float, float]:
    """A number's least and largest value after the first minutes, and how much its mean rose from there to the end.

    Both means are of a quarter of the rows, so that validation and checkpoints come and go in each.
    """
    later = [float(row[name]) for row in rows if row["minutes"] >= first]
    quarter = max(1, len(later) // 4)
    return min(later), max(later), sum(later[-quarter:]) / quarter - sum(later[:quarter]) / quarter


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Each number over the minutes."""
    figure, axes = new_figure(columns=2, rows=2, height=2.2)
    for number, (axis, (name, label)) in enumerate(zip(axes, NUMBERS.items(), strict=True)):
        axis.plot(
            [row["minutes"] for row in rows],
            [row[name] for row in rows],
            **{**style(number), "marker": "", "linestyle": "-"},
        )
        axis.set_ylabel(label, fontsize=8)
        axis.set_xlabel("minutes", fontsize=8)
        axis.set_ylim(bottom=0)
    save_figure(figure, path)


def main(arguments: Sequence[str]) -> None:
    """Watch, draw, and print a table."""
    settings = configuration.load(arguments, Settings)
    rows = watch(settings)
    if not rows or rows[-1]["minutes"] <= settings.first_minutes:
        raise ConfigError(f"pid: {settings.pid} ended within the first {settings.first_minutes:g} minutes")
    draw(rows, Path(settings.figure))
    print(f"| {rows[-1]['minutes']:.0f} minutes | least | largest | rise |\n| --- | --- | --- | --- |")
    for name, label in NUMBERS.items():
        least, largest, more = rise(rows, name, settings.first_minutes)
        print(f"| {label} | {least:.0f} | {largest:.0f} | {more:+.1f} |")


if __name__ == "__main__":
    command_line.run(main)
