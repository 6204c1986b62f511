"""One photo of a source."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from foodgen.data.images import ENDINGS
from foodgen.data.names import file_name

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Photo:
    """One photo of the source: its class, its name, where it came from, and its bytes on demand.

    place  in the order that is quickest to read in
    """

    split: str | None
    label: str
    name: str
    origin: str
    read: Callable[[], bytes]
    place: int = 0


def place_of(parts: Sequence[str]) -> tuple[str | None, str, str] | None:
    """Split, class and name of [train/|test/]<class>/<name>.<ending>, or None for anything else."""
    if len(parts) < 2 or any(part.startswith((".", "__MACOSX")) for part in parts):
        return None
    if Path(parts[-1]).suffix.lower() not in ENDINGS:
        return None
    split = parts[-3] if len(parts) > 2 and parts[-3] in (TRAIN, TEST) else None
    return split, parts[-2], file_name(Path(parts[-1]).stem)
