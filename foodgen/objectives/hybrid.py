"""IDDPM's objective (Nichol, Dhariwal 2021): regression for the image, the variational bound for the variance."""

import torch
from torch import Tensor, nn

from foodgen.core import distributed
from foodgen.core.networks import Denoiser
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import objectives
from foodgen.core.types import Batch
from foodgen.objectives.denoising import Denoising


class LossSecondMomentResampler(nn.Module):
    """Samples times in proportion to the root mean square of their last losses (IDDPM, equation 18).

    Times are sampled uniformly until each has `history` losses.

    num_timesteps  times are 1 to `num_timesteps`
    history        losses kept for each time
    uniform_prob   probability of a uniform sample
    """

    losses: Tensor
    counts: Tensor

    def __init__(self, num_timesteps: int, history: int = 10, uniform_prob: float = 0.001) -> None:
        super().__init__()
        self.num_timesteps, self.uniform_prob = num_timesteps, uniform_prob
        self.register_buffer("losses", torch.zeros(num_timesteps, history, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(num_timesteps, dtype=torch.long))

    def probabilities(self) -> Tensor:
        """The probability of each time, (num_timesteps,)."""
        uniform = torch.full_like(self.losses[:, 0], 1 / self.num_timesteps)
        if bool((self.counts < self.losses.shape[1]).any()):
            return uniform
        rms = (self.losses**2).mean(dim=1).sqrt()
        return (1 - self.uniform_prob) * rms / rms.sum() + self.uniform_prob * uniform

    def sample(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Times and importance weights, (batch,) each, for numbers in [0, 1)."""
        probabilities = self.probabilities()
        index = torch.searchsorted(probabilities.cumsum(0), uniform.double()).clamp(max=self.num_timesteps - 1)
        return (index + 1).to(uniform), (1 / (self.num_timesteps * probabilities[index])).to(uniform)

    @torch.no_grad()
    def update(self, t: Tensor, losses: Tensor) -> None:
        """Take in the losses of all processes; the oldest of a time are dropped."""
        for times, values in distributed.gather((t.long().tolist(), losses.double().tolist())):
            for time, value in zip(times, values, strict=True):
                self.losses[time - 1] = self.losses[time - 1].roll(-1)
                self.losses[time - 1, -1] = value
                self.counts[time - 1] += 1


@objectives.add_to_registry(name="hybrid")
class Hybrid(Denoising):
    """L_hybrid = L_simple + lambda L_vlb: the bound trains the variance alone.

    model                a denoiser on the discrete process, with a learnt variance
    class_dropout        probability of replacing a label by the null label
    vlb_weight           lambda; the bound is in bits per dimension
    importance_sampling  sample times in proportion to their losses, instead of uniformly
    """

    def __init__(
        self,
        model: Denoiser,
        class_dropout: float = 0.1,
        vlb_weight: float = 0.001,
        importance_sampling: bool = False,
    ) -> None:
        super().__init__(model, class_dropout)
        if model.process.num_timesteps is None:
            raise ValueError("model.process: the bound is a sum over times, which only the process ddpm has")
        if vlb_weight < 0:
            raise ValueError(f"vlb_weight: {vlb_weight} is below 0")
        if not _learns_variance(model):
            raise ValueError("model.network.outputs: the variance takes twice the image's channels")
        self.num_timesteps, self.vlb_weight = model.process.num_timesteps, vlb_weight
        self.resampler = LossSecondMomentResampler(self.num_timesteps) if importance_sampling else None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """batch: images about [-1, 1] and their labels."""
        # sample times and corrupt
        x0, uniform = batch.images, uniform_for(batch.images)
        if self.resampler is None:
            t = self.model.process.sample_t(uniform)
            weights = torch.ones_like(t)
        else:
            t, weights = self.resampler.sample(uniform)
        eps = normal_like(x0)
        x = self.model.process.q_sample(x0, eps, t)
        # predict
        output, v = self.model.outputs(x, t, self.drop_classes(batch.labels))
        assert v is not None
        prediction = self.model.prediction(x, t, output.detach(), v)
        # sum up
        simple = ((output - self.model.target(x0, eps, t)) ** 2).flatten(1).mean(dim=1)
        vlb = self.num_timesteps * self.model.vlb_term(x0, x, t, t - 1, prediction)
        losses = simple + self.vlb_weight * vlb
        if self.resampler is not None:
            self.resampler.update(t, losses.detach())
        return {
            "loss": (weights * losses).mean(),
            "error": (weights * simple).mean(),
            "bits_per_dimension": (weights * vlb).mean(),
        }


@torch.no_grad()
def _learns_variance(model: Denoiser) -> bool:
    """Whether the network's output has a second half, found out before a training begins."""
    training = model.training
    x = torch.zeros(1, *model.noise_shape)
    _, v = model.eval().outputs(x, torch.ones(1), None)
    model.train(training)
    return v is not None
