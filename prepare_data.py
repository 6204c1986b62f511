"""Make a set of small square photos: python3 prepare_data.py exp.config_path=configs/prepare.yaml source=… target=…"""

from foodgen.commands import cli
from foodgen.commands.prepare import main

__all__ = ["main"]

if __name__ == "__main__":
    cli.script("prepare")
