"""Halving and doubling the size of feature maps."""

from torch import Tensor, nn
from torch.nn import functional

from foodgen.layers.convolution import convolution


class Downsample(nn.Module):
    """Half the size, by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = convolution(channels, channels, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x)  # (batch, channels, height / 2, width / 2)


class Upsample(nn.Module):
    """Twice the size: every pixel repeated, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.convolution(x)  # (batch, channels, height * 2, width * 2)
