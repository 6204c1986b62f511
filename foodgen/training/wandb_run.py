"""W&B at arm's length: all calls happen in a thread of their own, so that none can stop training."""

import contextlib
import logging
import netrc
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from foodgen.core.registry import trackers
from foodgen.core.types import TrackerBackend

log = logging.getLogger("foodgen")
PATIENCE = 60.0  # seconds that the end of a run waits for W&B


@trackers.add_to_registry(name="wandb")
class WandbRun(TrackerBackend):
    """One W&B run, taken up again by its id; offline where W&B finds no key for its server.

    folder   where W&B keeps its files
    run_id   stays the same over restarts
    config   of the run, plain mappings
    project  W&B's
    name     of the run; None for one that has a name

    Rows carry their own step, so that rows of a resumed or rolled-back run are kept. Whatever fails
    is said once, and nothing more is sent.
    """

    def __init__(
        self, folder: Path, run_id: str, config: dict[str, Any], project: str = "foodgen", name: str | None = None
    ) -> None:
        self.jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=10_000)
        self.run: Any = None
        self.failed = False
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()
        self._submit(lambda: self._start(folder, run_id, name, project, config))

    def log(self, row: Mapping[str, Any]) -> None:
        self._submit(lambda: self.run.log(dict(row)))

    def image(self, step: int, name: str, path: Path) -> None:

        def send() -> None:
            import wandb

            self.run.log({"step": step, name: wandb.Image(str(path))})

        self._submit(send)

    def table(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:

        def send() -> None:
            import wandb

            data = [list(row.values()) for row in rows]
            self.run.log({"step": step, name: wandb.Table(columns=[*rows[0]], data=data)})

        self._submit(send)

    def close(self, status: int) -> None:
        """Finish the run: without this, W&B's offline file stays empty."""
        self._submit(lambda: self.run.finish(exit_code=status))
        with contextlib.suppress(queue.Full):  # then nobody reads any more
            self.jobs.put_nowait(None)
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            log.warning("W&B did not finish within %.0f s; its rows are in metrics.jsonl", PATIENCE)

    def _start(self, folder: Path, run_id: str, name: str | None, project: str, config: dict[str, Any]) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        settings = wandb.Settings(silent=True, disable_git=True, save_code=False, init_timeout=PATIENCE)
        common: dict[str, Any] = {"project": project, "name": name, "id": run_id, "resume": "allow", "config": config}
        common |= {"dir": str(folder), "settings": settings}
        try:
            self.run = wandb.init(**common, mode=mode)
        except Exception as error:
            if mode == "offline":
                raise
            log.warning("W&B cannot be reached (%s); this run is logged offline", error)
            self.run = wandb.init(**common, mode="offline")
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        where = self.run.url or f"offline: wandb sync {self.run.settings.sync_dir}"
        tqdm.write(f"W&B: {where}", file=sys.stderr)

    def _submit(self, job: Callable[[], None]) -> None:
        if not self.failed:
            try:
                self.jobs.put_nowait(job)
            except queue.Full:
                self._give_up("it does not answer")

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            if self.failed:
                continue
            try:
                job()
            except Exception as error:
                self._give_up(f"{type(error).__name__}: {error}")

    def _give_up(self, reason: str) -> None:
        self.failed = True
        log.warning("W&B is left out from here on (%s); all rows are in metrics.jsonl", reason)


def has_key() -> bool:
    """Whether W&B has a key for its server: in its settings, its environment or the server's entry in netrc."""
    import wandb

    settings = wandb.setup().settings
    if settings.mode == "offline":  # what `wandb offline` sets
        return False
    if settings.api_key or settings.identity_token_file:
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(settings.base_url).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False
