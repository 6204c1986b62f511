"""Autoencoding with a KL penalty, a perceptual loss and a patch adversary (Rombach 2021, appendix G)."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core.randomness import normal_like
from foodgen.core.registry import objectives
from foodgen.core.types import Batch, Objective, Turn
from foodgen.objectives.gan_losses import Hinge, Loss


@objectives.add_to_registry(name="autoencoding")
class Autoencoding(Objective):
    """An autoencoder restores images from few, nearly normal numbers.

    model             an autoencoder: `encode` to mean and log variance, `decode`
    discriminator     images to logits of patches; None leaves the adversary out
    features          a frozen network whose feature maps are compared too; None compares pixels alone
    loss              of the adversary
    kl_weight         of the KL to a standard normal distribution, summed over an image's latents, when the
                      pixels' error is summed too
    perceptual_weight of the feature maps' difference
    adversary_weight  of the adversary, relative to the gradients of the rest (VQGAN, Esser 2020, equation 7)
    adversary_from    step from which the model listens to the adversary, which learns from the start
    """

    def __init__(
        self,
        model: nn.Module,
        discriminator: nn.Module | None = None,
        features: nn.Module | None = None,
        loss: Loss | None = None,
        kl_weight: float = 1e-6,
        perceptual_weight: float = 1.0,
        adversary_weight: float = 0.5,
        adversary_from: int = 10_000,
    ) -> None:
        super().__init__()
        if not hasattr(model, "encode"):
            raise ValueError(f"model: an autoencoder is wanted; {type(model).__name__} is none")
        if min(kl_weight, perceptual_weight, adversary_weight, adversary_from) < 0:
            raise ValueError("kl_weight, perceptual_weight, adversary_weight and adversary_from are at least 0")
        self.model, self.discriminator, self.features = model, discriminator, features
        self.adversary = loss or Hinge()
        self.kl_weight, self.perceptual_weight = kl_weight, perceptual_weight
        self.adversary_weight, self.adversary_from = adversary_weight, adversary_from

    def turns(self, step: int) -> list[Turn]:
        listens = self.discriminator is not None and step >= self.adversary_from
        mine = Turn("model", partial(self.restore, listens), double_backward=listens)
        return [mine] if self.discriminator is None else [mine, Turn("discriminator", self.judge)]

    def restore(self, listens: bool, batch: Batch) -> dict[str, Tensor]:
        """The autoencoder's loss; `listens` to the adversary or not."""
        mean, log_variance = self.model.encode(batch.images)  # type: ignore[operator]
        latents = mean + (0.5 * log_variance).exp() * normal_like(mean)
        self.model.follow(latents)  # type: ignore[operator]
        restored = self.model.decode(latents)  # type: ignore[operator]
        error = (restored.float() - batch.images).abs().mean()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1).mean()
        loss = error + self.kl_weight * divergence / batch.images[0].numel()
        measured = {"error": error, "divergence": divergence}
        if self.features is not None:
            measured["perceptual"] = self._difference(restored, batch.images)
            loss = loss + self.perceptual_weight * measured["perceptual"]
        if listens:
            assert self.discriminator is not None
            deceit = self.adversary.generator(self.discriminator(restored).float(), lambda: self._logits(batch.images))
            measured["adversary"], measured["adversary_scale"] = deceit, self._scale(loss, deceit)
            loss = loss + self.adversary_weight * measured["adversary_scale"] * deceit
        return {"loss": loss, **measured}

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """The adversary's loss."""
        assert self.discriminator is not None
        with torch.no_grad():
            mean, log_variance = self.model.encode(batch.images)  # type: ignore[operator]
            restored = self.model.decode(mean + (0.5 * log_variance).exp() * normal_like(mean))  # type: ignore[operator]
        real, fake = self.discriminator(batch.images).float(), self.discriminator(restored).float()
        return {
            "loss": self.adversary.discriminator(real, fake),
            "real_logit": real.mean(),
            "fake_logit": fake.mean(),
        }

    def _logits(self, images: Tensor) -> Tensor:
        assert self.discriminator is not None
        with torch.no_grad():
            return self.discriminator(images).float()

    def _scale(self, loss: Tensor, deceit: Tensor) -> Tensor:
        """How much larger the loss's gradient is than the adversary's, at the weights of the last layer."""
        last: Any = self.model.last.weight  # type: ignore[union-attr]
        wanted, other = (torch.autograd.grad(value, last, retain_graph=True)[0] for value in (loss, deceit))
        return (wanted.norm() / (other.norm() + 1e-4)).clamp(max=1e4).detach()

    def _difference(self, restored: Tensor, images: Tensor) -> Tensor:
        """Mean squared difference of feature maps at unit length a place, (LPIPS's without its weights, Zhang 2018)."""
        assert self.features is not None
        with torch.no_grad():
            wanted = self.features(images)
        pairs = zip(self.features(restored), wanted, strict=True)
        return torch.stack([((_unit(ours) - _unit(theirs)) ** 2).sum(dim=1).mean() for ours, theirs in pairs]).mean()


def _unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features.float(), dim=1)
