"""Draw and score: python3 inference.py exp.config_path=configs/inference/edm.yaml train.checkpoint_path=PATH …"""

from collections.abc import Mapping, Sequence
from typing import Any

from foodgen import evaluation
from foodgen.core import command_line, config, distributed
from foodgen.core.settings import Config


def told(name: str, found: Mapping[str, Any]) -> str:
    """A score with its spread over seeds, and its floor."""
    line = f"{name}: {found[name]:.3f}"
    if "by_seed" in found:
        line += f" +- {found['deviation'][name]:.3f} over {len(found['by_seed'][name])} seeds"
    if name.rpartition("/")[0] in found.get("trained_against", []):
        line += " (of features that its training used: they flatter)"
    if name in found.get("floor", {}):
        draws = found["floor_by_draw"][name]
        real = f"{found['floor'][name]:.3f}" if len(draws) == 1 else f"{min(draws):.3f} to {max(draws):.3f}"
        line += f"  (real training images, {len(draws)} draws of as many: {real})"
    return line


def main(arguments: Sequence[str]) -> None:
    """Draw and score, or sweep, and say where everything is."""
    settings = config.load(arguments, Config)
    if settings.inference.sweep:
        sweep = evaluation.make_sweep(settings)
        best = sweep.best(sweep.run())
        if distributed.is_main():
            print(f"best: {best['point']}; rows, grids and figures are in {sweep.folder}")
        return
    inference = evaluation.make_inference(settings)
    found = inference.run()
    if distributed.is_main():
        for name in inference.scored:
            print(told(name, found))
        print(f"{found['generated_count']} images; metrics.json is in {inference.folder}")


if __name__ == "__main__":
    command_line.run(main)
