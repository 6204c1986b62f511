"""Sweeps: an inference at every point, each with other settings; resumed where it was interrupted."""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from foodgen.core import distributed
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.files import read_jsonl, write_text
from foodgen.evaluation.inference import Inference

ROWS = "sweep.jsonl"
IRRELEVANT = {  # settings that scores do not depend on
    "exp": ("config_path", "exp_dir", "run", "device", "use_wandb", "wandb_project"),
    "data": ("train_batch_size", "val_batch_size", "workers", "keep_on_device", "inception_weights"),
    "train": ("checkpoint_path",),
    "inference": ("output_dir", "overwrite", "sweep", "visualisations"),
}


def points_of(sweep: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Settings by dotted key: all combinations of a mapping's values, or the points of a list as they are."""
    if not isinstance(sweep, Mapping):
        return [dict(point) for point in sweep]
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def digest(inference: Inference) -> str:
    """Of all that a point's scores depend on: settings, weights, counts, feature spaces and their images."""
    tree: Any = OmegaConf.to_container(OmegaConf.create(inference.config))
    for section, names in IRRELEVANT.items():
        for name in names:
            tree[section].pop(name, None)
    tree.pop("trackers", None)
    known = [inference.seeds[0], len(inference.seeds), inference.facts, tree]
    known += inference.scorer.identity() if inference.scorer else []
    if inference.scorer and inference.scorer.of_model:  # the noise of these is drawn batch by batch
        known.append(OmegaConf.create(inference.config).data.val_batch_size)
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Sweep:
    """Scores at many points, a row of sweep.jsonl each; no images are kept but a grid of each point.

    folder  gets sweep.jsonl and sweep/<key>.png
    points  settings by dotted key
    make    a point to its inference
    plot    (rows, folder) to figures
    first   the metric that chooses the best point, and whether a lower one is better
    """

    folder: Path
    points: Sequence[Mapping[str, Any]]
    make: Callable[[Mapping[str, Any]], Inference]
    plot: Callable[[Sequence[Mapping[str, Any]], Path], None]
    first: tuple[str, bool]

    def run(self) -> list[dict[str, Any]]:
        """The rows of all points, those of an earlier run included. Raises UserError."""
        path = self.folder / ROWS
        known = {row["made_of"]: row for row in read_jsonl(path)}
        if distributed.is_main() and path.is_file():  # without a line that a kill cut off
            write_text(path, "".join(json.dumps(row) + "\n" for row in known.values()))
        rows = []
        keys = [digest(self.make(point)) for point in self.points]  # raises for all mistakes before any long work
        for index, (point, key) in enumerate(zip(self.points, keys, strict=True)):
            if key not in known:
                inference = self.make(point)
                found, _ = inference.score(grid=self.folder / "sweep" / f"{key}.png" if inference.labels else None)
                found = distributed.gather(found)[0]  # scores are the first process's
                known[key] = {"point": dict(point), "made_of": key, **found}
                if distributed.is_main():
                    self._append(path, known[key])
            rows.append(known[key])
            if distributed.is_main():
                settings = ", ".join(f"{name}={value}" for name, value in point.items())
                name, value = self.first[0], rows[-1][self.first[0]]
                print(f"{index + 1}/{len(self.points)} {settings}: {name} {value:.3f}", flush=True)
        if distributed.is_main():
            self.plot(rows, self.folder)
        return rows

    def best(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The row with the best first metric."""
        name, lower_is_better = self.first
        return (min if lower_is_better else max)(rows, key=lambda row: row[name])

    def _append(self, path: Path, row: Mapping[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error})") from None


def nested(point: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}. Raises ConfigError for a key that lies within another."""
    tree: dict[str, Any] = {}
    for key, value in point.items():
        *above, last = key.split(".")
        node = tree
        for name in above:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ConfigError(f"inference.sweep: {key} lies within another of its keys")
        if last in node:
            raise ConfigError(f"inference.sweep: another of its keys lies within {key}")
        node[last] = value
    return tree
