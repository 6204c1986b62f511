"""Food from the shipped models, then the way there in small: python3 demo.py exp.config_path=configs/demo.yaml"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from foodgen.core import command_line, config
from foodgen.core.errors import UserError
from foodgen.core.settings import Config
from foodgen.training.run_folder import run_folder

SHIPPED = {name: Path("checkpoints") / name for name in ("gan", "diffusion")}


def call(script: str, *arguments: str) -> None:
    """Run one of the scripts as a user would. Raises UserError where it fails."""
    print(f"\n$ python3 {script} {' '.join(arguments)}", flush=True)
    status = subprocess.call([sys.executable, script, *arguments])
    if status:
        raise UserError(f"{script} ended with status {status}")


def main(arguments: Sequence[str]) -> None:
    """Sample both shipped models, an image of each class; train the configuration's model; sample and score it."""
    run = run_folder(config.load(arguments, Config))
    food = {name: run.with_name(f"{run.name}_{name}") for name in SHIPPED}
    for name, folder in SHIPPED.items():
        sampled = ["inference.count=101", "inference.metrics=[]", f"inference.output_dir={food[name]}"]
        call("inference.py", f"exp.config_path={folder / 'inference.yaml'}", *sampled, "inference.overwrite=true")
    call("train.py", *arguments, "train.checkpoint_path=latest")
    call("inference.py", *arguments, "train.checkpoint_path=latest", "inference.overwrite=true")
    for name, folder in food.items():
        print(f"food, an image of each class by {SHIPPED[name]}: {folder / 'grid.png'}")
    print(f"synthetic dishes by the model trained just now: {run / 'grid.png'}, scores in {run / 'metrics.json'}")
    print("run it again to train further")


if __name__ == "__main__":
    command_line.run(main)
