"""Self-attention GAN (Zhang 2018): attention and spectral norm in both players."""

import torch
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


class PixelAttention(nn.Module):
    """Every pixel looks at a quarter of them; starts as the identity (equations 1 to 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // 8)
        self.query, self.key = convolution(channels, narrow, size=1), convolution(channels, narrow, size=1)
        self.value, self.out = convolution(channels, channels // 2, size=1), convolution(channels // 2, channels, 1)
        self.strength = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).transpose(1, 2)  # (batch, pixels, narrow)
        key = functional.max_pool2d(self.key(x), 2).flatten(2).transpose(1, 2)  # (batch, pixels / 4, narrow)
        value = functional.max_pool2d(self.value(x), 2).flatten(2).transpose(1, 2)
        seen = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + self.strength * self.out(seen.transpose(1, 2).unflatten(2, x.shape[2:]))


@models.add_to_registry(name="sagan")
class SAGAN(Generator):
    """Residual blocks that double the size, attention at one of the sizes.

    channels, image_size  of the images
    classes               number of labels; 0 for an unconditional network
    width                 channels at the full size, doubled with each halving
    z_dim                 numbers an image starts from
    attention_at          size of the feature maps with attention
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        width: int = 64,
        z_dim: int = 128,
        attention_at: int = 32,
    ) -> None:
        super().__init__()
        at_least_one(width=width, z_dim=z_dim)
        self.noise_shape = (z_dim,)
        count = halvings(image_size)
        widths = [width * 2**index for index in reversed(range(count + 1))]
        self.first = nn.Linear(z_dim, widths[0] * 16)
        self.blocks = nn.ModuleList(GeneratorBlock(widths[n], widths[n + 1], classes) for n in range(count))
        self.attention = nn.ModuleList(
            PixelAttention(widths[n + 1]) if 8 * 2**n == attention_at else nn.Identity() for n in range(count)
        )
        self.norm = nn.BatchNorm2d(width)
        self.last = convolution(width, channels)
        _prepare(self, attention_at)

    def images(self, latent: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        x = self.first(latent).unflatten(1, (-1, 4, 4))  # (batch, 16 * width, 4, 4) for 64 pixels
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x, labels))
        return self.last(functional.relu(self.norm(x))).tanh()


@models.add_to_registry(name="sagan_discriminator")
class SAGANDiscriminator(nn.Module):
    """Residual blocks that halve the size, attention at one of the sizes, a projection of the label.

    channels, image_size, classes, width, attention_at  as the generator's
    """

    def __init__(self, channels: int, image_size: int, classes: int, width: int = 64, attention_at: int = 32) -> None:
        super().__init__()
        at_least_one(width=width)
        count = halvings(image_size)
        layers: list[nn.Module] = []
        now = channels
        for index in range(count + 1):
            layers.append(DiscriminatorBlock(now, width * 2**index, down=index < count, first=index == 0))
            now = width * 2**index
            if index < count and image_size // 2 ** (index + 1) == attention_at:
                layers.append(PixelAttention(now))
        self.layers = nn.Sequential(*layers)
        self.head = ProjectionHead(now, classes)
        _prepare(self, attention_at)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """images: (batch, channels, size, size) to logits, (batch,)."""
        x = functional.relu(self.layers(images))
        return self.head(x.sum(dim=(2, 3)), labels)


def _prepare(network: nn.Module, attention_at: int) -> None:
    if not any(isinstance(layer, PixelAttention) for layer in network.modules()):
        raise ValueError(f"attention_at: no feature map that a block makes has the size {attention_at}")
    orthogonal(network)
    spectral_norm(network, tables=not isinstance(network, Generator))
