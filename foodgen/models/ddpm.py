"""The U-Net of denoising diffusion probabilistic models (Ho, Jain, Abbeel 2020), with class labels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.bounds import Positive, Share
from foodgen.core.registry import models
from foodgen.layers.attention import SelfAttention
from foodgen.layers.conditioning import LabelEmbedding, TimeEmbedding
from foodgen.layers.convolution import convolution, group_norm
from foodgen.layers.resample import Downsample, Upsample
from foodgen.layers.residual import ResidualBlock


class Level(nn.Module):
    """A residual block, followed by self-attention at the sizes that have it."""

    def __init__(
        self, inputs: int, outputs: int, condition: int, dropout: float, heads: int, adaptive: bool = False
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, condition, dropout, adaptive)
        self.attention = SelfAttention(outputs, heads) if heads else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.attention(self.block(x, condition))


@models.add_to_registry(name="ddpm")
class UNet(nn.Module):
    """Image and noise level to an image: down, through the middle, and up with skip connections.

    channels      of the images, in and out
    image_size    height and width of the images
    classes       number of labels; 0 makes the network unconditional
    width         channels at the full size
    multipliers   of the width, one a size, each half the one before; DDPM's CIFAR-10: 1, 2, 2, 2
    blocks        residual blocks a size on the way down; one more on the way up
    attention_at  sizes of feature maps whose blocks have self-attention
    heads         of the attention
    dropout       in the residual blocks
    patch         pixels a side that are folded into channels before the first level; 1 in the paper
    adaptive      the condition scales and shifts the second norm of a block, as in IDDPM (Nichol 2021)
    outputs       channels out; twice the images' for a learned variance; as many as they have if not given

    Raises ValueError if the sizes do not halve evenly, or for numbers that make no network.
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention_at: Sequence[int] = (16,),
        heads: int = 1,
        dropout: Share = 0.1,
        patch: int = 1,
        adaptive: bool = False,
        outputs: Positive | None = None,
    ) -> None:
        super().__init__()
        if width < 2 or width % 2 or blocks < 1 or heads < 1 or min(multipliers, default=0) < 1:
            raise ValueError(
                f"width: {width} is even, blocks: {blocks}, heads: {heads} and multipliers: {list(multipliers)} are at "
                f"least 1 in a network"
            )
        halvings = len(multipliers) - 1
        if patch < 1 or image_size % (patch * 2**halvings):
            raise ValueError(
                f"multipliers: {image_size} pixels in patches of {patch} cannot be halved {halvings} times"
            )
        condition = 4 * width
        self.patch = patch
        self.time = TimeEmbedding(width, condition)
        self.label = LabelEmbedding(classes, condition)

        def level(inputs: int, outputs: int, size: int) -> Level:
            return Level(inputs, outputs, condition, dropout, heads if size in attention_at else 0, adaptive)

        self.first = convolution(channels * patch**2, width)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, now, size = [width], width, image_size // patch
        for index, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(level(now, width * multiplier, size))
                now = width * multiplier
                skips.append(now)
            if index < halvings:
                self.down.append(Downsample(now))
                skips.append(now)
                size //= 2
        self.middle = nn.ModuleList(
            [Level(now, now, condition, dropout, heads, adaptive), Level(now, now, condition, dropout, 0, adaptive)]
        )
        for index, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(level(now + skips.pop(), width * multiplier, size))
                now = width * multiplier
            if index > 0:
                self.up.append(Upsample(now))
                size *= 2
        self.norm = group_norm(now)
        self.last = convolution(now, (outputs or channels) * patch**2, zero=True)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (batch, channels, size, size); time: noise level, (batch,); labels: (batch,) or None."""
        condition = self.time(time) + self.label(labels, len(x))  # (batch, 4 * width)
        x = self.first(functional.pixel_unshuffle(x, self.patch))  # (batch, width, size / patch, size / patch)
        skips = [x]
        for layer in self.down:
            x = layer(x) if isinstance(layer, Downsample) else layer(x, condition)
            skips.append(x)
        for layer in self.middle:
            x = layer(x, condition)
        for layer in self.up:
            x = layer(x) if isinstance(layer, Upsample) else layer(torch.cat([x, skips.pop()], dim=1), condition)
        x = self.last(functional.silu(self.norm(x)))
        return functional.pixel_shuffle(x, self.patch)  # (batch, outputs, size, size)
