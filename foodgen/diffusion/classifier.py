"""A classifier of noisy images, for classifier guidance (Dhariwal 2021, section 4)."""

from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.networks import NoiseLevelClassifier
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import models
from foodgen.diffusion.process import GaussianProcess


@models.add_to_registry(name="noisy_classifier")
class NoisyClassifier(NoiseLevelClassifier):
    """Predicts the class of x_t.

    network               (x, time) to logits, (batch, classes)
    process               the path, which must be the guided model's
    channels, image_size  of x_t
    """

    process: GaussianProcess

    def __init__(self, network: nn.Module, process: GaussianProcess, channels: int, image_size: int) -> None:
        super().__init__()
        self.network, self.process = network, process
        self.noise_shape = (channels, image_size, image_size)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: x_t, (batch, channels, size, size); t: (batch,). Logits, (batch, classes)."""
        factors = self.process.preconditioning(t)
        return self.network(factors.c_in * x, factors.c_noise).float()

    def training_logits(self, images: Tensor) -> Tensor:
        """Logits at the noise levels of the training distribution."""
        t = self.process.sample_t(uniform_for(images))
        return self(self.process.q_sample(images, normal_like(images), t), t)

    def log_probability(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return -functional.cross_entropy(self(x, t), labels, reduction="none")
