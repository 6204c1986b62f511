"""Blocks of FastGAN's generator (Liu 2021)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.layers.style import PixelNoise


def plain_convolution(inputs: int, outputs: int, size: int, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    """A convolution without bias, which keeps the size unless told otherwise."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2 if padding is None else padding, bias=False)


def gated_linear_unit(x: Tensor) -> Tensor:
    """The first half of the channels, gated by the second; x: (batch, 2 * channels, height, width).

    Its gradient keeps x's memory format. torch's does not in bf16, and then batch norm's takes 20 times as long.
    """
    return functional.glu(_KeepFormat.apply(x), dim=1)


class _KeepFormat(torch.autograd.Function):
    """The identity, whose gradient comes in the memory format of its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.format = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else None
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient if ctx.format is None else gradient.contiguous(memory_format=ctx.format)


class UpBlock(nn.Module):
    """Twice the size, then two convolutions with noise, conditional batch norm and gated linear units.

    norm  channels to a norm, (x, condition) to x
    """

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(plain_convolution(width, 2 * outputs, 3) for width in (inputs, outputs))
        self.noises = nn.ModuleList(PixelNoise() for _ in range(2))
        self.norms = nn.ModuleList(norm(2 * outputs) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor | None, noise_maps: Sequence[Tensor | None]) -> Tensor:
        """condition: what the norms follow, labels, (batch,), or styles, (batch, style)."""
        x = functional.interpolate(x, scale_factor=2.0)
        for convolution, noise, plane, norm in zip(self.convolutions, self.noises, noise_maps, self.norms, strict=True):
            x = gated_linear_unit(norm(noise(convolution(x), plane), condition))
        return x  # (batch, outputs, size, size)


class SkipExcitation(nn.Module):
    """Channels of a large feature map weighed by a small one (skip-layer excitation; FastGAN, equation 1)."""

    def __init__(self, small: int, large: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            plain_convolution(small, large, 4, padding=0),
            nn.SiLU(),
            plain_convolution(large, large, 1),
        )

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        return large * self.layers(small).sigmoid()
