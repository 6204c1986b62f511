"""A network and a process together: callers only ever see clean images and noise."""

from typing import Any

from torch import Tensor, nn

from foodgen.core.registry import models
from foodgen.core.types import Prediction
from foodgen.diffusion.process import Process, column


@models.add_to_registry(name="denoiser")
class Denoiser(nn.Module):
    """Predicts the image and the noise that x_t is made of.

    network     (x, time, labels) to an image F; what F means, the process says
    process     the corruption
    channels, image_size  of what it denoises
    classes     number of labels; this number itself is the null label
    """

    def __init__(self, network: nn.Module, process: Process, channels: int, image_size: int, classes: int) -> None:
        super().__init__()
        self.network, self.process = network, process
        self.null_label = classes
        self.noise_shape = (channels, image_size, image_size)

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compile the network: it, not `forward`, is what training calls."""
        self.network.compile(*arguments, **options)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Prediction:
        """x: x_t, (batch, channels, size, size); t: (batch,); labels: (batch,), or None for no class."""
        scales = self.process.scales(t)
        output = self.network(scales.inp * x, scales.time, labels).float()
        clean = scales.skip * x + scales.out * output
        return Prediction(clean, self.process.noise_in(x, clean, t))

    def regression(self, clean: Tensor, noise: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """The network's raw output, and what it should have been.

        Solved for F, clean = skip x + out F reads, without cancellation where sigma is small,
        F = ((1 - skip alpha) clean - skip sigma noise) / out.
        """
        scales = self.process.scales(t)
        alpha, sigma = column(self.process.alpha(t)), column(self.process.sigma(t))
        target = ((1 - scales.skip * alpha) * clean - scales.skip * sigma * noise) / scales.out
        output = self.network(scales.inp * self.process.mix(clean, noise, t), scales.time, labels)
        return output.float(), target
