"""IDDPM's objective (Nichol, Dhariwal 2021): regression for the image, the variational bound for the variance."""

import torch
from torch import Tensor, nn

from foodgen.core import distributed
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import objectives
from foodgen.core.types import Batch
from foodgen.objectives.denoising import Denoising


class Importance(nn.Module):
    """Draws times as often as their losses are large (IDDPM, equation 18).

    A time's share is the root of the mean square of its last losses; until each time has had as many as are kept,
    all are drawn alike.

    length  number of times, 1 to `length`
    kept    losses remembered of each time
    floor   share of the draws that stay uniform
    """

    losses: Tensor
    counts: Tensor

    def __init__(self, length: int, kept: int = 10, floor: float = 0.001) -> None:
        super().__init__()
        self.length, self.floor = length, floor
        self.register_buffer("losses", torch.zeros(length, kept, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(length, dtype=torch.long))

    def shares(self) -> Tensor:
        """The probability of each time, (length,)."""
        uniform = torch.full_like(self.losses[:, 0], 1 / self.length)
        if bool((self.counts < self.losses.shape[1]).any()):
            return uniform
        size = (self.losses**2).mean(dim=1).sqrt()
        return (1 - self.floor) * size / size.sum() + self.floor * uniform

    def draw(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Times and the weights that undo their shares, (batch,) each, for numbers in [0, 1)."""
        shares = self.shares()
        index = torch.searchsorted(shares.cumsum(0), uniform.double()).clamp(max=self.length - 1)
        return (index + 1).to(uniform), (1 / (self.length * shares[index])).to(uniform)

    @torch.no_grad()
    def learn(self, times: Tensor, losses: Tensor) -> None:
        """Remember the losses of all processes; the oldest of a time make room."""
        for many, values in distributed.gather((times.long().tolist(), losses.double().tolist())):
            for time, value in zip(many, values, strict=True):
                self.losses[time - 1] = self.losses[time - 1].roll(-1)
                self.losses[time - 1, -1] = value
                self.counts[time - 1] += 1


@objectives.add_to_registry(name="hybrid")
class Hybrid(Denoising):
    """Squared error of the predicted noise, plus a small share of the bound that moves the variance alone.

    model         a denoiser on the discrete process, with a learned variance
    label_drop    share of the images whose label is hidden
    bound_weight  of the bound, in bits per dimension (lambda)
    importance    whether times with a large loss are drawn more often, rather than all alike
    """

    def __init__(
        self, model: nn.Module, label_drop: float = 0.1, bound_weight: float = 0.001, importance: bool = False
    ) -> None:
        super().__init__(model, label_drop)
        length = getattr(model.process, "length", None)
        if length is None:
            raise ValueError("model.process: the bound is a sum over times, which only the process ddpm has")
        self.length, self.bound_weight = int(length), bound_weight
        self.importance = Importance(self.length) if importance else None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """batch: images about [-1, 1] and their labels."""
        clean, uniform = batch.images, uniform_for(batch.images)
        if self.importance is None:
            t = self.model.process.draw(uniform)  # type: ignore[operator, union-attr]
            weights = torch.ones_like(t)
        else:
            t, weights = self.importance.draw(uniform)
        noise = normal_like(clean)
        x = self.model.process.mix(clean, noise, t)  # type: ignore[operator, union-attr]
        output, share = self.model.outputs(x, t, self.some_hidden(batch))  # type: ignore[operator]
        if share is None:
            raise ValueError("model.network.outputs: twice the image's channels are wanted, for the variance")
        simple = ((output - self.model.target(clean, noise, t)) ** 2).flatten(1).mean(dim=1)  # type: ignore[operator]
        guess = self.model.prediction(x, t, output.detach(), share)  # type: ignore[operator]
        bound = self.length * self.model.bound_term(clean, x, t, t - 1, guess)  # type: ignore[operator]
        losses = simple + self.bound_weight * bound
        if self.importance is not None:
            self.importance.learn(t, losses.detach())
        return {
            "loss": (weights * losses).mean(),
            "error": (weights * simple).mean(),
            "bits_per_dimension": (weights * bound).mean(),
        }
