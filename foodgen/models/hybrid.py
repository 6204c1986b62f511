"""Our own network: convolutions where pixels are many, a transformer where they are few, long skips between."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.bounds import Positive, Share
from foodgen.core.networks import HasFeatures
from foodgen.core.registry import models
from foodgen.layers.conditioning import LabelEmbedding, TimeEmbedding
from foodgen.layers.convolution import convolution, group_norm
from foodgen.layers.residual import ResidualBlock
from foodgen.layers.transformer import Modulation, RotaryPositions, TransformerBlock


class Blocks(nn.ModuleList):
    """Residual blocks of one size, one after another."""

    def __init__(self, inputs: int, outputs: int, condition: int, dropout: float, count: int) -> None:
        super().__init__(
            ResidualBlock(inputs if index == 0 else outputs, outputs, condition, dropout, adaptive=True)
            for index in range(count)
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self:
            x = block(x, condition)
        return x


@models.add_to_registry(name="hybrid")
class Hybrid(HasFeatures):
    """Image and noise level to an image. At 64 pixels: residual blocks at 64 and 32, tokens at 16x16.

    Convolutions model neighbouring pixels, which takes few images to learn; attention models the layout, which costs
    little at a quarter of the size. Skips join both halves of the convolutions, as in a U-Net, and of the
    transformer, as in U-ViT (Bao 2022).

    channels             of the images
    image_size           height and width of the images
    classes              number of labels; 0 makes the network unconditional
    widths               channels of the convolutions, one a size, each half the one before
    blocks               residual blocks a size, on the way down and on the way up
    width, depth, heads  of the transformer; an even depth, so that its halves match
    dropout              in the residual blocks
    outputs              channels out; twice the images' for a learned variance; as many as they have if not given

    Raises ValueError if the sizes do not halve evenly, or for numbers that make no network.
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        widths: Sequence[int] = (64, 128),
        blocks: int = 2,
        width: int = 448,
        depth: int = 10,
        heads: int = 7,
        dropout: Share = 0.0,
        outputs: Positive | None = None,
    ) -> None:
        super().__init__()
        if not widths or min(*widths, width, heads, depth, blocks) < 1 or depth % 2 or width % heads:
            raise ValueError(
                f"widths: {list(widths)}, width: {width}, blocks: {blocks}, an even depth: {depth} and heads: {heads} "
                f"that divide the width make a network"
            )
        if image_size % 2 ** len(widths):
            raise ValueError(f"widths: {image_size} pixels cannot be halved {len(widths)} times")
        self.feature_channels = width
        condition = width
        self.time, self.label = TimeEmbedding(256, condition), LabelEmbedding(classes, condition)
        nn.init.normal_(self.label.table.weight, std=0.02)
        self.first = convolution(channels, widths[0])
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for wide, after in zip(widths, [*widths[1:], width], strict=True):
            self.down.append(Blocks(wide, wide, condition, dropout, blocks))
            self.down.append(nn.Conv2d(wide, after, 2, stride=2))
        self.positions = RotaryPositions(image_size // 2 ** len(widths), width // heads)
        self.modulation = Modulation(width, condition, 6)
        self.trunk = nn.ModuleList(TransformerBlock(width, heads, condition=0) for _ in range(depth))
        self.joins = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth // 2))
        now = width
        for wide in reversed(widths):
            self.up.append(convolution(now, 4 * wide, size=1))
            self.up.append(Blocks(2 * wide, wide, condition, dropout, blocks))
            now = wide
        self.norm = group_norm(now)
        self.last = convolution(now, outputs or channels, zero=True)

    def forward(
        self, x: Tensor, time: Tensor, labels: Tensor | None = None, return_features: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x: (batch, channels, size, size); time: noise level, (batch,); labels: (batch,) or None.

        Features are those after the transformer's first half.
        """
        condition = self.time(time) + self.label(labels, len(x))  # (batch, width)
        x, skips = self.first(x), []
        for blocks, shrink in zip(self.down[::2], self.down[1::2], strict=True):
            x = blocks(x, condition)
            skips.append(x)
            x = shrink(x)
        x, features = self._transformer(x, self.modulation(condition))
        for grow, blocks in zip(self.up[::2], self.up[1::2], strict=True):
            x = blocks(torch.cat([functional.pixel_shuffle(grow(x), 2), skips.pop()], dim=1), condition)
        x = self.last(functional.silu(self.norm(x)))  # (batch, outputs, size, size)
        return (x, features) if return_features else x

    def _transformer(self, x: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor]:
        side, half = x.shape[-1], len(self.joins)
        tokens, skips = x.flatten(2).transpose(1, 2), []  # (batch, tokens, width)
        for block in self.trunk[:half]:
            tokens = block(tokens, modulation, self.positions)
            skips.append(tokens)
        features = tokens.transpose(1, 2).unflatten(2, (side, side))
        for join, block in zip(self.joins, self.trunk[half:], strict=True):
            tokens = block(join(torch.cat([tokens, skips.pop()], dim=-1)), modulation, self.positions)
        return tokens.transpose(1, 2).unflatten(2, (side, side)).contiguous(), features
