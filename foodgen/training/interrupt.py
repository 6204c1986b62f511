"""SIGTERM and Ctrl-C: the first asks for a clean end, the second ends at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from foodgen.core import distributed


class Interrupted(BaseException):
    """Raised amid work that may be dropped, so that it need not be waited for."""


class Interrupt:
    """While entered, remembers the first SIGTERM or SIGINT instead of dying from it."""

    def __init__(self) -> None:
        self.signal = 0
        self.droppable = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @property
    def status(self) -> int:
        """The exit status that the signal asks for, 0 without one: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signal if self.signal else 0

    @contextmanager
    def drop(self) -> Iterator[None]:
        """Work during which a signal raises Interrupted at once, unless other processes would wait in vain."""
        self.droppable = distributed.world_size() == 1
        try:
            if self.signal and self.droppable:
                raise Interrupted
            yield
        finally:
            self.droppable = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        if self.droppable:
            raise Interrupted
