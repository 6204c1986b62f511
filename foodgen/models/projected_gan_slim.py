"""A Projected GAN (Sauer 2021) for CPUs: few channels where maps are large, and slim heads.

A generator's time goes into maps of many pixels, so this one's last doubling is a pixel shuffle (Shi 2016) and computes
nothing at the images' own size. The heads look at features at their own size instead of twice that. One more head looks
at the pixels: the features, whose first convolution has a stride of 2, hardly see a pattern of the pixels' own period.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.bounds import Positive
from foodgen.core.networks import FeatureMaps, SteerableGenerator
from foodgen.core.registry import models
from foodgen.layers.adversarial import StyleBatchNorm, at_least_one, halvings, spectral_norm
from foodgen.layers.conditioning import ClassTable
from foodgen.layers.fastgan import SkipExcitation, UpBlock, gated_linear_unit, plain_convolution
from foodgen.layers.style import noise_maps, normalised


@models.add_to_registry(name="projected_gan_slim")
class SlimFastGAN(SteerableGenerator):
    """FastGAN's generator with norms that follow noise and class, and a pixel shuffle in place of its last block.

    channels, image_size  of the images, 16 pixels or more
    classes               number of labels; 0 for an unconditional network
    widths                channels at 4, 8, ... pixels, up to half of the images' size
    z_dim                 numbers an image starts from; its noise holds those of its pixels as well
    w_dim                 of what the norms follow, and of a label's vector
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        widths: Sequence[int] = (256, 192, 128, 64),
        z_dim: int = 128,
        w_dim: int = 128,
    ) -> None:
        super().__init__()
        at_least_one(z_dim=z_dim, w_dim=w_dim, widths=min(widths, default=0))
        if len(widths) != halvings(image_size):
            raise ValueError(f"widths: {halvings(image_size)} are expected for {image_size} pixels, not {len(widths)}")
        self.z_dim, self.widths = z_dim, widths
        self.sizes = [8 * 2 ** (index // 2) for index in range(2 * (len(widths) - 1))]  # a convolution's
        self.noise_shape = (z_dim + sum(size**2 for size in self.sizes),)
        self.label = ClassTable(classes, w_dim) if classes else None
        inputs = z_dim + (w_dim if classes else 0)
        self.mapping = nn.Sequential(nn.Linear(inputs, w_dim), nn.LeakyReLU(0.2), nn.Linear(w_dim, w_dim))
        self.first = nn.Linear(inputs, 16 * 2 * widths[0])
        self.norm = nn.BatchNorm2d(2 * widths[0])
        norm = partial(StyleBatchNorm, style=w_dim)
        self.blocks = nn.ModuleList(UpBlock(inputs, outputs, norm) for inputs, outputs in pairwise(widths))
        self.excitation = SkipExcitation(widths[0], widths[-1])
        self.last = nn.Conv2d(widths[-1], 4 * channels, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.orthogonal_(layer.weight)
        with torch.no_grad():  # the four pixels of a place begin as one, without a pattern (Aitken 2017)
            self.last.weight.copy_(self.last.weight[::4].repeat_interleave(4, dim=0))
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        for block in self.blocks:
            spectral_norm(block.convolutions, tables=False)  # type: ignore[arg-type]

    def latent(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        return normalised(noise[:, : self.z_dim])

    def images(self, latent: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        return self.synthesis(latent, labels, noise=noise)

    def synthesis(
        self, latent: Tensor, labels: Tensor | None, added: Sequence[Tensor] = (), noise: Tensor | None = None
    ) -> Tensor:
        x = latent
        if self.label is not None:
            x = torch.cat([x, normalised(self.label(labels, len(x)))], dim=1)
        style = self.mapping(x)
        x = self.first(x).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        x = gated_linear_unit(self.norm(x))  # (batch, widths[0], 4, 4)
        x = small = x + added[0] if added else x
        pixels: Sequence[Tensor | None] = [None] * len(self.sizes)
        if noise is not None:
            pixels = noise_maps(noise[:, self.z_dim :], self.sizes)
        for index, block in enumerate(self.blocks, start=1):
            x = block(x, style, pixels[2 * index - 2 : 2 * index])
            x = x + added[index] if index < len(added) else x
        x = self.last(self.excitation(small, x))
        return functional.pixel_shuffle(x, 2).tanh()  # (batch, channels, size, size)


class SlimMixing(nn.Module):
    """Fixed random mixing of feature maps, which keep their sizes: across channels, then scales, the deepest first.

    inputs   channels of the maps, the finest first
    outputs  channels after the mixing
    """

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.channels = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(inputs, outputs, strict=True))
        self.scales = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(outputs[1:], outputs, strict=False))
        for layer in [*self.channels, *self.scales]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        self.requires_grad_(False)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        mixed = [layer(x) for layer, x in zip(self.channels, maps, strict=True)]
        for index in reversed(range(len(self.scales))):
            below = self.scales[index](mixed[index + 1])  # a 1x1 convolution and the doubling commute
            below = functional.interpolate(below, scale_factor=2.0, mode="bilinear")
            mixed[index] = (mixed[index] + below) * 0.5**0.5
        return mixed


class SlimHead(nn.Module):
    """A discriminator of one map: halved down to 8 pixels, one 1x1 convolution, a logit for each 4x4 of them.

    inputs  channels of the map, `size` pixels a side
    first   whether the map is the image itself, whose first layer is not normalised
    """

    def __init__(self, inputs: int, size: int, classes: int, label_width: int, width: int, first: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while size > 8:
            layers += [plain_convolution(inputs, width, 4, stride=2, padding=1)]
            layers += [nn.LeakyReLU(0.2)] if first else [nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
            inputs, width, size, first = width, 2 * width, (size + 1) // 2, False
        if not layers or inputs < 128:
            outputs = min(256, max(inputs, 128))
            layers += [plain_convolution(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.last = plain_convolution(inputs, label_width if classes else 1, min(4, size), padding=0)
        self.label = ClassTable(classes, label_width) if classes else None
        spectral_norm(self, tables=False)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = self.last(self.layers(x))
        if self.label is not None:
            x = (x * self.label(labels, len(x))[:, :, None, None]).sum(dim=1) / x.shape[1] ** 0.5
        return x.flatten(1)  # (batch, logits)


@models.add_to_registry(name="projected_gan_slim_discriminator")
class SlimProjectedDiscriminator(nn.Module):
    """Slim heads on mixed features of a frozen network, one a scale, and one on the pixels.

    features     a frozen network
    image_size   of the images
    classes      number of labels; 0 for an unconditional network
    width        channels of the finest mixed map; doubled with each coarser one
    pixel_width  channels of the pixels' head after its first halving; 0 for no such head
    label_width  of a label's vector
    equal        whether all heads weigh the same, instead of as many logits as they have: the coarsest has one alone
    """

    def __init__(
        self,
        features: FeatureMaps,
        channels: int,
        image_size: int,
        classes: int,
        width: Positive = 64,
        pixel_width: Positive = 48,
        label_width: Positive = 64,
        equal: bool = False,
    ) -> None:
        super().__init__()
        self.equal = equal
        at_least_one(width=width, label_width=label_width)
        self.features = features.requires_grad_(False)
        inputs = features.widths
        widths = [width * 2**index for index in range(len(inputs))]
        self.mixing = SlimMixing(inputs, widths)
        sizes = [features.resolution // (4 * 2**index) for index in range(len(inputs))]
        self.heads = nn.ModuleList(
            SlimHead(own, size, classes, label_width, min(512, 2 * own))
            for own, size in zip(widths, sizes, strict=True)
        )
        self.pixels = (
            SlimHead(channels, image_size, classes, label_width, pixel_width, first=True) if pixel_width else None
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """images: (batch, 3, size, size) in [-1, 1] to logits, (batch, logits of all heads)."""
        maps = self.mixing(self.features(images))
        logits = [head(x, labels) for head, x in zip(self.heads, maps, strict=True)]
        if self.pixels is not None:
            logits.append(self.pixels(images, labels))
        if self.equal:
            most = max(own.shape[1] for own in logits)
            logits = [own.repeat(1, round(most / own.shape[1])) for own in logits]
        return torch.cat(logits, dim=1)
