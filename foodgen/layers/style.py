"""Parts of the StyleGANs: layers of equalised learning rate, modulated convolution, adaptive instance norm."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.devices import full_precision
from foodgen.layers.adversarial import at_least_one
from foodgen.layers.conditioning import ClassTable
from foodgen.layers.filter import Smooth


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the deviation of a normal input about 1."""
    return functional.leaky_relu(x, 0.2) * math.sqrt(2)


def normalised(x: Tensor) -> Tensor:
    """Scaled to a mean square of 1, (batch, width)."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class EqualLinear(nn.Module):
    """A linear layer whose weights are normal and scaled when used, so that all learn equally fast (Karras 2017).

    start  initial bias
    rate   of learning, relative to other layers'
    """

    def __init__(self, inputs: int, outputs: int, start: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), start / rate))
        self.gain, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * self.gain, self.bias * self.rate)


class EqualConvolution(nn.Module):
    """A convolution of equalised learning rate; `down` blurs and halves the size."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain, self.size, self.down, self.smooth = 1 / math.sqrt(inputs * size**2), size, down, Smooth()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain
        if not self.down:
            return functional.conv2d(x, weight, self.bias, padding=self.size // 2)
        x = self.smooth(x, padding=1 + self.size // 2)
        return functional.conv2d(x, weight, self.bias, stride=2)


class ModulatedConvolution(nn.Module):
    """A convolution whose input channels an image's style scales (StyleGAN2, equations 1 to 3).

    The style scales the features before and the demodulation after, which equals scaling each image's own weights.
    demodulate  keep each output's deviation at 1
    up          double the size first
    """

    def __init__(
        self, inputs: int, outputs: int, style: int, size: int = 3, demodulate: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.to_scale = EqualLinear(style, inputs, start=1.0)
        self.gain, self.size, self.demodulate, self.up = 1 / math.sqrt(inputs * size**2), size, demodulate, up
        self.smooth = Smooth()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight = self.weight * self.gain
        with full_precision(x):
            scale = self.to_scale(style)  # (batch, inputs)
        x = x * scale[:, :, None, None].to(x.dtype)
        if self.up:
            x = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = self.smooth(x, padding=1) * 4
        else:
            x = functional.conv2d(x, weight, padding=self.size // 2)
        if self.demodulate:
            with full_precision(x):
                squares = weight.square().sum(dim=(2, 3))  # (outputs, inputs)
                norm = (scale.square() @ squares.T + 1e-8).rsqrt()
            x = x * norm[:, :, None, None].to(x.dtype)
        return x


class PixelNoise(nn.Module):
    """Noise of learnt strength, the same for all channels of a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor, plane: Tensor | None) -> Tensor:
        """plane: standard normal, (batch, 1, height, width), or None for no noise."""
        return x if plane is None else x + plane.to(x.dtype) * self.strength


def noise_maps(noise: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """An image's noise, (batch, sum of squared sizes), as noise_maps for pixels, (batch, 1, size, size) each."""
    parts = noise.split([size**2 for size in sizes], dim=1)
    return [part.unflatten(1, (1, size, size)) for part, size in zip(parts, sizes, strict=True)]


class ModulatedLayer(nn.Module):
    """Modulated convolution, noise, bias, activation (StyleGAN2, figure 2c)."""

    def __init__(self, inputs: int, outputs: int, style: int, up: bool) -> None:
        super().__init__()
        self.convolution = ModulatedConvolution(inputs, outputs, style, up=up)
        self.noise = PixelNoise()
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, style: Tensor, plane: Tensor) -> Tensor:
        x = self.noise(self.convolution(x, style), plane)  # (batch, outputs, size, size)
        return leaky(x + self.bias[:, None, None].to(x.dtype))


class AdaptiveLayer(nn.Module):
    """Convolution, blur where it doubles the size, noise, activation, adaptive instance norm (StyleGAN, figure 1b)."""

    def __init__(self, inputs: int, outputs: int, style: int, up: bool) -> None:
        super().__init__()
        self.up, self.smooth = up, Smooth()
        self.convolution = EqualConvolution(inputs, outputs)
        self.noise = PixelNoise()
        self.to_scale, self.to_shift = EqualLinear(style, outputs, start=1.0), EqualLinear(style, outputs)

    def forward(self, x: Tensor, style: Tensor, plane: Tensor) -> Tensor:
        x = self.convolution(self.smooth.up(x) if self.up else x)
        x = functional.instance_norm(leaky(self.noise(x, plane)).float())  # (batch, outputs, size, size)
        return x * self.to_scale(style)[:, :, None, None] + self.to_shift(style)[:, :, None, None]


class StyleMapping(nn.Module):
    """Noise and class to a style, through linear layers that learn slowly (StyleGAN, section 2 and appendix C)."""

    def __init__(self, noise: int, style: int, classes: int, layers: int, rate: float = 0.01) -> None:
        super().__init__()
        at_least_one(mapping_layers=layers, z_dim=noise, w_dim=style)
        self.label = ClassTable(classes, style) if classes else None
        widths = [noise + (style if classes else 0), *[style] * layers]
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(EqualLinear(inputs, outputs, rate=rate) for inputs, outputs in pairs)

    def forward(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """noise: (batch, noise) to (batch, style)."""
        with full_precision(noise):
            x = normalised(noise.float())
            if self.label is not None:
                x = torch.cat([x, normalised(self.label(labels, len(x)))], dim=1)
            for layer in self.layers:
                x = leaky(layer(x))
        return x


class MinibatchDeviation(nn.Module):
    """One more plane: how much images of a group differ (Karras 2017)."""

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        group = next(size for size in range(min(self.group, batch), 0, -1) if batch % size == 0)
        parts = x.float().unflatten(0, (group, batch // group))
        deviation = (parts.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # (batch / group,)
        plane = deviation.to(x.dtype).repeat(group)[:, None, None, None].expand(-1, 1, height, width)
        return torch.cat([x, plane], dim=1)
