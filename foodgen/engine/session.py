"""One sitting of training: when to log, validate, save and stop."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foodgen.core import distributed
from foodgen.core.errors import CheckpointError
from foodgen.core.settings import Train
from foodgen.core.types import Measure
from foodgen.engine.checkpoint import Checkpoint, Checkpoints, read
from foodgen.engine.evaluator import (
    Drawer,
    Measurer,
    balanced_labels,
    check_shares,
    matching_labels,
    warn_of_collapse,
)
from foodgen.engine.interrupt import Interrupt, Interrupted
from foodgen.engine.scoring import Judge, Scorer
from foodgen.engine.snapshots import Snapshots
from foodgen.engine.tracker import Tracker
from foodgen.engine.trainer import Trainer

log = logging.getLogger("foodgen")
MOST_FAILED_SAVES = 3


class Session:
    """Runs a trainer with all that surrounds it.

    settings    the configuration's `train` section
    batch_size  images a step
    classes     names, kept in checkpoints
    folder      of the run
    config      the configuration as YAML, kept in checkpoints
    run_id      W&B's, kept in checkpoints
    drawer      draws validation images; scorer scores them, where there is one
    measurer    measures the model on real images, where there is something to measure
    first       of the metrics and measures: it tells the best checkpoint
    paint       (images, labels, path) to a grid's file
    spread      (images, labels) to each class's share of the variety of real images, for a warning

    Raises ConfigError if as many images as `val_count` cannot have the reference's shares of classes.
    """

    def __init__(
        self,
        settings: Train,
        batch_size: int,
        classes: Sequence[str],
        folder: Path,
        config: str,
        run_id: str,
        seed: int,
        trainer: Trainer,
        tracker: Tracker,
        drawer: Drawer,
        scorer: Scorer | None,
        measurer: Measurer | None,
        first: Judge | Measure | None,
        paint: Callable[[Tensor, Sequence[int], Path], None],
        spread: Callable[[Tensor, Sequence[int]], Mapping[str, float]],
    ) -> None:
        self.settings, self.batch_size, self.classes = settings, batch_size, classes
        self.folder, self.config, self.run_id, self.seed = folder, config, run_id, seed
        self.trainer, self.tracker, self.drawer, self.scorer, self.paint = trainer, tracker, drawer, scorer, paint
        self.measurer, self.first, self.spread = measurer, first, spread
        self.snapshots = Snapshots(folder)
        self.val_labels = matching_labels(settings.val_count, scorer.reference) if scorer else []
        if scorer:
            check_shares(self.val_labels, scorer.reference, "train.val_count")
        self.checkpoints = Checkpoints(folder / "checkpoints", settings.keep_checkpoints)
        self.best: float | None = None
        self.validated = self.saved = 0
        self.failed_saves = 0
        self.minutes_before = 0.0
        self.began = time.monotonic()
        self.interrupt = Interrupt()

    def resume(self, path: Path) -> None:
        """Take everything from a checkpoint. Raises CheckpointError if it does not fit."""
        checkpoint = read(path)
        meta = checkpoint.meta
        load(self.trainer.objective, checkpoint.weights, path)
        load(self.trainer.ema.model, checkpoint.average, path)
        try:
            for name, optimizer in self.trainer.optimizers.items():
                optimizer.load_state_dict(checkpoint.training["optimizers"][name])
                optimizer.scaler.load_state_dict(checkpoint.training.get("scalers", {}).get(name, {}))
            self.trainer.ema.load_state_dict(checkpoint.training.get("averages", {}))
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path}: its optimizers or averages are not those of the configuration ({error})"
            ) from None
        self.trainer.done = self.saved = meta["step"]
        self.best, self.validated, self.minutes_before = meta["best"], meta["validated"], meta["minutes"]
        self.tracker.resume(meta["step"], checkpoint.training["tracker"])
        self.checkpoints.protected.add(path.name)
        if distributed.is_main():
            self.snapshots.forget_after(meta["step"])
        self.tracker.say(f"resumed {path} at step {meta['step']}")

    def run(self) -> int:
        """Train until the end, the time budget or a signal; the exit status."""
        with self.interrupt:
            status = 1
            try:
                self._run()
                status = self.interrupt.status
            finally:
                self.tracker.close(status)
        return status

    def _run(self) -> None:
        if self.trainer.done > self.validated and self._validation_is_due():  # a stop had cut it off
            self._validate_and_save()
        if self.trainer.done >= self.settings.steps:
            self.tracker.say(f"all {self.settings.steps} steps are done; raise train.steps to go on")
            return
        self.trainer.train(self.settings.steps, self._after_step)
        if self.interrupt.signal:
            self.tracker.say(f"stopped by a signal at step {self.trainer.done}; train.checkpoint_path=latest goes on")

    def _after_step(self, measured: dict[str, Tensor]) -> bool:
        """Whatever is due after a step; True ends the training."""
        step = self.trainer.done
        self.tracker.add(measured)
        if step % self.settings.log_step == 0:
            rates = {
                f"{player}/{name}": value
                for player, optimizer in self.trainer.optimizers.items()
                for name, value in {"learning_rate": optimizer.rate(), **optimizer.scaler.numbers()}.items()
            }
            self.tracker.flush(step, step * self.batch_size, minutes=self._minutes(), **rates)
        self._keep_averages()
        stop = bool(distributed.agree(int(self._must_stop())))
        if not stop and self._validation_is_due():
            self._validate_and_save()
        elif stop or step % self.settings.checkpoint_step == 0:
            self._save(final=stop)
        return stop or bool(distributed.agree(self.interrupt.signal))

    def _keep_averages(self) -> None:
        """A snapshot of the averages when one is due, and at the end; it may fail."""
        step, every = self.trainer.done, self.trainer.ema.snapshot_step
        if every and (step % every == 0 or step == self.settings.steps) and distributed.is_main():
            try:
                self.snapshots.save(step, self.trainer.ema.snapshots())
            except CheckpointError as error:
                log.warning("no snapshot of the averages, training goes on: %s", error)

    def _validation_is_due(self) -> bool:
        return self.trainer.done % self.settings.val_step == 0 or self.trainer.done == self.settings.steps

    def _must_stop(self) -> bool:
        budget = self.settings.max_minutes
        over = budget is not None and time.monotonic() - self.began > 60 * budget
        if over and not self.interrupt.signal:
            self.tracker.say(
                f"the time budget is used up at step {self.trainer.done}; train.checkpoint_path=latest goes on"
            )
        return over or bool(self.interrupt.signal)

    def _validate_and_save(self) -> None:
        """Save first, since drawing takes long and may fail; then again with what validation found."""
        final = self.trainer.done == self.settings.steps
        self._save(final=final)
        try:
            with self.interrupt.drop():
                better = self._validate()
        except Interrupted:
            self.tracker.say("validation was cut off; it is made up for when training resumes")
            return
        self.validated, self.saved = self.trainer.done, 0
        self._save(best=better, final=final)
        self.tracker.pause()

    def _validate(self) -> bool:
        """Draw with the averaged model, paint a grid, score; whether the first metric is the best so far."""
        step, model = self.trainer.done, self.trainer.ema.model
        distributed.copy_from_main(model)  # batch norm has seen other images on other processes
        if self.drawer.draws:
            grid = balanced_labels(self.settings.grid_count, range(len(self.classes)))
            images = self.drawer(model, grid, self.seed)
            if distributed.is_main():
                self._paint(images, grid, self.folder / "grids" / f"step-{step:08d}.png")
                warn_of_collapse("pixels", self.spread(images, grid))
        if self.first is None:
            return False
        labels = self.val_labels
        scores = self.scorer(self.drawer(model, labels, self.seed), labels).numbers if self.scorer else {}
        measured = self.measurer(model, self.seed) if self.measurer else {}
        scores = distributed.gather(scores | measured)[0]
        row = {f"val/{name}": value for name, value in scores.items()}
        about = {"val/count": len(labels)} | ({"val/precision": self.scorer.precision} if self.scorer else {})
        self.tracker.write({"step": step, "images": step * self.batch_size, **about, **row})
        self.tracker.say(f"step {step}: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
        value = scores[self.first.name] if self.first.lower_is_better else -scores[self.first.name]
        better = self.best is None or value < self.best
        self.best = value if better else self.best
        return better

    def _paint(self, images: Tensor, labels: Sequence[int], path: Path) -> None:
        try:
            self.paint(images, labels, path)
        except OSError as error:
            log.warning("%s could not be written (%s); training goes on", path, error)
            return
        self.tracker.picture(self.trainer.done, "grid", path)

    def _save(self, best: bool = False, final: bool = False) -> None:
        """Save on the first process. A periodic save may fail, a few times; a final one raises CheckpointError."""
        if self.saved == self.trainer.done:
            return
        if distributed.is_main():
            if not self.tracker.is_finite():
                log.warning("step %d: a loss is not finite, so nothing is saved", self.trainer.done)
                return
            try:
                self.checkpoints.save(self._checkpoint(), best)
                self.failed_saves = 0
            except CheckpointError as error:
                self.failed_saves += 1
                if final or self.failed_saves >= MOST_FAILED_SAVES:
                    raise
                log.warning("not saved, training goes on: %s", error)
                return
        self.saved = self.trainer.done

    def _checkpoint(self) -> Checkpoint:
        meta: dict[str, Any] = {
            "step": self.trainer.done,
            "images": self.trainer.done * self.batch_size,
            "minutes": self._minutes(),
            "validated": self.validated,
            "best": self.best,
            "classes": list(self.classes),
            "run_id": self.run_id,
            "torch": str(torch.__version__),
        }
        training = {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.trainer.optimizers.items()},
            "scalers": {name: optimizer.scaler.state_dict() for name, optimizer in self.trainer.optimizers.items()},
            "tracker": self.tracker.state(),
            "averages": self.trainer.ema.state_dict(),
        }
        return Checkpoint(
            self.trainer.objective.state_dict(),
            self.trainer.ema.model.state_dict(),
            training,
            meta,
            self.config,
        )

    def _minutes(self) -> float:
        return self.minutes_before + (time.monotonic() - self.began) / 60


def load(module: torch.nn.Module, tensors: Any, path: Path) -> None:
    """Load weights that must fit exactly. Raises CheckpointError naming the first that does not."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]]
        raise CheckpointError(f"{path} does not fit the configuration: {reasons[0]}") from None
