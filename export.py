"""Write a checkpoint's averaged weights alone: python3 export.py exp.config_path=… train.checkpoint_path=PATH"""

from foodgen.commands import cli
from foodgen.commands.export import main

__all__ = ["main"]

if __name__ == "__main__":
    cli.script("export")
