"""Sample images of a trained model, and score them."""

from collections.abc import Mapping, Sequence
from typing import Any

from foodgen.builders.inference import FROM_THE_CHECKPOINT, make_inference, make_sweep
from foodgen.core import config, distributed
from foodgen.core.errors import ConfigError
from foodgen.core.settings import Config

REASON = "inference takes it from the checkpoint"


def line_of(name: str, found: Mapping[str, Any]) -> str:
    """A score with its standard deviation over seeds, and the real-data baseline."""
    line = f"{name}: {found[name]:.3f}"
    if "by_seed" in found:
        line += f" +- {found['deviation'][name]:.3f} over {len(found['by_seed'][name])} seeds"
    if name.rpartition("/")[0] in found.get("trained_against", []):
        line += " (in features that its training used, which flatters it)"
    if name in found.get("real_baseline", {}):
        values = found["real_baseline_by_subset"][name]
        real = f"{found['real_baseline'][name]:.3f}" if len(values) == 1 else f"{min(values):.3f} to {max(values):.3f}"
        line += f"  (real training images, {len(values)} subsets of as many: {real})"
    return line


def main(arguments: Sequence[str]) -> None:
    """Sample and score, or sweep, and say where everything is."""
    of_folder = any(argument.startswith("inference.images=") for argument in arguments)
    settings = config.load(arguments, Config, fixed={} if of_folder else dict.fromkeys(FROM_THE_CHECKPOINT, REASON))
    if settings.inference.sweep:
        sweep = make_sweep(settings)
        best = sweep.best(sweep.run())
        if distributed.is_main():
            print(f"best: {best['point']}; rows, grids and figures are in {sweep.folder}")
        return
    inference = make_inference(settings)
    found = inference.run()
    if distributed.is_main():
        for name in inference.scored:
            print(line_of(name, found))
        print(f"{found['generated_count']} images; metrics.json is in {inference.folder}")


def score(arguments: Sequence[str]) -> None:
    """Score a folder of images, `inference.images`. Raises ConfigError if there is none."""
    if not any(argument.startswith("inference.images=") for argument in arguments):
        raise ConfigError("inference.images=FOLDER is missing: the class folders of images to score")
    main(arguments)
