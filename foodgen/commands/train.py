"""Train a model."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from foodgen.builders import dry_run
from foodgen.builders.training import make_session
from foodgen.core import config
from foodgen.core.errors import UserError
from foodgen.core.settings import Config
from foodgen.training import run_folder


def main(arguments: Sequence[str]) -> int:
    """Train until the end, a time budget or a signal, or say what it would cost; the exit status."""
    settings = config.load(arguments, Config)
    if settings.exp.dry_run:
        print(dry_run.describe(settings))
        return 0
    missing = _missing(run_folder.run_folder(settings))
    try:
        with run_folder.locked(settings):
            return make_session(settings).run()
    except UserError:  # what was refused leaves no folder: those that were made are empty, unless a training began
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


def _missing(folder: Path) -> list[Path]:
    """The folder and those above it that are yet to be made, the innermost first."""
    try:
        return [one for one in (folder, *folder.parents) if not one.exists()]
    except OSError:  # not ours to look into, nor to write in, as is told when it is tried
        return []
