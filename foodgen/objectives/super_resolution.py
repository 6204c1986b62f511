"""Adversarial training of a cascade's second stage (Ledig 2016; Ho 2021): small images to large ones."""

import math

from torch import nn

from foodgen.core.networks import Upsampler
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import objectives
from foodgen.core.types import Batch
from foodgen.objectives.adversarial import Adversarial, Fakes
from foodgen.objectives.augmentation import Augmentation
from foodgen.objectives.gan_losses import Loss
from foodgen.objectives.penalties import Penalty


@objectives.add_to_registry(name="super_resolution")
class SuperResolution(Adversarial):
    """A GAN whose generator starts from a noisy small image in place of noise.

    model                 an upsampler
    noise_min, noise_max  standard deviation of the noise on a small image, between them evenly in its logarithm:
                          conditioning augmentation (Ho 2021, section 3.2)

    The rest is as for `adversarial`. A generated image has its own real one, so that paired penalties make sense. They
    weigh it by 1 / (1 + noise_std^2): what noise leaves open, they would average over; the discriminator does not.
    """

    model_type = Upsampler
    paired = True

    def __init__(
        self,
        model: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        penalties: dict[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
        discriminator_steps: int = 1,
        share_fakes: bool = False,
        noise_min: float = 0.05,
        noise_max: float = 0.5,
    ) -> None:
        super().__init__(model, discriminator, loss, penalties, augmentation, discriminator_steps, share_fakes)
        if not 0 < noise_min <= noise_max:
            raise ValueError(f"noise_min, noise_max: 0 < {noise_min} <= {noise_max} does not hold")
        self.noise_min, self.noise_max = noise_min, noise_max

    def _generate(self, batch: Batch) -> Fakes:
        low = self.model.encode(batch.images)[0]
        ratio = math.log(self.noise_max / self.noise_min)
        noise_std = self.noise_min * (ratio * uniform_for(low)).exp()
        images = self.model(low + noise_std[:, None, None, None] * normal_like(low), batch.labels)
        return Fakes(images.float(), 1 / (1 + noise_std**2))
