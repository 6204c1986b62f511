"""Autoencoding with a KL penalty, a perceptual loss and a patch discriminator (Rombach 2021, appendix G)."""

from functools import partial

import torch
from torch import Tensor, nn

from foodgen.core.networks import FeatureMaps, TrainableAutoencoder
from foodgen.core.randomness import normal_like
from foodgen.core.registry import objectives
from foodgen.core.types import Batch, Objective, Phase
from foodgen.objectives.gan_losses import Hinge, Loss
from foodgen.objectives.perceptual import perceptual_distance


@objectives.add_to_registry(name="autoencoding")
class Autoencoding(Objective):
    """The loss of a KL autoencoder.

    model                an autoencoder
    discriminator        images to logits of patches; None for no adversarial loss
    features             a frozen network for the perceptual loss; None for none
    loss                 of the discriminator; hinge if not given
    kl_weight            of the KL to a standard normal distribution, summed over an image's latents, relative to the
                         pixels' summed error
    perceptual_weight    of the perceptual loss
    adversarial_weight   of the adversarial loss, whose gradient is scaled to that of the rest at the last layer (VQGAN,
                         Esser 2020, equation 7)
    discriminator_start  step from which the adversarial loss is used; the discriminator trains from the first step on
    """

    model: TrainableAutoencoder

    def __init__(
        self,
        model: TrainableAutoencoder,
        discriminator: nn.Module | None = None,
        features: FeatureMaps | None = None,
        loss: Loss | None = None,
        kl_weight: float = 1e-6,
        perceptual_weight: float = 1.0,
        adversarial_weight: float = 0.5,
        discriminator_start: int = 10_000,
    ) -> None:
        super().__init__()
        if min(kl_weight, perceptual_weight, adversarial_weight, discriminator_start) < 0:
            raise ValueError("kl_weight, perceptual_weight, adversarial_weight and discriminator_start are at least 0")
        self.model, self.discriminator, self.features = model, discriminator, features
        self.gan_loss = loss or Hinge()
        self.kl_weight, self.perceptual_weight = kl_weight, perceptual_weight
        self.adversarial_weight, self.discriminator_start = adversarial_weight, discriminator_start

    def phases(self, step: int) -> list[Phase]:
        adversarial = self.discriminator is not None and step >= self.discriminator_start
        phases = [Phase("model", partial(self.autoencoder_loss, adversarial), double_backward=adversarial)]
        if self.discriminator is not None:
            phases.append(Phase("discriminator", self.discriminator_loss))
        return phases

    def autoencoder_loss(self, adversarial: bool, batch: Batch) -> dict[str, Tensor]:
        """The autoencoder's loss, with or without the adversarial part."""
        # reconstruct
        mean, log_variance = self.model.encode(batch.images)
        latents = mean + (0.5 * log_variance).exp() * normal_like(mean)
        self.model.update_statistics(latents)
        reconstruction = self.model.decode(latents)
        # sum up
        error = (reconstruction.float() - batch.images).abs().mean()
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1).mean()
        loss = error + self.kl_weight * kl / batch.images[0].numel()
        logged = {"error": error, "kl": kl}
        if self.features is not None:
            logged["perceptual"] = perceptual_distance(self.features, reconstruction, batch.images).mean()
            loss = loss + self.perceptual_weight * logged["perceptual"]
        if adversarial:
            logits = self._logits(reconstruction)
            logged["adversarial"] = self.gan_loss.generator(logits, partial(self._real_logits, batch.images))
            logged["adversarial_scale"] = self._adaptive_weight(loss, logged["adversarial"])
            loss = loss + self.adversarial_weight * logged["adversarial_scale"] * logged["adversarial"]
        return {"loss": loss, **logged}

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The patch discriminator's loss."""
        with torch.no_grad():
            mean, log_variance = self.model.encode(batch.images)
            reconstruction = self.model.decode(mean + (0.5 * log_variance).exp() * normal_like(mean))
        real, fake = self._logits(batch.images), self._logits(reconstruction)
        loss = self.gan_loss.discriminator(real, fake)
        return {"loss": loss, "real_logit": real.mean(), "fake_logit": fake.mean()}

    def _logits(self, images: Tensor) -> Tensor:
        assert self.discriminator is not None
        logits: Tensor = self.discriminator(images)
        return logits.float()

    @torch.no_grad()
    def _real_logits(self, images: Tensor) -> Tensor:
        return self._logits(images)

    def _adaptive_weight(self, loss: Tensor, adversarial: Tensor) -> Tensor:
        """The ratio of the gradients' norms at the last layer."""
        last = self.model.last.weight
        own, other = (torch.autograd.grad(value, last, retain_graph=True)[0] for value in (loss, adversarial))
        return (own.norm() / (other.norm() + 1e-4)).clamp(max=1e4).detach()
