"""Train a model: python3 train.py exp.config_path=configs/edm.yaml [key=value …]"""

from foodgen.commands import cli
from foodgen.commands.train import main

__all__ = ["main"]

if __name__ == "__main__":
    cli.script("train")
