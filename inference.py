"""Draw and score: python3 inference.py exp.config_path=configs/inference/edm.yaml train.checkpoint_path=PATH …"""

from collections.abc import Mapping, Sequence
from typing import Any

from foodgen.builders.inference import make_inference, make_sweep
from foodgen.core import command_line, config, distributed
from foodgen.core.settings import Config


def told(name: str, found: Mapping[str, Any]) -> str:
    """A score with its diversity over seeds, and its real_baseline."""
    line = f"{name}: {found[name]:.3f}"
    if "by_seed" in found:
        line += f" +- {found['deviation'][name]:.3f} over {len(found['by_seed'][name])} seeds"
    if name.rpartition("/")[0] in found.get("trained_against", []):
        line += " (of features that its training used: they flatter)"
    if name in found.get("real_baseline", {}):
        draws = found["real_baseline_by_subset"][name]
        real = f"{found['real_baseline'][name]:.3f}" if len(draws) == 1 else f"{min(draws):.3f} to {max(draws):.3f}"
        line += f"  (real training images, {len(draws)} draws of as many: {real})"
    return line


def main(arguments: Sequence[str]) -> None:
    """Draw and score, or sweep, and say where everything is."""
    settings = config.load(arguments, Config)
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
            print(told(name, found))
        print(f"{found['generated_count']} images; metrics.json is in {inference.folder}")


if __name__ == "__main__":
    command_line.run(main)
