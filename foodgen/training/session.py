"""A training from its start or resumption to its stop: when to log, validate, save and stop."""

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
from foodgen.evaluation.sampling import (
    SamplingLoop,
    balanced_labels,
    check_proportions,
    matching_labels,
    warn_of_collapse,
)
from foodgen.evaluation.scoring import MetricSpec, Scorer
from foodgen.training.checkpoint import Checkpoint, Checkpoints, load_weights, read
from foodgen.training.fitting import not_finite
from foodgen.training.interrupt import Interrupt, Interrupted
from foodgen.training.snapshots import AT_END, ON_SCHEDULE, Snapshots
from foodgen.training.tracker import Tracker
from foodgen.training.trainer import Trainer

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
    sampling    the sampling loop
    scorer      of sampled images and of the model, if there are metrics
    first       metric, which chooses the best checkpoint
    save_grid   (images, labels, path)
    diversity   (images, labels) to each class's diversity relative to real images, for a warning

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
        sampling: SamplingLoop,
        scorer: Scorer | None,
        first: MetricSpec | None,
        save_grid: Callable[[Tensor, Sequence[int], Path], None],
        diversity: Callable[[Tensor, Sequence[int]], Mapping[str, float]],
    ) -> None:
        self.settings, self.batch_size, self.classes = settings, batch_size, classes
        self.folder, self.config, self.run_id, self.seed = folder, config, run_id, seed
        self.trainer, self.tracker, self.sampling, self.scorer, self.save_grid = (
            trainer,
            tracker,
            sampling,
            scorer,
            save_grid,
        )
        self.first, self.diversity = first, diversity
        self.snapshots = Snapshots(folder)
        self.val_labels: list[int] = []
        if scorer and scorer.groups:
            self.val_labels = matching_labels(settings.val_count, scorer.reference)
            check_proportions(self.val_labels, scorer.reference, "train.val_count")
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
        load_weights(self.trainer.objective, checkpoint.weights, path)
        load_weights(self.trainer.ema.model, checkpoint.average, path)
        try:
            for name, optimizer in self.trainer.optimizers.items():
                optimizer.load_state_dict(checkpoint.training["optimizers"][name])
                optimizer.scaler.load_state_dict(checkpoint.training.get("scalers", {}).get(name, {}))
            self.trainer.ema.load_state_dict(checkpoint.training.get("averages", {}))
            self.best, self.validated, self.minutes_before = meta["best"], meta["validated"], meta["minutes"]
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: its optimizers or averages are not those of the configuration ({error})"
            ) from None
        self.trainer.global_step = self.saved = meta["step"]
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
        if self.trainer.global_step > self.validated and self._validation_is_due():  # a stop had cut it off
            self._validate_and_save()
        if self.trainer.global_step >= self.settings.steps:
            self.tracker.say(f"all {self.settings.steps} steps are done; raise train.steps to go on")
            return
        self.trainer.train(self.settings.steps, self._after_step)
        if self.interrupt.signal:
            self.tracker.say(
                f"stopped by a signal at step {self.trainer.global_step}; train.checkpoint_path=latest goes on"
            )

    def _after_step(self, measured: dict[str, Tensor]) -> bool:
        """Whatever is due after a step; True ends the training."""
        step = self.trainer.global_step
        self.tracker.add(measured)
        if step % self.settings.log_step == 0:
            rates = {
                f"{network}/{name}": value
                for network, optimizer in self.trainer.optimizers.items()
                for name, value in {"learning_rate": optimizer.lr(), **optimizer.scaler.numbers()}.items()
            }
            self.tracker.flush(step, step * self.batch_size, minutes=self._minutes(), **rates)
        self._keep_averages(ON_SCHEDULE)
        stop = bool(distributed.agree(int(self._must_stop())))
        due = self._validation_is_due() or step % self.settings.checkpoint_step == 0
        if not stop and self._validation_is_due():
            self._validate_and_save()
        elif stop or due:
            self._save(final=stop)
        # a signal that comes between is left to the next step, unless this one is saved already
        stop = stop or (due and bool(distributed.agree(self.interrupt.signal)))
        if stop or step == self.settings.steps:
            self._keep_averages(AT_END)
        return stop

    def _keep_averages(self, kind: str) -> None:
        """A snapshot of the averages where the schedule has one, or else at the end; it may fail."""
        step, every = self.trainer.global_step, self.trainer.ema.snapshot_step
        if every and (step % every == 0) == (kind == ON_SCHEDULE) and distributed.is_main():
            try:
                self.snapshots.save(step, self.trainer.ema.snapshots(), kind)
            except CheckpointError as error:
                log.warning("no snapshot of the averages, training goes on: %s", error)

    def _validation_is_due(self) -> bool:
        return self.trainer.global_step % self.settings.val_step == 0 or self.trainer.global_step == self.settings.steps

    def _must_stop(self) -> bool:
        budget = self.settings.max_minutes
        over = budget is not None and time.monotonic() - self.began > 60 * budget
        if over and not self.interrupt.signal:
            self.tracker.say(
                f"the time budget is used up at step {self.trainer.global_step}; train.checkpoint_path=latest goes on"
            )
        return over or bool(self.interrupt.signal)

    def _validate_and_save(self) -> None:
        """Save first, since sampling takes long and may fail; then again with what validation found."""
        final = self.trainer.global_step == self.settings.steps
        self._save(final=final)
        try:
            with self.interrupt.drop():
                better = self._validate()
        except Interrupted:
            self.tracker.say("validation was cut off; it is made up for when training resumes")
            return
        self.validated, self.saved = self.trainer.global_step, 0
        self._save(best=better, final=final)
        self.tracker.pause()

    def _validate(self) -> bool:
        """Sample from the averaged model, save a grid, score; whether the first metric is the best so far."""
        step, model = self.trainer.global_step, self.trainer.ema.model
        distributed.copy_from_main(model)  # batch norm has seen other images on other processes
        if self.sampling.generates:
            grid = balanced_labels(self.settings.grid_count, range(len(self.classes)))
            images = self.sampling(model, grid, self.seed)
            if distributed.is_main():
                self._grid(images, grid, self.folder / "grids" / f"step-{step:08d}.png")
                warn_of_collapse("pixels", self.diversity(images, grid))
        if self.scorer is None or self.first is None:
            return False
        labels = self.val_labels
        batches = self.sampling.batches(model, labels, self.seed)
        scores = self.scorer(batches, labels, model=model, seed=self.seed).numbers
        scores = distributed.gather(scores)[0]
        row = {f"val/{name}": value for name, value in scores.items()}
        about = {"val/count": len(labels), "val/precision": self.scorer.precision} if self.scorer.groups else {}
        self.tracker.write({"step": step, "images": step * self.batch_size, **about, **row})
        self.tracker.say(f"step {step}: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
        value = scores[self.first.name] if self.first.lower_is_better else -scores[self.first.name]
        better = self.best is None or value < self.best
        self.best = value if better else self.best
        return better

    def _grid(self, images: Tensor, labels: Sequence[int], path: Path) -> None:
        try:
            self.save_grid(images, labels, path)
        except OSError as error:
            log.warning("%s could not be written (%s); training goes on", path, error)
            return
        self.tracker.image(self.trainer.global_step, "grid", path)

    def _save(self, best: bool = False, final: bool = False) -> None:
        """Save on the first process. A periodic save may fail, a few times; a final one raises CheckpointError."""
        if self.saved == self.trainer.global_step:
            return
        if distributed.is_main():
            if not self.tracker.is_finite():
                log.warning("step %d: a loss is not finite, so nothing is saved", self.trainer.global_step)
                return
            checkpoint = self._checkpoint()
            if wrong := not_finite(checkpoint.weights):
                log.warning("step %d: %s is not finite, so nothing is saved", self.trainer.global_step, wrong)
                return
            try:
                self.checkpoints.save(checkpoint, best)
                self.failed_saves = 0
            except CheckpointError as error:
                self.failed_saves += 1
                if final or self.failed_saves >= MOST_FAILED_SAVES:
                    raise
                log.warning("not saved, training goes on: %s", error)
                return
        self.saved = self.trainer.global_step

    def _checkpoint(self) -> Checkpoint:
        meta: dict[str, Any] = {
            "step": self.trainer.global_step,
            "images": self.trainer.global_step * self.batch_size,
            "minutes": self._minutes(),
            "validated": self.validated,
            "best": self.best,
            "classes": list(self.classes),
            "run_id": self.run_id,
            "torch": str(torch.__version__),
        }
        if self.sampling.codec.identity is not None:
            meta["codec"] = self.sampling.codec.identity
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
