"""R3GAN (Huang 2024): modernised residual blocks without normalisation, for a relativistic loss with R1 and R2."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.bounds import Positive
from foodgen.core.registry import models
from foodgen.core.types import Generator
from foodgen.layers.adversarial import halvings
from foodgen.layers.conditioning import ClassTable
from foodgen.layers.filter import Smooth

LEAK = 0.2
GAIN = math.sqrt(2 / (1 + LEAK**2))  # keeps the deviation through leaky ReLU


def _plain(inputs: int, outputs: int, size: int = 1, groups: int = 1, gain: float = 1.0) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(inputs // groups * size**2))
    return layer


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, 0.0, inputs**-0.5)
    return layer


class Block(nn.Module):
    """1x1, grouped 3x3 at twice the width, 1x1 that starts at zero (section 3.3; Fixup's scale, Zhang 2019)."""

    def __init__(self, width: int, group: int, blocks: int, expansion: int = 2) -> None:
        super().__init__()
        wide = width * expansion
        gain = GAIN * blocks**-0.25
        if wide % group:
            raise ValueError(f"group: {group} does not divide the {wide} channels of a block")
        self.first = _plain(width, wide, gain=gain)
        self.second = _plain(wide, wide, size=3, groups=wide // group, gain=gain)
        self.third = _plain(wide, width, gain=0.0)
        self.shifts = nn.ParameterList(torch.zeros(wide, 1, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden = self.second(functional.leaky_relu(hidden + self.shifts[0].to(hidden.dtype), LEAK))
        return x + self.third(functional.leaky_relu(hidden + self.shifts[1].to(hidden.dtype), LEAK))


class Change(nn.Module):
    """Another size, and another width where that differs."""

    def __init__(self, inputs: int, outputs: int, up: bool) -> None:
        super().__init__()
        self.up, self.smooth = up, Smooth()
        self.width = _plain(inputs, outputs) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return functional.interpolate(self.width(x), scale_factor=2.0, mode="bilinear")
        return self.width(self.smooth.down(x))


def _check(widths: Sequence[int], image_size: int, group: int) -> None:
    if min(widths, default=0) < 1 or group < 1:
        raise ValueError(f"widths: {list(widths)} and group: {group} are at least 1")
    if len(widths) != halvings(image_size) + 1:
        raise ValueError(
            f"widths: {len(widths)} are given, one for each of {halvings(image_size) + 1} sizes from 4 to {image_size} "
            f"are expected"
        )


@models.add_to_registry(name="r3gan")
class R3GAN(Generator):
    """Blocks from 4x4 pixels up; noise and class weigh learnt 4x4 patterns.

    channels, image_size  of the images
    classes               number of labels, each a vector beside the noise; 0 for none
    widths                channels at 4, 8, ... pixels
    blocks                a size
    group                 channels that a 3x3 convolution mixes
    z_dim                 numbers an image starts from
    label_width           of a label's vector
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        widths: Sequence[int] = (768, 768, 768, 768, 384),
        blocks: Positive = 2,
        group: int = 16,
        z_dim: Positive = 64,
        label_width: Positive = 64,
    ) -> None:
        super().__init__()
        _check(widths, image_size, group)
        self.noise_shape = (z_dim,)
        self.label = ClassTable(classes, label_width, deviation=classes**-0.5) if classes else None
        self.weigh = _linear(z_dim + (label_width if classes else 0), widths[0])
        self.patterns = nn.Parameter(torch.randn(widths[0], 4, 4))
        layers: list[nn.Module] = []
        for index, width in enumerate(widths):
            if index:
                layers.append(Change(widths[index - 1], width, up=True))
            layers += [Block(width, group, blocks * len(widths)) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)
        self.last = _plain(widths[-1], channels)

    def images(self, latent: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        if self.label is not None:
            latent = torch.cat([latent, self.label(labels, len(latent))], dim=1)
        x = self.weigh(latent)[:, :, None, None] * self.patterns  # (batch, widths[0], 4, 4)
        return self.last(self.layers(x))  # (batch, channels, size, size)


@models.add_to_registry(name="r3gan_discriminator")
class R3GANDiscriminator(nn.Module):
    """The same blocks down to 4x4 pixels, a weight for each of them, and the class by projection.

    channels, image_size, classes, widths, blocks, group  as the generator's, widths from 4 pixels up
    label_width  of a label's vector
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        widths: Sequence[int] = (768, 768, 768, 768, 384),
        blocks: Positive = 2,
        group: int = 16,
        label_width: Positive = 768,
    ) -> None:
        super().__init__()
        _check(widths, image_size, group)
        self.first = _plain(channels, widths[-1])
        layers: list[nn.Module] = []
        for index in reversed(range(len(widths))):
            layers += [Block(widths[index], group, blocks * len(widths)) for _ in range(blocks)]
            if index:
                layers.append(Change(widths[index], widths[index - 1], up=False))
        self.layers = nn.Sequential(*layers)
        self.patterns = nn.Parameter(torch.randn(widths[0], 4, 4) / 4)
        # so small that the first logits are about 1 / sqrt(classes) and slopes leave R1 and R2 little to do
        self.label = ClassTable(classes, label_width, deviation=(classes * label_width) ** -0.5) if classes else None
        self.head = _linear(widths[0], label_width if classes else 1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """images: (batch, channels, size, size) to logits, (batch,)."""
        x = self.layers(self.first(images))  # (batch, widths[0], 4, 4)
        x = self.head((x * self.patterns).sum(dim=(2, 3)))
        if self.label is None:
            return x[:, 0]
        return (x * self.label(labels, len(x))).sum(dim=1)
