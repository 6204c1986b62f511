"""Make figures and tables of a report."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from foodgen.builders.dry_run import training_cost
from foodgen.builders.models import make_model
from foodgen.core import config as configuration
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.files import atomic, write_text
from foodgen.core.registry import build, suggestion
from foodgen.core.settings import Config, Report
from foodgen.reporting.sizes import Size, multiply_adds, weights
from foodgen.reporting.tables import replaced


def measure(path: str, class_count: int) -> Mapping[str, Any]:
    """What a configuration weighs and costs in its first training step, in which no lazy penalty is due."""
    config = configuration.load([f"exp.config_path={path}", "data.keep_on_device=false"], Config)
    made = make_model(config, [f"class {number}" for number in range(class_count)], torch.device("cpu"))
    objective = made.objective
    assert objective is not None
    trained = {name: weights(getattr(objective, name), trained=True) for name in config.optimizers}
    frozen = weights(objective, trained=False)
    drawing = multiply_adds(lambda: made.sampling(made.model.eval(), [0], seed=0))
    name = path.removeprefix("configs/").removesuffix(".yaml")
    return dataclasses.asdict(Size(name, trained, frozen, drawing, training_cost(config, made)))


def main(arguments: Sequence[str]) -> None:
    """Gather what is missing or asked for, then draw all figures and write all tables."""
    settings = configuration.load(arguments, Report)
    made = {
        kind: {name: build(kind, node, f"{kind}.{name}", **given) for name, node in getattr(settings, kind).items()}
        for kind, given in (("gather", {"measure": measure}), ("figures", {}), ("tables", {}))
    }
    folder = Path(settings.target)
    everything = list(made["gather"]) if settings.refresh else []
    asked = settings.refresh if isinstance(settings.refresh, list) else everything
    for name in asked:
        if name not in made["gather"]:
            raise ConfigError(f"refresh: no data file is named '{name}'; {suggestion(name, made['gather'])}")
    if made["tables"] and not (folder / "README.md").is_file():
        raise DataError(f"target: {folder / 'README.md'} is missing; it holds the places of the tables")
    _write(folder, made, asked)


def _write(folder: Path, made: Mapping[str, Mapping[str, Any]], asked: Sequence[str]) -> None:
    """Data files that are missing or asked for, all figures and all tables."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for name, gather in made["gather"].items():
        if name in asked or not (data / name).exists():
            with atomic(data / name) as temporary:
                gather(temporary)
            print(f"gathered {data / name}")
    for name, draw in made["figures"].items():
        draw(data, folder / "figures" / name)
        print(f"drew {folder / 'figures' / name}")
    if made["tables"]:
        _write_tables(folder / "README.md", {mark: make(data) for mark, make in made["tables"].items()})


def _write_tables(path: Path, tables: Mapping[str, str]) -> None:
    try:
        text = path.read_text()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); it holds the places of the tables") from None
    for mark, table in tables.items():
        text = replaced(text, mark, table)
    write_text(path, text)
    print(f"wrote {len(tables)} tables into {path}")
