"""A training from its start or resumption to its stop: when to log, validate, save and stop."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foodgen.core import distributed
from foodgen.core.errors import CheckpointError, UserError
from foodgen.core.settings import Train
from foodgen.evaluation.sampling import SamplingLoop
from foodgen.evaluation.scoring import MetricSpec, Scorer
from foodgen.training.checkpoint import Checkpoint, Checkpoints, load_weights, read
from foodgen.training.fitting import not_finite
from foodgen.training.interrupt import Interrupt, Interrupted
from foodgen.training.non_finite import NonFiniteError
from foodgen.training.snapshots import AT_END, ON_SCHEDULE, Snapshots
from foodgen.training.tracker import Tracker
from foodgen.training.trainer import Trainer
from foodgen.training.validation import Validation

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
        self.trainer, self.tracker = trainer, tracker
        self.validation = Validation(
            settings, len(classes), folder, seed, tracker, sampling, scorer, first, save_grid, diversity
        )
        self.snapshots = Snapshots(folder)
        self.checkpoints = Checkpoints(folder / "checkpoints", settings.keep_checkpoints)
        self.best: float | None = None
        self.resumed_step = self.resumed_images = 0
        self.validated = self.saved = 0
        self.failed_saves = self.rollbacks = 0
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
        self.trainer.global_step = self.saved = self.resumed_step = meta["step"]
        self.resumed_images = meta.get("images", meta["step"] * self.batch_size)
        if meta.get("best_by", self._best_by()) != self._best_by() or self.checkpoints.best() is None:
            self.best = None  # by something else, or of another run
        self._set_rollbacks(meta.get("rollbacks", 0))
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
        while self.trainer.global_step < self.settings.steps:
            try:
                self.trainer.train(self.settings.steps, self._after_step)
                break
            except NonFiniteError as error:
                self._roll_back(error)
        if self.interrupt.signal:
            self.tracker.say(
                f"stopped by a signal at step {self.trainer.global_step}; train.checkpoint_path=latest goes on"
            )

    def _roll_back(self, error: NonFiniteError) -> None:
        """Keep the batch, then go back to the last checkpoint. Raises UserError if that was tried often enough."""
        about = f"{error}, nor were those of the {self.trainer.skipped_in_a_row() - 1} steps before it"
        kept = error.keep_batch(self.folder) if distributed.is_main() else ""
        newest, rollbacks, minutes = self.checkpoints.newest(), self.rollbacks, self.minutes_before
        if newest is None or rollbacks == self.settings.rollbacks:
            raise UserError(
                f"{about}; {kept}. Lower the learning rate (optimizers.*.lr) or set train.grad_clip, and resume with "
                f"train.checkpoint_path=latest"
            ) from None
        self.tracker.say(f"{about}; {kept}: back to the last checkpoint")
        self.resume(newest)
        self.minutes_before = minutes  # the time since is not given back
        self._set_rollbacks(rollbacks + 1)

    def _set_rollbacks(self, rollbacks: int) -> None:
        """Other noise and half the learning rate for each return, or the same would happen again."""
        self.rollbacks = rollbacks
        self.trainer.seed, self.trainer.lr_factor = self.seed + rollbacks, 0.5**rollbacks

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
            self.tracker.flush(step, self._images(), minutes=self._minutes(), **rates)
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
                before, better = self.best, self._validate()
        except Interrupted:
            self.tracker.say("validation was cut off; it is made up for when training resumes")
            return
        self.validated, self.saved = self.trainer.global_step, 0
        self._save(best=better, final=final)
        if better and self.saved != self.trainer.global_step:  # it was not saved: the next one may be the best
            self.best = before
        self.tracker.pause()

    def _validate(self) -> bool:
        """Whether the first metric is the best so far."""
        value = self.validation(self.trainer.global_step, self._images(), self.trainer.ema.model)
        better = value is not None and (self.best is None or value < self.best)
        self.best = value if better else self.best
        return better

    def _images(self) -> int:
        """Training images seen; the batch size may have been another before the run was resumed."""
        return self.resumed_images + (self.trainer.global_step - self.resumed_step) * self.batch_size

    def _best_by(self) -> list[Any]:
        """What the best checkpoint is the best by: values of other metrics, counts or images do not compare."""
        scorer, first = self.validation.scorer, self.validation.first
        reference = scorer.reference.listing.folder.name if scorer and first else None
        return [first and first.name, len(self.validation.labels), reference]

    def _save(self, best: bool = False, final: bool = False) -> None:
        """Save on the first process. A periodic save may fail, a few times; a final one raises CheckpointError."""
        if self.saved == self.trainer.global_step:
            return
        if distributed.is_main():
            checkpoint = self._checkpoint()
            wrong = not_finite(checkpoint.weights)
            message = f"step {self.trainer.global_step}: {wrong or 'the loss or a gradient'} is not finite: not saved"
            if wrong and final:
                raise CheckpointError(message)
            if wrong or (self.trainer.skipped_in_a_row() and not final):
                log.warning(message)
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
            "images": self._images(),
            "minutes": self._minutes(),
            "validated": self.validated,
            "best": self.best,
            "best_by": self._best_by(),
            "rollbacks": self.rollbacks,
            "classes": list(self.classes),
            "run_id": self.run_id,
            "torch": str(torch.__version__),
        }
        if self.validation.sampling.codec.identity is not None:
            meta["codec"] = self.validation.sampling.codec.identity
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
