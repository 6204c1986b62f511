"""The training loop, the only one: an objective says which networks are updated by which losses."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from foodgen.core import distributed
from foodgen.core.errors import UserError
from foodgen.core.networks import NormalizedWeights
from foodgen.core.randomness import seed_step
from foodgen.core.types import Batch, Objective, Phase
from foodgen.training.ema import Average
from foodgen.training.non_finite import NonFiniteError
from foodgen.training.optimizers import Optimizer


class LossModule(nn.Module):
    """A network whose forward is a loss of it, so that DDP can wrap any loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, loss: Callable[[Batch], dict[str, Tensor]], batch: Batch) -> dict[str, Tensor]:
        return loss(batch)


class Trainer:
    """Takes training steps: one optimizer step for each phase of the objective.

    objective          the losses
    batches            batches from a given step on: uint8 images and labels
    encode             uint8 images to the model's input, augmented
    optimizers         one for each network that a phase names
    schedule           factor of the learning rate at a step
    ema                average of objective.model
    autocast           a context for the losses
    seed               of each step's randomness
    grad_accumulation  pieces that a batch is computed in
    grad_clip          largest gradient norm
    max_skipped        steps in a row that may be skipped because a loss or gradient is not finite
    """

    def __init__(
        self,
        objective: Objective,
        batches: Callable[[int], Generator[tuple[Tensor, Tensor], None, None]],
        encode: Callable[[Tensor], Tensor],
        optimizers: Mapping[str, Optimizer],
        schedule: Callable[[int], float],
        ema: Average,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        seed: int = 0,
        grad_accumulation: int = 1,
        grad_clip: float | None = None,
        max_skipped: int = 20,
    ) -> None:
        self.objective, self.batches, self.encode = objective, batches, encode
        self.optimizers, self.schedule, self.ema, self.autocast = optimizers, schedule, ema, autocast
        self.seed, self.grad_accumulation, self.grad_clip = seed, grad_accumulation, grad_clip
        self.max_skipped, self.lr_factor = max_skipped, 1.0
        self.losses = {name: LossModule(getattr(objective, name)) for name in optimizers}
        self.weights = {
            name: [weight for weight in module.parameters() if weight.requires_grad]
            for name, module in self.losses.items()
        }
        self.buffers = [
            (module, name)
            for module in objective.modules()
            if module.training  # those of frozen networks stay as they are
            for name, _ in module.named_buffers(recurse=False)
        ]
        distributed.copy_from_main(objective)
        self.ddp: dict[str, DistributedDataParallel] = {}
        if distributed.world_size() > 1:
            self.ddp = {name: DistributedDataParallel(module) for name, module in self.losses.items()}
        self.global_step = 0

    def train(self, until: int, after: Callable[[dict[str, Tensor]], bool]) -> None:
        """Take steps `global_step` + 1, ..., `until`; stop when `after`, called with a step's log, returns True.

        Raises UserError if the device's memory is full, NonFiniteError if more than `max_skipped` steps in a row were
        skipped.
        """
        with closing(self.batches(self.global_step)) as batches:  # ends the processes that read ahead
            while self.global_step < until:
                images, labels = next(batches)
                try:
                    logged = self.step(self.global_step + 1, images, labels)
                except torch.OutOfMemoryError as error:
                    hint = "lower data.train_batch_size, or raise train.grad_accumulation"
                    message = f"step {self.global_step + 1}: the device's memory is full; {hint} ({error})"
                    raise UserError(message) from None
                self.global_step += 1
                if self._is_stuck():
                    raise NonFiniteError(self.global_step, self.seed, images, labels)
                if after(logged):
                    return

    def skipped_in_a_row(self) -> int:
        """Steps that were skipped since the last that was taken, of the network with the most. Waits for the device."""
        return max(int(optimizer.scaler.in_a_row) for optimizer in self.optimizers.values())

    def _is_stuck(self) -> bool:
        """Whether too many steps were skipped; on a GPU it is looked at now and then, since this waits for it."""
        waits = any(weight.is_cuda for weights in self.weights.values() for weight in weights[:1])
        return not (waits and self.global_step % self.max_skipped) and self.skipped_in_a_row() > self.max_skipped

    def step(self, step: int, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One training step on uint8 images, (batch, 3, size, size), and labels, (batch,)."""
        seed_step(self.seed, step)  # a resumed run repeats itself
        batch = Batch(self.encode(images), labels)
        logged: dict[str, Tensor] = {}
        for phase in self.objective.phases(step):
            logged |= self.optimize(phase, batch, self.schedule(step) * self.lr_factor)
        self.ema.update(step)
        return logged

    def optimize(self, phase: Phase, batch: Batch, lr_scale: float) -> dict[str, Tensor]:
        """Minimise the phase's loss by one optimizer step; no other network receives gradients."""
        optimizer, module, ddp = self.optimizers[phase.network], self.losses[phase.network], self.ddp.get(phase.network)
        for name, weights in self.weights.items():
            for weight in weights:
                weight.requires_grad_(name == phase.network)
        for layer in module.modules():
            if isinstance(layer, NormalizedWeights):
                layer.normalize_weights()
        before = [getattr(owner, name).clone() for owner, name in self.buffers]
        # accumulate gradients, which DDP averages over the processes in the last piece's backward pass
        pieces = batch.split(self.grad_accumulation)
        logged: dict[str, Tensor] = {}
        for index, piece in enumerate(pieces):
            local = ddp is None or phase.double_backward or index < len(pieces) - 1
            with ddp.no_sync() if ddp is not None and local else nullcontext():
                with self.autocast():
                    losses = (module if ddp is None or phase.double_backward else ddp)(phase.loss, piece)
                optimizer.scaler.scale(losses["loss"] / len(pieces)).backward()
            for name, value in losses.items():
                logged[name] = logged.get(name, 0) + value.detach() / len(pieces)
        if phase.double_backward:
            distributed.average_gradients(module)
        # update, unless the loss or a gradient is not finite: then all is as before, batch norm's statistics too
        optimizer.scaler.unscale(optimizer.parts)
        norm = nn.utils.clip_grad_norm_(self.weights[phase.network], self.grad_clip or float("inf")).detach()
        updated = optimizer.step(lr_scale, torch.isfinite(norm))
        for (owner, name), earlier in zip(self.buffers, before, strict=True):
            buffer = getattr(owner, name)
            buffer.data.copy_(torch.where(updated, buffer, earlier))  # unseen by a backward pass that is still to come
        logged["gradient_norm"] = norm
        return {f"{phase.network}/{name}": value for name, value in logged.items()}
