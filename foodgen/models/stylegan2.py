"""StyleGAN2 (Karras 2019b), and StyleGAN (Karras 2018) on the same parts; conditional as in ADA (Karras 2020)."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from foodgen.core.bounds import Positive
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import models
from foodgen.core.types import Generator
from foodgen.layers.adversarial import halvings
from foodgen.layers.conditioning import ClassTable
from foodgen.layers.filter import Smooth
from foodgen.layers.style import (
    AdaptiveLayer,
    EqualConvolution,
    EqualLinear,
    MinibatchDeviation,
    ModulatedConvolution,
    ModulatedLayer,
    StyleMapping,
    leaky,
    noise_maps,
    normalised,
)

LAYERS = {"modulated": ModulatedLayer, "adaptive_instance_norm": AdaptiveLayer}


def widths(image_size: int, channel_base: int, channel_max: int) -> list[int]:
    """Channels at 4, 8, ... pixels: channel_base / size, channel_max at most. Raises ValueError if none are left."""
    if channel_base < image_size or channel_max < 1:
        raise ValueError(
            f"channel_base: {channel_base} is at least the image's size, {image_size}, and "
            f"channel_max: {channel_max} at least 1"
        )
    return [min(channel_base // (4 * 2**index), channel_max) for index in range(halvings(image_size) + 1)]


@models.add_to_registry(name="stylegan2")
class StyleGAN2(Generator):
    """A mapping network gives each layer its style; the layers start from a learnt constant.

    channels, image_size  of the images
    classes               number of labels; 0 for an unconditional network
    z_dim                 numbers that a style is made of; an image's noise holds those of its pixels as well
    w_dim                 of the styles
    mapping_layers        of the mapping network
    channel_base, channel_max  channels are channel_base / size, channel_max at most
    layer                 modulated (StyleGAN2) or adaptive_instance_norm (StyleGAN)
    skips                 sum up an image from all sizes (StyleGAN2's output skips), or take the last size's
    mixing                share of the training images that have a second style from some layer on
    decay                 of the running mean of styles, which truncation shrinks towards

    StyleGAN's first constant has its noise and style behind a convolution here.
    """

    style_mean: Tensor

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        channel_base: int = 16384,
        channel_max: int = 512,
        layer: Literal["modulated", "adaptive_instance_norm"] = "modulated",
        skips: bool = True,
        mixing: float = 0.9,
        decay: float = 0.998,
    ) -> None:
        super().__init__()
        if not 0 <= mixing <= 1 or not 0 <= decay < 1:
            raise ValueError(f"mixing: {mixing} is in [0, 1] and decay: {decay} in [0, 1)")
        self.z_dim, self.skips, self.mixing, self.decay = z_dim, skips, mixing, decay
        self.mapping = StyleMapping(z_dim, w_dim, classes, mapping_layers)
        outputs = widths(image_size, channel_base, channel_max)
        self.constant = nn.Parameter(torch.randn(1, outputs[0], 4, 4))
        self.layers, self.to_image = nn.ModuleList(), nn.ModuleList()
        self.sizes: list[int] = []  # a layer's
        for index, now in enumerate(outputs):
            size = 4 * 2**index
            if index:
                self.layers.append(LAYERS[layer](outputs[index - 1], now, w_dim, up=True))
            self.layers.append(LAYERS[layer](now, now, w_dim, up=False))
            self.sizes += [size] * (2 if index else 1)
            if skips or size == image_size:
                self.to_image.append(ModulatedConvolution(now, channels, w_dim, size=1, demodulate=False))
        self.shift = nn.ParameterList(torch.zeros(channels, 1, 1) for _ in self.to_image)
        self.smooth = Smooth()
        self.noise_shape = (z_dim + sum(size**2 for size in self.sizes),)
        self.register_buffer("style_mean", torch.zeros(w_dim))

    def latent(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """A style for each layer, (batch, layers + 1, w_dim); the last is the image's."""
        noise = noise[:, : self.z_dim]
        style = self.mapping(noise, labels)
        styles = style[:, None].expand(-1, len(self.layers) + 1, -1)
        if not self.training:
            return styles
        with torch.no_grad():
            self.style_mean.lerp_(style.float().mean(dim=0), 1 - self.decay)
        if self.mixing == 0:
            return styles
        other = self.mapping(normal_like(noise), labels)[:, None]
        crossing = 1 + (uniform_for(noise) * len(self.layers)).floor()  # first layer of the second style
        crossing = torch.where(uniform_for(noise) < self.mixing, crossing, len(self.layers) + 1)
        second = torch.arange(len(self.layers) + 1, device=noise.device) >= crossing[:, None]
        return torch.where(second[:, :, None], other, styles)

    def mean_latent(self) -> Tensor:
        return self.style_mean

    def images(self, latent: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        x, image = self.constant.expand(len(latent), -1, -1, -1), None
        for index, (layer, plane) in enumerate(
            zip(self.layers, noise_maps(noise[:, self.z_dim :], self.sizes), strict=True)
        ):
            x = layer(x, latent[:, index], plane)
            if index % 2 == 0 and self.skips:  # the last layer of its size
                image = self._paint(index // 2, x, latent[:, index + 1], image)
        return image if image is not None else self._paint(0, x, latent[:, -1], None)

    def _paint(self, index: int, x: Tensor, style: Tensor, below: Tensor | None) -> Tensor:
        image = self.to_image[index](x, style) + self.shift[index]
        return image if below is None else image + self.smooth.up(below)


class Halve(nn.Module):
    """Two convolutions, the second halving the size; beside a shortcut if `residual`."""

    def __init__(self, inputs: int, outputs: int, residual: bool) -> None:
        super().__init__()
        self.first, self.second = EqualConvolution(inputs, inputs), EqualConvolution(inputs, outputs, down=True)
        self.shortcut = EqualConvolution(inputs, outputs, size=1, down=True, bias=False) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = leaky(self.second(leaky(self.first(x))))
        return hidden if self.shortcut is None else (hidden + self.shortcut(x)) * 0.5**0.5


@models.add_to_registry(name="stylegan2_discriminator")
class StyleGAN2Discriminator(nn.Module):
    """Down to 4x4 pixels, the deviation within the minibatch, and the class by projection.

    channels, image_size, classes, channel_base, channel_max  as the generator's
    residual  shortcuts beside the blocks (StyleGAN2), or none (StyleGAN)
    group     images whose deviation is taken together
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        channel_base: int = 16384,
        channel_max: int = 512,
        residual: bool = True,
        group: Positive = 4,
    ) -> None:
        super().__init__()
        smallest, *larger = widths(image_size, channel_base, channel_max)
        inputs = [*reversed(larger), smallest]
        self.first = EqualConvolution(channels, inputs[0], size=1)
        pairs = pairwise(inputs)
        self.blocks = nn.Sequential(*(Halve(now, after, residual) for now, after in pairs))
        self.deviation = MinibatchDeviation(group)
        self.mixing = EqualConvolution(smallest + 1, smallest)
        self.flat = EqualLinear(smallest * 16, smallest)
        self.label = ClassTable(classes, smallest) if classes else None
        self.head = EqualLinear(smallest, smallest if classes else 1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """images: (batch, channels, size, size) to logits, (batch,)."""
        x = self.blocks(leaky(self.first(images)))
        x = leaky(self.mixing(self.deviation(x)))  # (batch, smallest, 4, 4)
        x = self.head(leaky(self.flat(x.flatten(1))))
        if self.label is None:
            return x[:, 0]
        return (x * normalised(self.label(labels, len(x)))).sum(dim=1) / x.shape[1] ** 0.5
