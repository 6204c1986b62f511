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
    ) -> None:
        self.objective, self.batches, self.encode = objective, batches, encode
        self.optimizers, self.schedule, self.ema, self.autocast = optimizers, schedule, ema, autocast
        self.seed, self.grad_accumulation, self.grad_clip = seed, grad_accumulation, grad_clip
        self.losses = {name: LossModule(getattr(objective, name)) for name in optimizers}
        self.weights = {
            name: [weight for weight in module.parameters() if weight.requires_grad]
            for name, module in self.losses.items()
        }
        distributed.copy_from_main(objective)
        self.ddp: dict[str, DistributedDataParallel] = {}
        if distributed.world_size() > 1:
            self.ddp = {name: DistributedDataParallel(module) for name, module in self.losses.items()}
        self.global_step = 0

    def train(self, until: int, after: Callable[[dict[str, Tensor]], bool]) -> None:
        """Take steps `global_step` + 1, ..., `until`; stop when `after`, called with a step's log, returns True."""
        with closing(self.batches(self.global_step)) as batches:  # ends the processes that read ahead
            while self.global_step < until:
                try:
                    logged = self.step(self.global_step + 1, *next(batches))
                except torch.OutOfMemoryError as error:
                    hint = "lower data.train_batch_size, or raise train.grad_accumulation"
                    message = f"step {self.global_step + 1}: the device's memory is full; {hint} ({error})"
                    raise UserError(message) from None
                self.global_step += 1
                if after(logged):
                    return

    def step(self, step: int, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One training step on uint8 images, (batch, 3, size, size), and labels, (batch,)."""
        seed_step(self.seed, step)  # a resumed run repeats itself
        batch = Batch(self.encode(images), labels)
        logged: dict[str, Tensor] = {}
        for phase in self.objective.phases(step):
            logged |= self.optimize(phase, batch, self.schedule(step))
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
        # update
        optimizer.scaler.unscale(optimizer.parts)
        norm = nn.utils.clip_grad_norm_(self.weights[phase.network], self.grad_clip or float("inf"))
        if optimizer.step(lr_scale):
            logged["gradient_norm"] = norm.detach()
        return {f"{phase.network}/{name}": value for name, value in logged.items()}
