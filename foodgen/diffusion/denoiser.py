"""A network and a process together: a denoiser."""

from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core.networks import Denoiser, HasFeatures
from foodgen.core.registry import models
from foodgen.core.types import Prediction
from foodgen.diffusion import variational
from foodgen.diffusion.process import GaussianProcess, column


@models.add_to_registry(name="denoiser")
class PreconditionedDenoiser(Denoiser):
    """denoised = c_skip x_t + c_out F(c_in x_t, c_noise, labels).

    network     F: (x, time, labels) to an image; with twice the image's channels the second half is a learnt variance
                v (IDDPM, Nichol 2021)
    process     the path, and the factors around F
    channels, image_size  of x_t
    classes     number of labels; this number itself is the null label
    uncertainty whether to learn the expected loss at each noise level, by which losses are weighted (EDM2, equation 21)
    alignment   channels of the projected features that `aligned_denoising` compares; 0 for none

    Raises ValueError if the network returns no features to align.
    """

    process: GaussianProcess

    def __init__(
        self,
        network: nn.Module,
        process: GaussianProcess,
        channels: int,
        image_size: int,
        classes: int,
        uncertainty: bool = False,
        alignment: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.process, self.alignment = network, process, alignment
        self.null_label = classes
        self.noise_shape = (channels, image_size, image_size)
        self.uncertainty = Uncertainty() if uncertainty else None
        self.projector: nn.Module | None = None
        if alignment:
            if not isinstance(network, HasFeatures):
                raise ValueError(f"alignment: {type(network).__name__} returns no features to align")
            self.projector = nn.Conv2d(network.feature_channels, alignment, 3, padding=1)

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compile the network, which training calls instead of `forward`."""
        self.network.compile(*arguments, **options)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Prediction:
        return self.prediction(x, t, *self.outputs(x, t, labels))

    def outputs(self, x: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        factors = self.process.preconditioning(t)
        output = self.network(factors.c_in * x, factors.c_noise, labels).float()
        if output.shape[1] == x.shape[1]:
            return output, None
        output, v = output.chunk(2, dim=1)
        return output, (v + 1) / 2

    def outputs_and_features(self, x: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        assert isinstance(self.network, HasFeatures) and self.projector is not None
        factors = self.process.preconditioning(t)
        output, features = self.network(factors.c_in * x, factors.c_noise, labels, return_features=True)
        return output.float(), self.projector(features).float()

    def prediction(self, x: Tensor, t: Tensor, output: Tensor, v: Tensor | None = None) -> Prediction:
        factors = self.process.preconditioning(t)
        denoised = factors.c_skip * x + factors.c_out * output
        return Prediction(denoised, self.process.eps(x, denoised, t), v)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The output F that would be right.

        x_0 = c_skip x_t + c_out F solved for F, without cancellation where sigma is small:
        F = ((1 - c_skip alpha) x_0 - c_skip sigma eps) / c_out.
        """
        factors = self.process.preconditioning(t)
        alpha, sigma = column(self.process.alpha(t)), column(self.process.sigma(t))
        return ((1 - factors.c_skip * alpha) * x0 - factors.c_skip * sigma * eps) / factors.c_out

    def log_loss(self, t: Tensor) -> Tensor:
        if self.uncertainty is None:
            return torch.zeros_like(t)
        return self.uncertainty(self.process.preconditioning(t).c_noise)

    def vlb_term(self, x0: Tensor, x: Tensor, t: Tensor, s: Tensor, prediction: Prediction) -> Tensor:
        return variational.vlb_term(self.process, x0, x, t, s, prediction)

    def prior_term(self, x0: Tensor, t: Tensor) -> Tensor:
        return variational.prior_term(self.process, x0, t)


class Uncertainty(nn.Module):
    """Noise level to ln of the loss: a linear map of Fourier features (EDM2, appendix B.2)."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * torch.pi * torch.randn(width))
        self.register_buffer("phases", 2 * torch.pi * torch.rand(width))
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, time: Tensor) -> Tensor:
        """time: (batch,), on a scale of about a thousand."""
        features = (time.float()[:, None] / 1000 * self.frequencies + self.phases).cos() * 2**0.5
        return features @ self.weight / len(self.weight) ** 0.5
