"""Write a checkpoint's averaged weights alone: python3 export.py exp.config_path=… train.checkpoint_path=PATH"""

from collections.abc import Sequence

from foodgen.builders.training import export
from foodgen.core import command_line, config
from foodgen.core.settings import ExportConfig


def main(arguments: Sequence[str]) -> None:
    """Export, and name the files."""
    for path in export(config.load(arguments, ExportConfig)):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    command_line.run(main)
