"""Make a set of small square photos."""

from collections.abc import Sequence

from foodgen.builders.training import prepare
from foodgen.core import config
from foodgen.core.settings import Prepare


def main(arguments: Sequence[str]) -> None:
    """Prepare, and say what came out."""
    settings = config.load(arguments, Prepare)
    manifest = prepare(settings)
    for drop in manifest["dropped"]:
        print(f"dropped {drop['photo']}: {drop['reason']}")
    counts = ", ".join(f"{split} {count}" for split, count in manifest["counts"].items())
    print(f"{settings.target}: {len(manifest['classes'])} classes; {counts}; {len(manifest['dropped'])} photos dropped")
