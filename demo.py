"""From training to scores in a few minutes: train a small model by train.py, sample and score by inference.py."""

import subprocess
import sys
from pathlib import Path

RUN, SHIPPED, FOOD = Path("runs/demo"), Path("checkpoints/gan"), Path("runs/demo_food")
CONFIG = "exp.config_path=configs/demo.yaml"


def call(script: str, *arguments: str) -> None:
    """Run one of the scripts as a user would, and stop where it fails."""
    print(f"\n$ python3 {script} {' '.join(arguments)}", flush=True)
    status = subprocess.call([sys.executable, script, *arguments])
    if status:
        sys.exit(status)


if __name__ == "__main__":
    call("train.py", CONFIG, "train.checkpoint_path=latest")
    call("inference.py", CONFIG, "train.checkpoint_path=latest", "inference.overwrite=true")
    food = [f"exp.config_path={SHIPPED / 'inference.yaml'}", "inference.count=101", "inference.metrics=[]"]
    call("inference.py", *food, f"inference.output_dir={FOOD}", "inference.overwrite=true")
    print(f"\nimages by class: {RUN / 'grid.png'}\nnumbers: {RUN / 'metrics.json'}, {RUN / 'metrics.jsonl'}")
    print(f"food, an image of each class by the model in {SHIPPED}: {FOOD / 'grid.png'}")
    print("run it again to train further")
