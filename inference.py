"""Draw images: python3 inference.py exp.config_path=configs/inference/edm.yaml train.checkpoint_path=PATH …"""

from collections.abc import Sequence

from foodgen import recipe
from foodgen.core import command_line, config
from foodgen.core.settings import Config


def main(arguments: Sequence[str]) -> None:
    """Draw and score, and say where everything is."""
    settings = config.load(arguments, Config)
    inference = recipe.make_inference(settings)
    found = inference.run()
    for name in settings.inference.metrics:
        print(f"{name}: {found[name]:.3f}" if name in found else "")
    print(f"{found['generated_count']} images, grid.png and metrics.json are in {inference.folder}")


if __name__ == "__main__":
    command_line.run(main)
