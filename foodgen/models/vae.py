"""The KL autoencoder of latent diffusion (Rombach 2021), and the adversary that looks at patches (Isola 2016)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core.networks import TrainableAutoencoder
from foodgen.core.registry import models
from foodgen.core.types import Generator
from foodgen.layers.attention import SelfAttention
from foodgen.layers.convolution import convolution, group_norm
from foodgen.layers.resample import Downsample, Upsample
from foodgen.layers.residual import ResidualBlock


@models.add_to_registry(name="vae")
class KLAutoencoder(Generator, TrainableAutoencoder):
    """Images to normal distributions of latents, and latents to images.

    channels         of the images
    image_size       height and width of the images
    latent_channels  of the latents
    width            channels at the full size
    multipliers      of the width, one a size, each half the one before; latents have the last size
    blocks           residual blocks a size in the encoder; one more in the decoder
    momentum         share of the old that a batch keeps of the latents' running mean and deviation

    Training keeps the latents' mean and deviation, a channel each, so that whoever works on latents has them at
    unit variance. As a generator it decodes standard normal noise at that scale.
    Raises ValueError if the sizes do not halve evenly, or for numbers that make no network.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        channels: int,
        image_size: int,
        latent_channels: int = 4,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        halvings = len(multipliers) - 1
        if min(width, latent_channels, blocks, min(multipliers, default=0)) < 1 or not 0 <= momentum < 1:
            raise ValueError(
                f"width: {width}, latent_channels: {latent_channels}, blocks: {blocks} and multipliers: "
                f"{list(multipliers)} are at least 1, momentum: {momentum} is in [0, 1)"
            )
        if image_size % 2**halvings:
            raise ValueError(f"multipliers: {image_size} pixels cannot be halved {halvings} times")
        self.noise_shape = (latent_channels, image_size >> halvings, image_size >> halvings)
        self.momentum = momentum
        widths = [width * multiplier for multiplier in multipliers]
        self.encoder = nn.Sequential(convolution(channels, widths[0]), *_down(widths, blocks), *_middle(widths[-1]))
        self.encoder.extend([group_norm(widths[-1]), nn.SiLU(), convolution(widths[-1], 2 * latent_channels)])
        self.to_latents = convolution(2 * latent_channels, 2 * latent_channels, size=1)
        self.from_latents = convolution(latent_channels, latent_channels, size=1)
        self.decoder = nn.Sequential(
            convolution(latent_channels, widths[-1]), *_middle(widths[-1]), *_up(widths, blocks + 1)
        )
        self.last = convolution(widths[0], channels)
        self.decoder.extend([group_norm(widths[0]), nn.SiLU()])
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compile both halves: they, not `forward`, are what training calls."""
        fixed = {"dynamic": False, **options}  # both share code, whose shapes would be taken for changing ones
        self.encoder.compile(*arguments, **fixed)
        self.decoder.compile(*arguments, **fixed)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents, (batch, *noise_shape) each, of images about [-1, 1]."""
        mean, log_variance = self.to_latents(self.encoder(images)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The images of latents as `encode` has them."""
        return self.last(self.decoder(self.from_latents(latents)))

    def normalise(self, latents: Tensor) -> Tensor:
        return (latents - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def denormalise(self, latents: Tensor) -> Tensor:
        return latents * self.latent_std[:, None, None] + self.latent_mean[:, None, None]

    @torch.no_grad()
    def update_statistics(self, latents: Tensor) -> None:
        """Move the running mean and deviation towards a batch of latents."""
        variance, mean = torch.var_mean(latents.float(), dim=(0, 2, 3))
        self.latent_mean.lerp_(mean, 1 - self.momentum)
        self.latent_std.lerp_(variance.sqrt(), 1 - self.momentum)

    def images(self, latent: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        return self.decode(self.denormalise(latent))


def _down(widths: Sequence[int], blocks: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for index, (before, wide) in enumerate(zip([widths[0], *widths], widths, strict=False)):
        layers += [ResidualBlock(before if block == 0 else wide, wide) for block in range(blocks)]
        layers += [Downsample(wide)] if index < len(widths) - 1 else []
    return layers


def _middle(width: int) -> list[nn.Module]:
    return [ResidualBlock(width, width), SelfAttention(width), ResidualBlock(width, width)]


def _up(widths: Sequence[int], blocks: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    before = widths[-1]
    for index, wide in reversed(list(enumerate(widths))):
        layers += [ResidualBlock(before if block == 0 else wide, wide) for block in range(blocks)]
        layers += [Upsample(wide)] if index > 0 else []
        before = wide
    return layers


@models.add_to_registry(name="patch_discriminator")
class PatchDiscriminator(nn.Module):
    """One logit for each patch of an image (pix2pix's, at 70 pixels a patch with three halvings).

    channels  of the images
    width     channels after the first convolution, doubled by each of the further ones
    halvings  of the size
    """

    def __init__(self, channels: int, width: int = 64, halvings: int = 3) -> None:
        super().__init__()
        if min(width, halvings) < 1:
            raise ValueError(f"width: {width} and halvings: {halvings} are at least 1")
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        now = width
        for index in range(1, halvings + 1):
            wide, stride = width * min(2**index, 8), 2 if index < halvings else 1
            layers += [nn.Conv2d(now, wide, 4, stride=stride, padding=1), group_norm(wide), nn.LeakyReLU(0.2)]
            now = wide
        self.layers = nn.Sequential(*layers, nn.Conv2d(now, 1, 4, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, patches, patches)."""
        return self.layers(images)
