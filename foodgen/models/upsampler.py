"""The second stage of a cascade (Ho 2021): a small image and its class to a large one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.bounds import Above
from foodgen.core.networks import SteerableGenerator, Upsampler
from foodgen.core.registry import models
from foodgen.layers.adversarial import at_least_one
from foodgen.layers.convolution import convolution
from foodgen.layers.residual import ResidualBlock
from foodgen.layers.style import normalised


@models.add_to_registry(name="upsampler")
class SteeredUpsampler(Upsampler):
    """A GAN's generator that an encoder of the small image steers, by what is added to its latent and to its maps.

    generator             of the large images; its weights may be those of a trained GAN
    channels, image_size  of the large images
    low_resolution        height and width of the small image: 8, 16, ...
    encoder_widths        channels of the encoder at the small image's size and at each halving of it, down to 4
    latent_limit          root mean square of what is added to the latent at most, where the noise's is 1; without a
                          limit the noise may be drowned, and many images end at one latent

    The generator's latent begins as the noise in the small image: the diagonal details of its places of 2x2 pixels,
    where photos have next to nothing of their own. What is added starts at zero, so that training begins with the GAN.
    As an autoencoder its latents are images averaged down to the small size, without variance. It is not
    conditioned on the noise level, which it has to see in the small image. Raises ValueError if the sizes do not fit.
    """

    def __init__(
        self,
        generator: SteerableGenerator,
        channels: int,
        image_size: int,
        low_resolution: int = 16,
        encoder_widths: Sequence[int] = (96, 128, 256),
        latent_limit: Above | None = None,
    ) -> None:
        super().__init__()
        at_least_one(low_resolution=low_resolution, encoder_widths=min(encoder_widths, default=0))
        if low_resolution != 4 * 2 ** (len(encoder_widths) - 1) or len(encoder_widths) > len(generator.widths):
            raise ValueError(
                f"encoder_widths: {len(encoder_widths)} halve {low_resolution} pixels to something else than 4, or are "
                f"more than the generator's {len(generator.widths)} widths"
            )
        if generator.z_dim > channels * (low_resolution // 2) ** 2:
            raise ValueError(
                f"low_resolution: {low_resolution} pixels have too few details for z_dim={generator.z_dim}"
            )
        self.noise_shape, self.image_size = (channels, low_resolution, low_resolution), image_size
        self.generator, self.latent_limit = generator, latent_limit
        self.first = convolution(channels, encoder_widths[0])
        self.encoder, now = nn.ModuleList(), encoder_widths[0]
        for index, wide in enumerate(encoder_widths):
            self.encoder.append(ResidualBlock(now, wide, resample="down" if index else "none"))
            now = wide
        self.to_latent = nn.Linear(16 * now, generator.z_dim)
        nn.init.zeros_(self.to_latent.weight)
        nn.init.zeros_(self.to_latent.bias)
        self.to_maps = nn.ModuleList(  # added to the generator's maps, the smallest first
            convolution(inputs, outputs, zero=True)
            for inputs, outputs in zip(reversed(encoder_widths), generator.widths, strict=False)
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The images, (batch, channels, image_size, image_size), averaged down; and a log variance of next to none."""
        low = functional.adaptive_avg_pool2d(images, self.noise_shape[-1])
        return low, torch.full_like(low, -30.0)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Small images, (batch, *noise_shape), clean or noisy, to large ones."""
        images: Tensor = self(latents, labels)
        return images

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """What `decode` does, as compilation has it."""
        maps: list[Tensor] = []
        x = self.first(latents)
        for block in self.encoder:
            x = block(x)
            maps.insert(0, x)
        added = [to(x) for to, x in zip(self.to_maps, maps, strict=True)]
        steering = self.to_latent(x.flatten(1))  # (batch, z_dim)
        if self.latent_limit is not None:
            square = steering.square().mean(dim=1, keepdim=True)  # at first 0, where a root has no gradient
            steering = steering * self.latent_limit / square.clamp(min=self.latent_limit**2).sqrt()
        latent = normalised(self.details(latents) + steering)
        return self.generator.synthesis(latent, labels, added)

    def details(self, images: Tensor) -> Tensor:
        """The noise in small images as a latent, (batch, z_dim)."""
        (a, b), (c, d) = ([images[..., row::2, column::2] for column in (0, 1)] for row in (0, 1))
        return normalised((a - b - c + d).flatten(1)[:, : self.generator.z_dim])

    def normalise(self, latents: Tensor) -> Tensor:
        return latents

    def denormalise(self, latents: Tensor) -> Tensor:
        return latents
