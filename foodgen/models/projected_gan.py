"""Projected GAN (Sauer 2021): a FastGAN generator (Liu 2021) against heads on mixed, frozen, pretrained features."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.networks import FeatureMaps
from foodgen.core.registry import models
from foodgen.core.types import Generator
from foodgen.layers.adversarial import ConditionalBatchNorm, at_least_one, halvings, spectral_norm
from foodgen.layers.conditioning import ClassTable
from foodgen.layers.fastgan import SkipExcitation, UpBlock, plain_convolution
from foodgen.layers.style import noise_maps, normalised

# of the width, at 4, 8, 16, ... pixels (FastGAN, as Projected GAN sets it)
MULTIPLES = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5}


@models.add_to_registry(name="projected_gan")
class FastGAN(Generator):
    """FastGAN's generator, as Projected GAN uses it, with class-conditional batch norm.

    channels, image_size  of the images, 32 to 256 pixels
    classes               number of labels; 0 for an unconditional network
    width                 channels are a multiple of it: 16 at 4x4 pixels, 2 at 32 and 64
    z_dim                 numbers an image starts from; its noise holds those of its pixels as well

    Maps of 64 pixels and more are excited by those of a sixteenth of their size.
    """

    def __init__(self, channels: int, image_size: int, classes: int, width: int = 64, z_dim: int = 256) -> None:
        super().__init__()
        at_least_one(width=width, z_dim=z_dim)
        count = halvings(image_size)
        if not 32 <= image_size <= max(MULTIPLES):
            raise ValueError(f"image_size: {image_size} is not between 32 and {max(MULTIPLES)}")
        self.z_dim = z_dim
        self.sizes = [8 * 2 ** (index // 2) for index in range(2 * count)]  # a convolution's
        self.noise_shape = (z_dim + sum(size**2 for size in self.sizes),)
        widths = [max(1, int(width * MULTIPLES[4 * 2**index])) for index in range(count + 1)]
        self.first = nn.ConvTranspose2d(z_dim, 2 * widths[0], 4, bias=False)
        self.norm = nn.BatchNorm2d(2 * widths[0])
        self.blocks = nn.ModuleList(
            UpBlock(widths[index], widths[index + 1], partial(ConditionalBatchNorm, classes=classes))
            for index in range(count)
        )
        self.excitations = nn.ModuleDict(
            {str(index): SkipExcitation(widths[index - 4], widths[index]) for index in range(4, count + 1)}
        )
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.orthogonal_(layer.weight)
        spectral_norm(self, tables=False)

    def latent(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        return normalised(noise[:, : self.z_dim])

    def images(self, latent: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        x = functional.glu(self.norm(self.first(latent[:, :, None, None])), dim=1)
        maps = [x]  # at 4, 8, ... pixels
        pixels = noise_maps(noise[:, self.z_dim :], self.sizes)
        for index, block in enumerate(self.blocks, start=1):
            x = block(x, labels, pixels[2 * index - 2 : 2 * index])
            if str(index) in self.excitations:
                x = self.excitations[str(index)](maps[index - 4], x)
            maps.append(x)
        return self.last(x).tanh()  # (batch, channels, size, size)


class Mixing(nn.Module):
    """Fixed random mixing of feature maps: across channels, then across scales, the deepest first (section 3.2).

    Every map leaves at twice its size, which is the next finer one's.

    inputs   channels of the maps, the finest first
    outputs  channels after the mixing
    """

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.channels = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in zip(inputs, outputs, strict=True)
        )
        finer = [*outputs[:1], *outputs[:-1]]  # a map leaves as wide as the next finer one, which it joins
        self.scales = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in zip(outputs, finer, strict=True)
        )
        self.widths = finer
        for layer in [*self.channels, *self.scales]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        self.requires_grad_(False)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        mixed = [layer(x) for layer, x in zip(self.channels, maps, strict=True)]
        below: Tensor | None = None
        for index in reversed(range(len(mixed))):
            merged = mixed[index] if below is None else mixed[index] + below
            below = mixed[index] = self.scales[index](functional.interpolate(merged, scale_factor=2.0, mode="bilinear"))
        return mixed


class Head(nn.Module):
    """A discriminator of one feature map: halved until 8 pixels or fewer are left, a logit for each 4x4 of them."""

    def __init__(self, inputs: int, size: int, classes: int, label_width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while size > 8:
            outputs = min(512, 2 * inputs)
            layers += [plain_convolution(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs)]
            layers += [nn.LeakyReLU(0.2)]
            inputs, size = outputs, (size + 1) // 2
        self.layers = nn.Sequential(*layers)
        size = min(4, size)
        self.last = plain_convolution(inputs, label_width if classes else 1, size, padding=0)
        self.label = ClassTable(classes, label_width) if classes else None
        spectral_norm(self, tables=False)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = self.last(self.layers(x))
        if self.label is not None:
            x = (x * self.label(labels, len(x))[:, :, None, None]).sum(dim=1) / x.shape[1] ** 0.5
        return x.flatten(1)  # (batch, logits)


@models.add_to_registry(name="projected_gan_discriminator")
class ProjectedDiscriminator(nn.Module):
    """Heads on randomly mixed features of a frozen network, one a scale.

    features     a frozen network
    classes      number of labels; 0 for an unconditional network
    width        channels of the finest mixed map; doubled with each coarser one
    label_width  of a label's vector
    """

    def __init__(self, features: FeatureMaps, classes: int, width: int = 64, label_width: int = 64) -> None:
        super().__init__()
        at_least_one(width=width, label_width=label_width)
        self.features = features.requires_grad_(False)
        inputs = features.widths
        self.mixing = Mixing(inputs, [width * 2**index for index in range(len(inputs))])
        sizes = [features.resolution // (2 * 2**index) for index in range(len(inputs))]
        self.heads = nn.ModuleList(
            Head(width, size, classes, label_width) for width, size in zip(self.mixing.widths, sizes, strict=True)
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """images: (batch, 3, size, size) in [-1, 1] to logits, (batch, logits of all scales)."""
        maps = self.mixing(self.features(images))
        return torch.cat([head(x, labels) for head, x in zip(self.heads, maps, strict=True)], dim=1)
