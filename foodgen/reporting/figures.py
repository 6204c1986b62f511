"""The kinds of figures of a report, each made of data files alone."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foodgen.core.errors import DataError
from foodgen.core.registry import figures
from foodgen.reporting.collecting import read_lines, value_of
from foodgen.reporting.plots import label_of, new_figure, save_figure, style, sweep_axes

AXES = {"images": "images seen", "step": "steps", "minutes": "minutes", "core_hours": "hours of one core"}


def variant_of(run: str) -> str:
    """Runs that differ in their seed alone: edm-0 and edm_1 are both of the variant edm."""
    return re.sub(r"(?<=.)[-_]\d+$", "", run)


class FigureKind(ABC):
    """Draws one figure."""

    @abstractmethod
    def __call__(self, data: Path, target: Path) -> None:
        """data: the folder of data files; target: the PNG to write. Raises DataError."""


@figures.add_to_registry(name="curves")
class Curves(FigureKind):
    """Numbers over training: a line for each variant, the mean of its seeds, in a band from the lowest to the highest.

    data      .jsonl of the collector `rows`
    x         images, step, minutes or core_hours
    y         keys, a panel each
    variants  name to label; all under their own names if not given
    log       whether y is drawn on a logarithmic scale
    smooth    rows that a point is the mean of
    """

    def __init__(
        self,
        data: str,
        y: Sequence[str],
        x: str = "images",
        variants: Mapping[str, str] | None = None,
        log: bool = False,
        smooth: int = 1,
    ) -> None:
        if x not in AXES:
            raise ValueError(f"x: {x} is none of {', '.join(AXES)}")
        self.data, self.x, self.y, self.variants, self.log, self.smooth = data, x, y, variants, log, smooth

    def __call__(self, data: Path, target: Path) -> None:
        rows = read_lines(data / self.data)
        variants = self.variants or {
            variant: variant for variant in dict.fromkeys(variant_of(row["run"]) for row in rows)
        }
        figure, axes = new_figure(columns=len(self.y))
        for axis, key in zip(axes, self.y, strict=True):
            for number, (variant, label) in enumerate(variants.items()):
                self._line(
                    axis,
                    [row for row in rows if variant_of(row["run"]) == variant and key in row and self.x in row],
                    key,
                    label,
                    number,
                )
            axis.set_xlabel(AXES[self.x], fontsize=9)
            axis.set_ylabel(label_of(key), fontsize=9)
            axis.set_yscale("log" if self.log else "linear")
            axis.legend(fontsize=7, frameon=False)
        save_figure(figure, target)

    def _line(self, axis: Any, rows: Sequence[Mapping[str, Any]], key: str, label: str, number: int) -> None:
        if not rows:
            raise DataError(f"{self.data}: no row of {label} has {key}")
        runs = dict.fromkeys(row["run"] for row in rows)
        lines = [[(row[self.x], row[key]) for row in rows if row["run"] == run] for run in runs]
        length = min(len(line) for line in lines)
        places = np.array([[x for x, _ in line[:length]] for line in lines]).mean(axis=0)
        values = np.array([self._smoothed([y for _, y in line[:length]]) for line in lines])
        axis.plot(places, values.mean(axis=0), label=label, markevery=max(1, length // 8), **style(number))
        if len(values) > 1:
            axis.fill_between(places, values.min(axis=0), values.max(axis=0), color=style(number)["color"], alpha=0.2)

    def _smoothed(self, values: Sequence[float]) -> list[float]:
        return [float(np.mean(values[max(0, i + 1 - self.smooth) : i + 1])) for i in range(len(values))]


@figures.add_to_registry(name="profile")
class Profile(FigureKind):
    """Numbers of each variant by what their names end in: error_at_0.1, error_at_0.2 and so on; means of seeds.

    data      .jsonl of rows with a run
    prefix    of the numbers' names
    x         what their ends are
    variants  name to label
    """

    def __init__(self, data: str, prefix: str, x: str, variants: Mapping[str, str]) -> None:
        self.data, self.prefix, self.x, self.variants = data, prefix, x, variants

    def __call__(self, data: Path, target: Path) -> None:
        rows = read_lines(data / self.data)
        figure, (axis,) = new_figure(width=5.0)
        for number, (variant, label) in enumerate(self.variants.items()):
            own = [row for row in rows if variant_of(row["run"]) == variant]
            keys = [key for key in (own[0] if own else {}) if key.startswith(self.prefix)]
            if not keys:
                raise DataError(f"{self.data}: no row of {variant} has {self.prefix}…")
            places = [float(key.removeprefix(self.prefix)) for key in keys]
            values = np.array([[row[key] for key in keys] for row in own])
            axis.plot(places, values.mean(axis=0), label=label, **style(number))
            axis.fill_between(places, values.min(axis=0), values.max(axis=0), color=style(number)["color"], alpha=0.2)
        axis.set(xscale="log", yscale="log")
        axis.set_xlabel(self.x, fontsize=9)
        axis.set_ylabel(label_of(self.prefix.rstrip("_").removesuffix("_at")), fontsize=9)
        axis.legend(fontsize=7, frameon=False)
        save_figure(figure, target)


@figures.add_to_registry(name="sweep")
class SweepFigure(FigureKind):
    """Metrics against one setting of a sweep, with the band of real images.

    data           .jsonl of sweeps
    x              the setting's key
    y              metrics, a panel each
    lines          settings that tell lines apart; all others if not given
    log            whether x is drawn on a logarithmic scale
    real_baseline  whether what real images scored is drawn as a band
    """

    def __init__(
        self,
        data: str,
        x: str,
        y: Sequence[str],
        lines: Sequence[str] = (),
        log: bool = False,
        real_baseline: bool = True,
    ) -> None:
        self.data, self.x, self.y, self.lines, self.log, self.real_baseline = data, x, y, lines, log, real_baseline

    def __call__(self, data: Path, target: Path) -> None:
        rows = read_lines(data / self.data)
        for row, key in [(row, key) for row in rows for key in self.y]:
            value_of(row, key, self.data)
        rows = rows if self.real_baseline else [{**row, "real_baseline_by_subset": {}} for row in rows]
        figure, axes = new_figure(columns=len(self.y))
        for axis, key in zip(axes, self.y, strict=True):
            sweep_axes(axis, rows, self.x, key, self.lines)
            if self.log:
                axis.set_xscale("log", base=2)
        save_figure(figure, target)


@figures.add_to_registry(name="panels")
class Panels(FigureKind):
    """Pictures beside each other, each under its title.

    pictures  title to data file
    columns   in a row
    top       share of each picture's height that is shown, from above
    """

    def __init__(self, pictures: Mapping[str, str], columns: int = 4, top: float = 1.0) -> None:
        self.pictures, self.columns, self.top = pictures, min(columns, len(pictures)), top

    def __call__(self, data: Path, target: Path) -> None:
        shown = []
        for title, name in self.pictures.items():
            try:
                with Image.open(data / name) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
            except OSError as error:
                raise DataError(f"{data / name}: {error}") from None
            shown.append((title, pixels[: round(len(pixels) * self.top)]))
        height = max(len(pixels) / pixels.shape[1] for _, pixels in shown)
        rows = -(-len(shown) // self.columns)
        width = max(2.6, 9.0 / self.columns)
        figure, axes = new_figure(self.columns, rows, width, width * height + 0.25)
        for axis in axes:
            axis.axis("off")
        for axis, (title, pixels) in zip(axes, shown, strict=False):
            axis.imshow(pixels, interpolation="none")
            axis.set_title(title, fontsize=9)
        save_figure(figure, target)
