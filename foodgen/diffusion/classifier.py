"""A classifier that also sees noisy images, so that it can guide a sampler (Dhariwal 2021, section 4)."""

from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import models
from foodgen.diffusion.process import Process


@models.add_to_registry(name="noisy_classifier")
class NoisyClassifier(nn.Module):
    """Tells the class of x_t.

    network  (x, time) to logits, (batch, classes)
    process  the corruption, which must be the guided model's
    channels, image_size  of what it sees
    """

    def __init__(self, network: nn.Module, process: Process, channels: int, image_size: int) -> None:
        super().__init__()
        self.network, self.process = network, process
        self.noise_shape = (channels, image_size, image_size)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: x_t, (batch, channels, size, size); t: (batch,). Logits, (batch, classes)."""
        scales = self.process.scales(t)
        return self.network(scales.inp * x, scales.time).float()

    def practise(self, images: Tensor) -> Tensor:
        """Logits of images as training meets them: at the noise levels that the process draws."""
        t = self.process.draw(uniform_for(images))
        return self(self.process.mix(images, normal_like(images), t), t)

    def log_probability(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """ln p(label | x_t), (batch,)."""
        return -functional.cross_entropy(self(x, t), labels, reduction="none")
