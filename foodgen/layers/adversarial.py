"""Parts that several GANs share: class-conditional batch norm, residual blocks, spectral norm, projection."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from foodgen.layers.conditioning import ClassTable
from foodgen.layers.convolution import convolution


def halvings(size: int) -> int:
    """How often `size` can be halved down to 4. Raises ValueError unless evenly and at least once."""
    times = round(math.log2(max(1, size) / 4))
    if size != 4 * 2**times or times < 1:
        raise ValueError(f"image_size: {size} is not 8, 16, 32, 64, ... pixels")
    return times


def at_least_one(**numbers: int) -> None:
    """Raise ValueError, naming the first of the arguments that is below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}: {number} is not at least 1")


def orthogonal(network: nn.Module) -> None:
    """Orthogonal initial weights, zero biases, in every convolution and linear layer."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def spectral_norm(network: nn.Module, tables: bool = True) -> None:
    """Divide every weight matrix of `network` by its largest singular value (Miyato 2018).

    tables  whether embeddings count: not those of conditional batch norm, whose gains are to stay near 1
    """
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, *((nn.Embedding,) if tables else ()))
    for layer in list(network.modules()):
        if isinstance(layer, kinds):
            parametrizations.spectral_norm(layer)


class ConditionalBatchNorm(nn.Module):
    """Batch norm with a gain and a shift for each class (Dumoulin 2016)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = ClassTable(classes, channels, mean=1.0, deviation=0.0)
        self.shift = ClassTable(classes, channels, deviation=0.0)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = self.norm(x)
        gain, shift = self.gain(labels, len(x)).to(x.dtype), self.shift(labels, len(x)).to(x.dtype)
        return x * gain[:, :, None, None] + shift[:, :, None, None]


class StyleBatchNorm(nn.Module):
    """Batch norm with a gain and a shift that are linear in a style, (batch, style)."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.shift = nn.Linear(style, channels), nn.Linear(style, channels)
        for layer, bias in ((self.gain, 1.0), (self.shift, 0.0)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gain, shift = self.gain(style).to(x.dtype), self.shift(style).to(x.dtype)
        return torch.addcmul(shift[:, :, None, None], self.norm(x), gain[:, :, None, None])


class GeneratorBlock(nn.Module):
    """Twice the size through two conditional convolutions, beside a shortcut (SNGAN, figure 9b)."""

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalBatchNorm(channels, classes) for channels in (inputs, outputs))
        self.first, self.second = convolution(inputs, outputs), convolution(outputs, outputs)
        self.shortcut = convolution(inputs, outputs, size=1)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        hidden = functional.interpolate(functional.relu(self.norms[0](x, labels)), scale_factor=2.0)
        hidden = self.second(functional.relu(self.norms[1](self.first(hidden), labels)))
        return functional.interpolate(self.shortcut(x), scale_factor=2.0) + hidden


class DiscriminatorBlock(nn.Module):
    """Two convolutions beside a shortcut, then half the size if `down` (SNGAN, figure 9a).

    first  whether x is the image itself, which no activation may cut
    """

    def __init__(self, inputs: int, outputs: int, down: bool, first: bool = False) -> None:
        super().__init__()
        self.down, self.begins = down, first
        self.first, self.second = convolution(inputs, outputs), convolution(outputs, outputs)
        self.shortcut = convolution(inputs, outputs, size=1) if down or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(functional.relu(self.first(x if self.begins else functional.relu(x))))
        x = self.shortcut(x) + hidden
        return functional.avg_pool2d(x, 2) if self.down else x


class ProjectionHead(nn.Module):
    """One logit an image: a linear one, and how features and class agree (Miyato, Koyama 2018, equation 4)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        self.classes = ClassTable(classes, width, deviation=width**-0.5) if classes else None

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """features: (batch, width) to logits, (batch,)."""
        logits = self.linear(features)[:, 0]
        if self.classes is None:
            return logits
        return logits + torch.sum(self.classes(labels, len(features)) * features, dim=1)
