"""Write a checkpoint's averaged weights alone."""

from collections.abc import Sequence

from foodgen.builders.training import export
from foodgen.core import config
from foodgen.core.settings import ExportConfig


def main(arguments: Sequence[str]) -> None:
    """Export, and name the files."""
    for path in export(config.load(arguments, ExportConfig)):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
