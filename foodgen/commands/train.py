"""Train a model."""

from collections.abc import Sequence

from foodgen.builders.training import make_session
from foodgen.core import config
from foodgen.core.settings import Config
from foodgen.training import run_folder


def main(arguments: Sequence[str]) -> int:
    """Train until the end, a time budget or a signal; the exit status."""
    settings = config.load(arguments, Config)
    with run_folder.locked(settings):
        return make_session(settings).run()
