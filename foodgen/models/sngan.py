"""Spectrally normalised GAN (Miyato 2018) with the projection discriminator (Miyato, Koyama 2018)."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.registry import models
from foodgen.core.types import Generator
from foodgen.layers.adversarial import (
    DiscriminatorBlock,
    GeneratorBlock,
    ProjectionHead,
    at_least_one,
    halvings,
    orthogonal,
    spectral_norm,
)
from foodgen.layers.convolution import convolution


@models.add_to_registry(name="sngan")
class SNGAN(Generator):
    """Residual blocks that double the size, with class-conditional batch norm.

    channels, image_size  of the images
    classes               number of labels; 0 for an unconditional network
    width                 channels at the full size, doubled with each halving
    z_dim                 numbers an image starts from
    """

    def __init__(self, channels: int, image_size: int, classes: int, width: int = 64, z_dim: int = 128) -> None:
        super().__init__()
        at_least_one(width=width, z_dim=z_dim)
        self.noise_shape = (z_dim,)
        widths = [width * 2**index for index in reversed(range(halvings(image_size) + 1))]
        self.first = nn.Linear(z_dim, widths[0] * 16)
        pairs = pairwise(widths)
        self.blocks = nn.ModuleList(GeneratorBlock(inputs, outputs, classes) for inputs, outputs in pairs)
        self.norm = nn.BatchNorm2d(width)
        self.last = convolution(width, channels)
        orthogonal(self)

    def images(self, latent: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        x = self.first(latent).unflatten(1, (-1, 4, 4))  # (batch, 16 * width, 4, 4) for 64 pixels
        for block in self.blocks:
            x = block(x, labels)
        return self.last(functional.relu(self.norm(x))).tanh()


@models.add_to_registry(name="sngan_discriminator")
class SNGANDiscriminator(nn.Module):
    """Residual blocks that halve the size, all weights spectrally normalised, and a projection of the label.

    channels, image_size, classes, width  as the generator's
    """

    def __init__(self, channels: int, image_size: int, classes: int, width: int = 64) -> None:
        super().__init__()
        at_least_one(width=width)
        count = halvings(image_size)
        widths = [channels, *(width * 2**index for index in range(count)), width * 2**count]
        pairs = list(pairwise(widths))
        self.blocks = nn.Sequential(
            *(
                DiscriminatorBlock(inputs, outputs, down=index < count, first=index == 0)
                for index, (inputs, outputs) in enumerate(pairs)
            )
        )
        self.head = ProjectionHead(widths[-1], classes)
        orthogonal(self)
        spectral_norm(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """images: (batch, channels, size, size) to logits, (batch,)."""
        x = functional.relu(self.blocks(images))  # (batch, 16 * width, 4, 4) for 64 pixels
        return self.head(x.sum(dim=(2, 3)), labels)
