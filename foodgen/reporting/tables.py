"""The kinds of tables of a report, each made of data files alone, and their place in its text."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from foodgen.core.errors import DataError
from foodgen.core.registry import tables
from foodgen.reporting.collecting import read_lines, read_object, value_of
from foodgen.reporting.figures import variant_of
from foodgen.reporting.plots import label_of
from foodgen.reporting.sizes import Size, table


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def number(value: float | None) -> str:
    """Four significant digits, as a reader wants them."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:#.4g}".rstrip(".")


def replaced(text: str, mark: str, content: str) -> str:
    """`text` with `content` between <!-- mark --> and <!-- /mark -->. Raises DataError without one of each."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise DataError(f"tables.{mark}: the report's text wants one {begin} and, after it, one {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{content}\n{end}{rest.split(end)[1]}"


class TableKind(ABC):
    """Makes one table."""

    @abstractmethod
    def __call__(self, data: Path) -> str:
        """Markdown of what is in the folder of data files. Raises DataError."""


@tables.add_to_registry(name="comparison")
class Comparison(TableKind):
    """Arms beside each other: each metric's mean over the seeds, of training or sampling, in brackets their deviation.

    A star marks numbers of features that the variant's training has used.

    data           .jsonl of the collector `scores`
    variants       name to label, in the order of the table
    metrics        columns
    real_baseline  whether a row says what real training images score
    """

    def __init__(
        self, data: str, variants: Mapping[str, str], metrics: Sequence[str], real_baseline: bool = True
    ) -> None:
        self.data, self.variants, self.metrics, self.real_baseline = data, variants, metrics, real_baseline

    def __call__(self, data: Path) -> str:
        scores = read_lines(data / self.data)
        rows = []
        for variant, label in self.variants.items():
            own = [row for row in scores if variant_of(row["run"]) == variant]
            if not own:
                raise DataError(f"{self.data}: there is no run of {variant}")
            seeds = sum(len(next(iter(row.get("by_seed", {}).values()), [row])) for row in own)
            rows.append([label, str(seeds), *[self._cell(name, own) for name in self.metrics]])
        baselines = [row["real_baseline"] for row in scores if row.get("real_baseline")]
        if self.real_baseline and baselines:
            rows.append(["real training photos", "", *[number(baselines[0].get(name)) for name in self.metrics]])
        return markdown(["variant", "seeds", *[label_of(name) for name in self.metrics]], rows)

    def _cell(self, name: str, rows: Sequence[Mapping[str, Any]]) -> str:
        values = [value for row in rows for value in row.get("by_seed", {}).get(name, [value_of(row, name, self.data)])]
        deviation = f" ({stdev(values):.2g})" if len(values) > 1 else ""
        seen = any(name.rpartition("/")[0] in row.get("trained_against", []) for row in rows)
        return number(fmean(values)) + deviation + " \\*" * seen


@tables.add_to_registry(name="by_class")
class ByClass(TableKind):
    """A classifier's accuracy by class, on generated images and on real ones, the best generated class first.

    data    details.json of a drawing
    detail  name of the accuracy in it
    """

    def __init__(self, data: str, detail: str = "classifier/label_accuracy_by_class") -> None:
        self.data, self.detail = data, detail

    def __call__(self, data: Path) -> str:
        details = read_object(data / self.data)
        if self.detail not in details:
            raise DataError(f"{self.data}: there is no {self.detail}")
        rows = sorted(details[self.detail].items(), key=lambda pair: -(pair[1][0] or 0))
        cells = [[name.replace("_", " "), number(generated), number(real)] for name, (generated, real) in rows]
        return markdown(["class", "generated", "real"], cells)


@tables.add_to_registry(name="sweep")
class SweepTable(TableKind):
    """A row for every point of a sweep.

    data      .jsonl of sweeps
    settings  label to key
    metrics   columns
    """

    def __init__(self, data: str, settings: Mapping[str, str], metrics: Sequence[str]) -> None:
        self.data, self.settings, self.metrics = data, settings, metrics

    def __call__(self, data: Path) -> str:
        rows = read_lines(data / self.data)
        cells = [
            [
                *[str(row["point"].get(key, "")) for key in self.settings.values()],
                *[number(value_of(row, m, self.data)) for m in self.metrics],
            ]
            for row in rows
        ]
        return markdown([*self.settings, *[label_of(name) for name in self.metrics]], cells)


@tables.add_to_registry(name="runs")
class RunsTable(TableKind):
    """What each run took: steps, images, minutes, speed, and its last numbers.

    data  .jsonl of the collector `rows`
    last  keys whose last values are columns
    """

    def __init__(self, data: str, last: Sequence[str]) -> None:
        self.data, self.last = data, last

    def __call__(self, data: Path) -> str:
        rows = read_lines(data / self.data)
        cells = []
        for run in dict.fromkeys(row["run"] for row in rows):
            own = [row for row in rows if row["run"] == run]
            end = next((row for row in reversed(own) if "minutes" in row), None)
            if end is None:
                raise DataError(f"{self.data}: no row of {run} has minutes")
            speed = end["images"] / end["minutes"] / 60
            cells.append([run, str(end["step"]), number(end["images"]), f"{end['minutes']:.1f}", f"{speed:.0f}"])
            cells[-1] += [number(next((row[key] for row in reversed(own) if key in row), None)) for key in self.last]
        return markdown(["run", "steps", "images", "minutes", "images/s", *[label_of(key) for key in self.last]], cells)


@tables.add_to_registry(name="sizes")
class SizesTable(TableKind):
    """Weights and multiply-adds of configurations, beside what papers say.

    data       .jsonl of the collector `sizes`
    published  name to what the paper says
    """

    def __init__(self, data: str, published: Mapping[str, str] | None = None) -> None:
        self.data, self.published = data, published or {}

    def __call__(self, data: Path) -> str:
        rows: list[dict[str, Any]] = read_lines(data / self.data)
        return table([Size(**row) for row in rows], self.published)
