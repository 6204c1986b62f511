"""From run folders to the small files that a report's figures and tables are made of, which are committed."""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foodgen.core.errors import DataError
from foodgen.core.registry import collectors


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file. Raises DataError naming the line that is none."""
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
    return rows


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object. Raises DataError."""
    try:
        return dict(json.loads(_text(path)))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def value_of(row: Mapping[str, Any], key: str, where: str) -> Any:
    """A row's number. Raises DataError naming file, run and key."""
    if key not in row:
        raise DataError(f"{where}: a row of {row.get('run', row.get('point', 'a run'))} has no {key}")
    return row[key]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); it is made by the runs that the report names"
        ) from None


def _rounded(value: Any) -> Any:
    """Floats to six digits, which is more than any figure shows."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(_rounded(dict(row))) + "\n" for row in rows))


class Collector(ABC):
    """Writes one data file."""

    @abstractmethod
    def __call__(self, target: Path) -> None:
        """Raises DataError naming the file of a run that is missing."""


@collectors.add_to_registry(name="rows")
class Rows(Collector):
    """Rows of the runs' metrics.jsonl, each with its run's name.

    runs   folders
    keys   to keep, beside step, images and minutes
    every  of the rows is kept, and the last
    """

    def __init__(self, runs: Sequence[str], keys: Sequence[str], every: int = 1) -> None:
        self.runs, self.keys, self.every = runs, ["step", "images", "minutes", *keys], every

    def __call__(self, target: Path) -> None:
        kept = []
        for run in self.runs:
            rows = [row for row in read_lines(Path(run) / "metrics.jsonl") if {*row} & {*self.keys[3:]}]
            some = [row for place, row in enumerate(rows, 1) if place % self.every == 0 or place == len(rows)]
            kept += [{"run": Path(run).name} | {key: row[key] for key in self.keys if key in row} for row in some]
        _write_lines(target, kept)


@collectors.add_to_registry(name="scores")
class Scores(Collector):
    """What inference.py wrote of each run into its metrics.json, a row each.

    folders  that hold a metrics.json
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = folders

    def __call__(self, target: Path) -> None:
        _write_lines(
            target,
            [{"run": Path(folder).name, **read_object(Path(folder) / "metrics.json")} for folder in self.folders],
        )


@collectors.add_to_registry(name="lines")
class Lines(Collector):
    """Several .jsonl files one after another, such as sweeps, of each point the newest row.

    files  of rows
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files

    def __call__(self, target: Path) -> None:
        rows = [row for file in self.files for row in read_lines(Path(file))]
        newest = {json.dumps(row.get("point", place), sort_keys=True): row for place, row in enumerate(rows)}
        _write_lines(target, list(newest.values()))


@collectors.add_to_registry(name="hours")
class Hours(Collector):
    """A metric by the hours of computing that it took, a row for each validation and each scored model.

    metric     its name in metrics.json; in validations val/<metric>
    trainings  label to {file, runs, cores}: rows as the collector `rows` writes them, of runs of which each goes on
               where the one before it ended, on so many cores
    models     label to hours of one core to a metrics.json
    """

    def __init__(
        self,
        metric: str,
        trainings: Mapping[str, Mapping[str, Any]] | None = None,
        models: Mapping[str, Mapping[float, str]] | None = None,
    ) -> None:
        self.metric, self.trainings, self.models = metric, trainings or {}, models or {}

    def __call__(self, target: Path) -> None:
        kept: list[dict[str, Any]] = []
        for label, training in self.trainings.items():
            rows = read_lines(Path(training["file"]))
            for place, run in enumerate(training["runs"]):
                own = [row for row in rows if row["run"] == run]
                later = [row["images"] for row in rows if row["run"] in training["runs"][place + 1 :]]
                kept += [
                    {"run": label, "core_hours": hours * training["cores"], "images": images, self.metric: value}
                    for hours, images, value in self._validations(own)
                    if images < min(later, default=images + 1)
                ]
        for label, scores in self.models.items():
            kept += [
                {"run": label, "core_hours": hours, self.metric: value_of(read_object(Path(file)), self.metric, file)}
                for hours, file in scores.items()
            ]
        _write_lines(target, kept)

    def _validations(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, int, float]]:
        """Hours, images and the metric; a validation's row has no minutes of its own."""
        found, minutes = [], 0.0
        for row in rows:
            minutes = row.get("minutes", minutes)
            if f"val/{self.metric}" in row:
                found.append((minutes / 60, row["images"], row[f"val/{self.metric}"]))
        return found


@collectors.add_to_registry(name="file")
class File(Collector):
    """One file as it is: a picture, say.

    file  to copy
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def __call__(self, target: Path) -> None:
        try:
            shutil.copyfile(self.file, target)
        except OSError as error:
            raise DataError(f"{self.file} cannot be copied ({error.strerror})") from None


@collectors.add_to_registry(name="sizes")
class Sizes(Collector):
    """Weights and multiply-adds of configurations.

    configs  files of experiments
    classes  number of them
    """

    def __init__(
        self, configs: Sequence[str], measure: Callable[[str, int], Mapping[str, Any]], classes: int = 101
    ) -> None:
        self.configs, self.classes, self.measure = configs, classes, measure

    def __call__(self, target: Path) -> None:
        _write_lines(target, [self.measure(path, self.classes) for path in self.configs])
