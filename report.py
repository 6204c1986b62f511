"""Tables for the reports: python3 report.py exp.config_path=configs/reports/gan_sizes.yaml"""

from collections.abc import Sequence
from pathlib import Path

import torch

from foodgen.core import command_line
from foodgen.core import config as configuration
from foodgen.core.settings import Config, Report
from foodgen.recipe import make_model, make_trainer
from foodgen.reporting.sizes import Size, multiply_adds, table, weights

COSTED = 10  # images in a step whose cost is counted


def measure(path: str, class_count: int) -> Size:
    """What a configuration weighs and costs in its first training step, in which no lazy penalty is due."""
    config = configuration.load([f"exp.config_path={path}", "data.keep_on_device=false"], Config)
    made = make_model(config, [f"class {number}" for number in range(class_count)], torch.device("cpu"))
    objective = made.objective
    assert objective is not None
    trained = {player: weights(getattr(objective, player), trained=True) for player in config.optimizers}
    frozen = weights(objective, trained=False)
    drawing = multiply_adds(lambda: made.drawer(made.model.eval(), [0], seed=0))
    objective.train().to("meta")  # shapes alone tell the cost
    trainer = make_trainer(config, made, images=None)
    photos = torch.zeros(COSTED, 3, *[config.data.image_size] * 2, dtype=torch.uint8, device="meta")
    labels = torch.zeros(COSTED, dtype=torch.long, device="meta")
    training = multiply_adds(lambda: trainer.step(1, photos, labels))
    name = path.removeprefix("configs/").removesuffix(".yaml")
    return Size(name, trained, frozen, drawing, training / COSTED)


def main(arguments: Sequence[str]) -> None:
    """Write the table into its file, and show it."""
    settings = configuration.load(arguments, Report)
    text = table([measure(path, settings.class_count) for path in settings.configs], settings.published)
    target = Path(settings.target)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    print(text, end="")
    print(f"written to {target}")


if __name__ == "__main__":
    command_line.run(main)
