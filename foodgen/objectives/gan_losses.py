"""What discriminator and generator minimise, given the discriminator's logits of real and generated images."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import relu, softplus

from foodgen.core.registry import gan_losses


class Loss(ABC):
    """Two scalars from logits, (batch,) or (batch, heads): high means real."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the discriminator minimises."""

    @abstractmethod
    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        """What the generator minimises; `real` computes the logits of real images where they matter."""


@gan_losses.add_to_registry(name="logistic")
class Logistic(Loss):
    """Cross entropy, the generator's non-saturating (Goodfellow 2014)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        return softplus(-fake).mean()


@gan_losses.add_to_registry(name="hinge")
class Hinge(Loss):
    """Margins of one on either side (Lim 2017; SNGAN, equations 16 and 17)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        return -fake.mean()


@gan_losses.add_to_registry(name="wasserstein")
class Wasserstein(Loss):
    """The distance of the means (Arjovsky 2017); wants a discriminator kept smooth by a gradient penalty."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        return -fake.mean()


@gan_losses.add_to_registry(name="relativistic")
class Relativistic(Loss):
    """Cross entropy of pairs: is the real image more real than its fake? (RpGAN; R3GAN, Huang 2024, equation 2)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real).mean()

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        return softplus(real() - fake).mean()
