"""One photo of a source."""

from collections.abc import Callable
from dataclasses import dataclass

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
