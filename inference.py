"""Sample and score: python3 inference.py exp.config_path=configs/inference/edm.yaml train.checkpoint_path=PATH …"""

from foodgen.commands import cli
from foodgen.commands.inference import main

__all__ = ["main"]

if __name__ == "__main__":
    cli.script("sample")
