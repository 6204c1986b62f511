"""Figures of sweeps and curves, by matplotlib: legible in print and without colours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foodgen.core.files import atomic

if TYPE_CHECKING:  # it takes long to load
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, 2008
MARKERS, DASHES = "osD^vPX", ("-", "--", "-.", ":")
LABELS = {"fid": "FID", "kid": "KID, thousandths"}


def new_figure(columns: int = 1, rows: int = 1, width: float = 4.0, height: float = 3.0) -> "tuple[Figure, list[Axes]]":
    """A figure and its axes, in reading order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axis in axes:
        axis.grid(True, alpha=0.3, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, axes


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG, whole or not at all, with nothing in it that changes from one time to the next."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def style(number: int) -> dict[str, Any]:
    """Of the line of this number: colour, marker and dashes all differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "markersize": 4,
        "linewidth": 1.4,
    }


def label_of(name: str) -> str:
    """How an axis calls a number."""
    space, _, own = name.rpartition("/")
    title = LABELS.get(own, own.replace("_", " "))
    return f"{title} ({space})" if space else title


def sweep_axes(axis: "Axes", rows: Sequence[Mapping[str, Any]], x: str, y: str, lines: Sequence[str] = ()) -> None:
    """Draw y against the setting x, a line for each combination of the other settings, and the real images' band."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if x in row["point"] or x in row:
            rest = {key: value for key, value in row["point"].items() if key != x and (not lines or key in lines)}
            groups.setdefault(", ".join(f"{key.split('.')[-1]} {value}" for key, value in rest.items()), []).append(row)
    places = {id(row): row["point"].get(x, row.get(x)) for group in groups.values() for row in group}
    words = not all(isinstance(place, int | float) for place in places.values())
    for number, (label, group) in enumerate(groups.items()):
        points = [(str(places[id(row)]) if words else places[id(row)], row) for row in group]
        points = points if words else sorted(points, key=lambda pair: pair[0])
        errors = [row.get("deviation", {}).get(y, row.get(f"{y}_error", 0.0)) for _, row in points]
        values = [row[y] for _, row in points]
        axis.errorbar([place for place, _ in points], values, errors, label=label or None, capsize=2, **style(number))
    baselines = [value for row in rows for value in row.get("real_baseline_by_subset", {}).get(y, [])]
    if baselines:
        axis.axhspan(min(baselines), max(baselines), color="0.6", alpha=0.6, linewidth=1, label="real images")
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(label_of(y), fontsize=9)
    if baselines or len(groups) > 1:
        axis.legend(fontsize=7, frameon=False)


def plot_sweep(rows: Sequence[Mapping[str, Any]], folder: Path, names: Sequence[str]) -> None:
    """<folder>/sweep-<setting>.png for every setting with two values or more: each metric against it."""
    keys = list(dict.fromkeys(key for row in rows for key in row["point"]))
    found = [name for name in names if all(name in row for row in rows)]
    for key in keys:
        if len({repr(row["point"].get(key)) for row in rows}) < 2:
            continue
        figure, axes = new_figure(columns=len(found))
        for axis, name in zip(axes, found, strict=True):
            sweep_axes(axis, rows, key, name)
        save_figure(figure, folder / f"sweep-{key}.png")
