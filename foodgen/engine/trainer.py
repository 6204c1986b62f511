"""The training loop, the only one: it knows neither GANs nor diffusion, only whose turn it is."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from foodgen.core import distributed
from foodgen.core.errors import UserError
from foodgen.core.randomness import seed_step
from foodgen.core.types import Batch, Objective, Turn


class Player(nn.Module):
    """A network whose forward is a loss of it, so that DDP can wrap any loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, loss: Callable[[Batch], dict[str, Tensor]], batch: Batch) -> dict[str, Tensor]:
        return loss(batch)


class Trainer:
    """Takes training steps: each turn's player moves once.

    objective   what is minimised, and by whom
    batches     batches from a given step on: uint8 images and labels
    encode      uint8 images to what the model sees, augmented
    optimizers  one for each player
    schedule    factor of the learning rate at a step
    ema         average of objective.model
    autocast    a context for the losses
    seed        of each step's randomness
    accumulate  pieces that a batch is computed in
    clip        largest gradient norm
    """

    def __init__(
        self,
        objective: Objective,
        batches: Callable[[int], Generator[tuple[Tensor, Tensor], None, None]],
        encode: Callable[[Tensor], Tensor],
        optimizers: Mapping[str, Any],
        schedule: Callable[[int], float],
        ema: Any,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        seed: int = 0,
        accumulate: int = 1,
        clip: float | None = None,
    ) -> None:
        self.objective, self.batches, self.encode = objective, batches, encode
        self.optimizers, self.schedule, self.ema = optimizers, schedule, ema
        self.autocast, self.seed, self.accumulate, self.clip = autocast, seed, accumulate, clip
        self.players = {name: Player(getattr(objective, name)) for name in optimizers}
        self.weights = {
            name: [weight for weight in player.parameters() if weight.requires_grad]
            for name, player in self.players.items()
        }
        distributed.copy_from_main(objective)
        parallel = distributed.world_size() > 1
        self.ways: dict[str, Any] = {
            name: DistributedDataParallel(player) if parallel else player for name, player in self.players.items()
        }
        self.done = 0

    def train(self, until: int, after: Callable[[dict[str, Tensor]], bool]) -> None:
        """Steps `done` + 1, ..., `until`; `after` each, with what it measured, may ask for an end."""
        with closing(self.batches(self.done)) as source:  # whatever happens, processes that read ahead end
            while self.done < until:
                try:
                    measured = self.step(self.done + 1, *next(source))
                except torch.OutOfMemoryError as error:
                    hint = "lower data.train_batch_size, or raise train.accumulate"
                    raise UserError(f"step {self.done + 1}: the device's memory is full; {hint} ({error})") from None
                self.done += 1
                if after(measured):
                    return

    def step(self, step: int, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One training step on uint8 images, (batch, 3, size, size), and labels, (batch,)."""
        seed_step(self.seed, step)  # so that a resumed run repeats itself
        batch = Batch(self.encode(images), labels)
        measured: dict[str, Tensor] = {}
        for turn in self.objective.turns(step):
            measured |= self.move(turn, batch, self.schedule(step))
        self.ema.update(step)
        return measured

    def move(self, turn: Turn, batch: Batch, factor: float) -> dict[str, Tensor]:
        """The turn's player minimises its loss by one optimizer step; nobody else receives gradients."""
        optimizer = self.optimizers[turn.player]
        for name, weights in self.weights.items():
            for weight in weights:
                weight.requires_grad_(name == turn.player)
        pieces = batch.split(self.accumulate)
        measured: dict[str, Tensor] = {}
        for number, piece in enumerate(pieces):
            way = self.ways[turn.player]
            alone = turn.double_backward or number < len(pieces) - 1
            with way.no_sync() if alone and way is not self.players[turn.player] else nullcontext():
                with self.autocast():
                    losses = (self.players[turn.player] if turn.double_backward else way)(turn.loss, piece)
                optimizer.scaler.scale(losses["loss"] / len(pieces)).backward()
            for name, value in losses.items():
                measured[name] = measured.get(name, 0) + value.detach() / len(pieces)
        if turn.double_backward:
            distributed.average_gradients(self.players[turn.player])
        optimizer.scaler.unscale(optimizer.parts)
        norm = nn.utils.clip_grad_norm_(self.weights[turn.player], self.clip or float("inf"))
        if optimizer.step(factor):
            measured["gradient_norm"] = norm.detach()
        return {f"{turn.player}/{name}": value for name, value in measured.items()}
