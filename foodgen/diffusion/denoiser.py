"""A network and a process together: callers only ever see clean images and noise."""

from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core.registry import models
from foodgen.core.types import Prediction
from foodgen.diffusion import variational
from foodgen.diffusion.process import Process, column


@models.add_to_registry(name="denoiser")
class Denoiser(nn.Module):
    """Predicts the image and the noise that x_t is made of.

    network     (x, time, labels) to an image F; what F means, the process says. Of a network with twice the
                image's channels the second half is a learned variance (IDDPM, Nichol 2021). If it has a method
                `prepare`, training calls that before every pass
    process     the corruption
    channels, image_size  of what it denoises
    classes     number of labels; this number itself is the null label
    uncertainty whether it learns how large its loss is at each noise level, so that all levels weigh the same
                (EDM2, equation 21)
    alignment   channels of the feature maps that the network's own are to be like (see `aligned` objectives); 0
                for none

    Raises ValueError if the network cannot be aligned.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        channels: int,
        image_size: int,
        classes: int,
        uncertainty: bool = False,
        alignment: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.process = network, process
        self.null_label = classes
        self.noise_shape = (channels, image_size, image_size)
        self.uncertainty = Uncertainty() if uncertainty else None
        self.projector = None
        if alignment:
            if not hasattr(network, "middle_width"):
                raise ValueError(f"alignment: a {type(network).__name__} shows no feature map to align")
            self.projector = nn.Conv2d(network.middle_width, alignment, 3, padding=1)  # type: ignore[arg-type]

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compile the network: it, not `forward`, is what training calls."""
        self.network.compile(*arguments, **options)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Prediction:
        """x: x_t, (batch, channels, size, size); t: (batch,); labels: (batch,), or None for no class."""
        return self.prediction(x, t, *self.outputs(x, t, labels))

    def outputs(self, x: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The network's raw output F, and its learned variance's place between 0 and 1, if it has one."""
        if self.training and hasattr(self.network, "prepare"):
            self.network.prepare()  # type: ignore[operator]
        scales = self.process.scales(t)
        output = self.network(scales.inp * x, scales.time, labels).float()
        if output.shape[1] == x.shape[1]:
            return output, None
        output, share = output.chunk(2, dim=1)
        return output, (share + 1) / 2

    def prediction(self, x: Tensor, t: Tensor, output: Tensor, variance_share: Tensor | None = None) -> Prediction:
        """What the network's raw output says of x_t."""
        scales = self.process.scales(t)
        clean = scales.skip * x + scales.out * output
        return Prediction(clean, self.process.noise_in(x, clean, t), variance_share)

    def target(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the raw output should be.

        Solved for F, clean = skip x + out F reads, without cancellation where sigma is small,
        F = ((1 - skip alpha) clean - skip sigma noise) / out.
        """
        scales = self.process.scales(t)
        alpha, sigma = column(self.process.alpha(t)), column(self.process.sigma(t))
        return ((1 - scales.skip * alpha) * clean - scales.skip * sigma * noise) / scales.out

    def regression(self, clean: Tensor, noise: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """The network's raw output, and what it should have been."""
        output, _ = self.outputs(self.process.mix(clean, noise, t), t, labels)
        return output, self.target(clean, noise, t)

    def log_loss(self, t: Tensor) -> Tensor:
        """ln of the mean squared error to be expected at t, (batch,); 0 without uncertainty."""
        return torch.zeros_like(t) if self.uncertainty is None else self.uncertainty(self.process.scales(t).time)

    def features(self) -> Tensor:
        """The network's feature map of the last training pass, projected: (batch, alignment, side, side)."""
        assert self.projector is not None
        return self.projector(self.network.middle).float()

    def bound_term(self, clean: Tensor, x: Tensor, t: Tensor, s: Tensor, prediction: Prediction) -> Tensor:
        """One term of the variational bound, (batch,) bits per dimension; see `variational.bound_term`."""
        return variational.bound_term(self.process, clean, x, t, s, prediction)

    def prior_term(self, clean: Tensor, t: Tensor) -> Tensor:
        """The bound's term of its first time, (batch,) bits per dimension."""
        return variational.prior_term(self.process, clean, t)


class Uncertainty(nn.Module):
    """Noise level to ln of the loss: a linear map of random waves (EDM2, appendix B.2)."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * torch.pi * torch.randn(width))
        self.register_buffer("phases", 2 * torch.pi * torch.rand(width))
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, time: Tensor) -> Tensor:
        """time: (batch,), on a scale of about a thousand."""
        waves = (time.float()[:, None] / 1000 * self.frequencies + self.phases).cos() * 2**0.5
        return waves @ self.weight / len(self.weight) ** 0.5
