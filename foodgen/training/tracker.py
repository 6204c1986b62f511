"""Tracking: metrics.jsonl always, other backends where they work, a line or a bar for whoever watches."""

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from foodgen.core import distributed
from foodgen.core.files import read_jsonl, write_text
from foodgen.core.types import TrackerBackend

log = logging.getLogger("foodgen")


class Tracker:
    """Averages what steps measure, and writes rows.

    folder    of the run; None on all processes but the first, which then only take part in averages
    steps     of the whole training
    backends  that rows and images are sent to as well; one that fails is left out from then on
    """

    def __init__(self, folder: Path | None, steps: int, backends: Sequence[TrackerBackend] = ()) -> None:
        self.folder, self.steps, self.backends = folder, steps, [*backends]
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}  # a lazy penalty is not measured in every step
        self.since: tuple[float, int] = (time.monotonic(), 0)
        self.warned = False
        self.bar = tqdm(total=steps, unit="step", disable=None if folder else True, dynamic_ncols=True)

    def resume(self, step: int, state: Mapping[str, Any]) -> None:
        """Take up at `step`: rows of later steps are cut off, half-full averages restored."""
        self.sums = dict(state["sums"])
        counts = state.get("counts") or {name: state["count"] for name in self.sums}  # older: one for all
        self.counts = {name: torch.as_tensor(count) for name, count in counts.items()}
        self.bar.n = step
        self.bar.refresh()
        if self.folder and (path := self.folder / "metrics.jsonl").is_file():
            kept = [json.dumps(row) + "\n" for row in read_jsonl(path) if row["step"] <= step]
            write_text(path, "".join(kept))

    def state(self) -> dict[str, Any]:
        """What `resume` wants."""
        return {
            "sums": {name: value.cpu() for name, value in self.sums.items()},
            "counts": {name: int(count) for name, count in self.counts.items()},
        }

    def add(self, measured: Mapping[str, Tensor]) -> None:
        """Take in a step's measurements but those that are not finite; nothing is read from the device."""
        for name, value in measured.items():
            finite = torch.isfinite(value)
            known = torch.where(finite, value, 0)
            self.sums[name] = self.sums[name].to(value.device) + known if name in self.sums else known
            self.counts[name] = self.counts[name].to(value.device) + finite if name in self.counts else finite.long()
        self.bar.update(1)

    def flush(self, step: int, images: int, **more: float) -> None:
        """Write the means since the last row, without what was never finite."""
        names = sorted(self.sums)
        device = max((value.device for value in self.sums.values()), key=lambda device: device.type != "cpu")
        sums = torch.stack([self.sums[name].float().to(device) for name in names])
        counts = torch.stack([self.counts[name].float().to(device) for name in names])
        distributed.average([sums, counts])
        means = (sums / counts).tolist()
        row = {name: mean for name, mean in zip(names, means, strict=True) if math.isfinite(mean)}
        self.sums, self.counts = {}, {}
        now = time.monotonic()
        speed = (images - self.since[1]) / max(1e-9, now - self.since[0]) if self.since[1] else None
        self.since = (now, images)
        self.write({"step": step, "images": images, **more, **row} | ({"images_per_second": speed} if speed else {}))
        self._show(step, row, speed)

    def pause(self) -> None:
        """Leave the time until the next row out of the speed."""
        self.since = (time.monotonic(), 0)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl, flushed, and send it to the backends. A full disk is warned of once."""
        if not self.folder:
            return
        try:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            if not self.warned:
                log.warning("metrics.jsonl could not be written (%s); training goes on", error)
            self.warned = True
        self._send(lambda backend: backend.log(row))

    def image(self, step: int, name: str, path: Path) -> None:
        """Send an image's file to the backends."""
        self._send(lambda backend: backend.image(step, name, path))

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        if self.folder:
            tqdm.write(text, file=sys.stderr)

    def close(self, status: int) -> None:
        """End the bar and the backends' runs."""
        self.bar.close()
        self._send(lambda backend: backend.close(status))

    def _send(self, call: Callable[[TrackerBackend], None]) -> None:
        for backend in [*self.backends]:
            try:
                call(backend)
            except Exception as error:  # whatever it is, training goes on
                self.backends.remove(backend)
                with contextlib.suppress(Exception):
                    backend.close(1)
                log.warning("%s is left out from here on (%s: %s)", type(backend).__name__, type(error).__name__, error)

    def _show(self, step: int, row: Mapping[str, float], speed: float | None) -> None:
        losses = {name: f"{value:.4f}" for name, value in row.items() if name.endswith("loss")}
        shown = losses | ({"img/s": f"{speed:.1f}"} if speed else {})
        self.bar.set_postfix(shown)
        if self.bar.disable:
            self.say(f"step {step}/{self.steps}  " + "  ".join(f"{name} {value}" for name, value in shown.items()))
