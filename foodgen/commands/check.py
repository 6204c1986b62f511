"""Look at a folder of photos before training on it."""

from collections.abc import Sequence
from pathlib import Path

from foodgen.core import config
from foodgen.core.settings import Check
from foodgen.data.checking import check_folder


def main(arguments: Sequence[str]) -> int:
    """Print what there is and what is wrong; 0 if nothing hinders a training, else 1. Raises UserError."""
    settings = config.load(arguments, Check)
    found = check_folder(Path(settings.data), settings.image_size)
    print(found)
    return 1 if found.errors else 0
