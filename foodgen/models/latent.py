"""The U-Net of latent diffusion (Rombach 2021), which listens to its condition by cross-attention."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.bounds import Positive, Share
from foodgen.core.registry import models
from foodgen.layers.attention import dot_product_attention
from foodgen.layers.conditioning import LabelEmbedding, TimeEmbedding
from foodgen.layers.convolution import convolution, group_norm
from foodgen.layers.resample import Downsample, Upsample
from foodgen.layers.residual import ResidualBlock


class CrossAttention(nn.Module):
    """Tokens (batch, tokens, width) ask a context (batch, length, context width); themselves, where there is none."""

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key_value = nn.Linear(context or width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        query = self.to_query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        both = self.to_key_value(x if context is None else context).unflatten(2, (2, self.heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4)  # (batch, heads, length, width of a head)
        return self.out(dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Gated(nn.Module):
    """Two linear layers, the inner values gated by GELU (Shazeer 2020)."""

    def __init__(self, width: int, growth: int = 4) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(width, 2 * growth * width), nn.Linear(growth * width, width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.inner(x).chunk(2, dim=-1)
        return self.out(value * functional.gelu(gate))


class SpatialTransformer(nn.Module):
    """Self-attention, cross-attention to the context and a gated layer over a feature map; starts as the identity."""

    def __init__(self, channels: int, heads: int, context: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads: {heads} do not divide {channels} channels")
        self.norm = group_norm(channels)
        self.first = convolution(channels, channels, size=1)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.attention = CrossAttention(channels, heads)
        self.cross_attention = CrossAttention(channels, heads, context)
        self.inner = Gated(channels)
        self.last = convolution(channels, channels, size=1, zero=True)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        tokens = self.first(self.norm(x)).flatten(2).transpose(1, 2)  # (batch, pixels, channels)
        tokens = tokens + self.attention(self.norms[0](tokens))
        tokens = tokens + self.cross_attention(self.norms[1](tokens), context)
        tokens = tokens + self.inner(self.norms[2](tokens))
        return x + self.last(tokens.transpose(1, 2).reshape(x.shape))


class Stage(nn.Module):
    """A residual block that the noise level shifts, and a spatial transformer at the sizes that have one."""

    def __init__(self, inputs: int, outputs: int, time: int, dropout: float, heads: int, context: int) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, time, dropout)
        self.transformer = SpatialTransformer(outputs, heads, context) if heads else None

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        x = self.block(x, time)
        return x if self.transformer is None else self.transformer(x, context)


@models.add_to_registry(name="latent_unet")
class LatentUNet(nn.Module):
    """Latent and noise level to a latent; the class is one token of the context.

    channels      of the latents
    image_size    height and width of the latents
    classes       number of labels; 0 makes the network unconditional
    width         channels at the full size
    multipliers   of the width, one a size, each half the one before
    blocks        residual blocks a size on the way down; one more on the way up
    attention_at  sizes of feature maps whose blocks have a spatial transformer
    heads         of the attention
    context       width of the class token; 512 in the paper
    dropout       in the residual blocks
    outputs       channels out; twice the latents' for a learned variance; as many as they have if not given

    Raises ValueError if the sizes do not halve evenly, or for numbers that make no network.
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 3),
        blocks: int = 2,
        attention_at: Sequence[int] = (16, 8, 4),
        heads: int = 8,
        context: int = 512,
        dropout: Share = 0.0,
        outputs: Positive | None = None,
    ) -> None:
        super().__init__()
        halvings = len(multipliers) - 1
        if width < 2 or width % 2 or min(blocks, heads, context, min(multipliers, default=0)) < 1:
            raise ValueError(
                f"width: {width} is even, blocks: {blocks}, heads: {heads}, context: {context} and multipliers: "
                f"{list(multipliers)} are at least 1 in a network"
            )
        if image_size % 2**halvings:
            raise ValueError(f"multipliers: {image_size} pixels cannot be halved {halvings} times")
        time = 4 * width
        self.time, self.label = TimeEmbedding(width, time), LabelEmbedding(classes, context)

        def stage(inputs: int, outputs: int, size: int) -> Stage:
            return Stage(inputs, outputs, time, dropout, heads if size in attention_at else 0, context)

        now, size = width, image_size
        self.first = convolution(channels, width)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips = [width]
        for index, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(stage(now, width * multiplier, size))
                now = width * multiplier
                skips.append(now)
            if index < halvings:
                self.down.append(Downsample(now))
                skips.append(now)
                size //= 2
        self.middle_stages = nn.ModuleList(
            [Stage(now, now, time, dropout, heads, context), Stage(now, now, time, dropout, 0, context)]
        )
        for index, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(stage(now + skips.pop(), width * multiplier, size))
                now = width * multiplier
            if index > 0:
                self.up.append(Upsample(now))
                size *= 2
        self.norm = group_norm(now)
        self.last = convolution(now, outputs or channels, zero=True)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (batch, channels, size, size); time: noise level, (batch,); labels: (batch,) or None."""
        embedding, context = self.time(time), self.label(labels, len(x))[:, None]  # (batch, 1, context)
        x = self.first(x)
        skips = [x]
        for layer in self.down:
            x = layer(x) if isinstance(layer, Downsample) else layer(x, embedding, context)
            skips.append(x)
        for layer in self.middle_stages:
            x = layer(x, embedding, context)
        for layer in self.up:
            x = (
                layer(x)
                if isinstance(layer, Upsample)
                else layer(torch.cat([x, skips.pop()], dim=1), embedding, context)
            )
        return self.last(functional.silu(self.norm(x)))  # (batch, outputs, size, size)
