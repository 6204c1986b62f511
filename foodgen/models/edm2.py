"""The U-Net of EDM2 (Karras 2023), with magnitude-preserving layers."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.bounds import Share
from foodgen.core.registry import models
from foodgen.layers.attention import dot_product_attention
from foodgen.layers.magnitude import MPConv, MPFourier, mp_cat, mp_silu, mp_sum, normalize

LARGEST = 256.0  # features beyond this are clipped, for half precision
BRANCH, LABEL = 0.3, 0.5  # weights of a residual branch, and of the label in the condition


class Block(nn.Module):
    """A residual block; on the way down it normalises its input, on the way up it takes in a skip.

    inputs, outputs  channels
    condition        width of the condition
    way              which half of the network it stands in
    heads            of its self-attention; 0 for none
    dropout          share of the features that training silences
    resample         halve or double the size first
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int,
        way: Literal["down", "up"],
        heads: int,
        dropout: float,
        resample: Literal["none", "down", "up"] = "none",
    ) -> None:
        super().__init__()
        self.way, self.heads, self.dropout, self.resample = way, heads, dropout, resample
        self.shortcut = MPConv(inputs, outputs, size=1) if inputs != outputs else None
        self.first = MPConv(outputs if way == "down" else inputs, outputs, size=3)
        self.embed, self.gain = MPConv(condition, outputs), nn.Parameter(torch.zeros(()))
        self.second = MPConv(outputs, outputs, size=3)
        self.to_query_key_value = MPConv(outputs, 3 * outputs, size=1) if heads else None
        self.out = MPConv(outputs, outputs, size=1) if heads else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        if self.resample == "down":
            x = functional.avg_pool2d(x, 2)
        if self.resample == "up":
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.way == "down":
            x = normalize(x if self.shortcut is None else self.shortcut(x), (1,))
        hidden = self.first(mp_silu(x))
        hidden = mp_silu(hidden * (self.embed(condition, self.gain) + 1)[:, :, None, None].to(hidden.dtype))
        hidden = self.second(functional.dropout(hidden, self.dropout, self.training))
        if self.way == "up" and self.shortcut is not None:
            x = self.shortcut(x)
        x = mp_sum(x, hidden, BRANCH)
        if self.heads:
            x = mp_sum(x, self._attended(x), BRANCH)
        return x.clip(-LARGEST, LARGEST)

    def _attended(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        split = self.to_query_key_value(x).reshape(batch, self.heads, channels // self.heads, 3, height * width)  # type: ignore[misc]
        query, key, value = normalize(split, (2,)).permute(3, 0, 1, 4, 2)  # (batch, heads, pixels, width of a head)
        seen = dot_product_attention(query, key, value)
        return self.out(seen.transpose(-1, -2).reshape(x.shape))  # type: ignore[misc]


@models.add_to_registry(name="edm2")
class EDM2(nn.Module):
    """Image and noise level to an image.

    channels      of the images, in and out
    image_size    height and width of the images
    classes       number of labels; 0 makes the network unconditional
    width         channels at the full size; the paper's sizes XS, S, M, L, XL: 128, 192, 256, 320, 384
    multipliers   of the width, one a size, each half the one before
    blocks        residual blocks a size on the way down; one more on the way up
    attention_at  sizes of feature maps whose blocks have self-attention
    head_width    channels of a head of the attention
    dropout       in the residual blocks

    Raises ValueError if the sizes do not halve evenly, or for numbers that make no network.
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        width: int = 192,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 3,
        attention_at: Sequence[int] = (16, 8),
        head_width: int = 64,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        halvings = len(multipliers) - 1
        if min(width, blocks, head_width, min(multipliers, default=0)) < 1 or image_size % 2**halvings:
            raise ValueError(
                f"width: {width}, blocks: {blocks}, head_width: {head_width} and multipliers: {list(multipliers)} are "
                f"at least 1 in a network, and {image_size} pixels are halved evenly {halvings} times"
            )
        condition = width * max(multipliers)
        self.classes = classes
        self.fourier, self.time = MPFourier(width), MPConv(width, condition)
        self.label = MPConv(classes, condition) if classes else None

        def block(inputs: int, outputs: int, way: Literal["down", "up"], size: int) -> Block:
            heads = max(1, outputs // head_width) if size in attention_at else 0
            return Block(inputs, outputs, condition, way, heads, dropout)

        now, size = width * multipliers[0], image_size
        self.first = MPConv(channels + 1, now, size=3)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips = [now]
        for index, multiplier in enumerate(multipliers):
            if index > 0:
                self.down.append(Block(now, now, condition, "down", 0, dropout, resample="down"))
                skips.append(now)
                size //= 2
            for _ in range(blocks):
                self.down.append(block(now, width * multiplier, "down", size))
                now = width * multiplier
                skips.append(now)
        heads = max(1, now // head_width)
        self.middle_blocks = nn.ModuleList(
            [Block(now, now, condition, "up", heads, dropout), Block(now, now, condition, "up", 0, dropout)]
        )
        for index, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(block(now + skips.pop(), width * multiplier, "up", size))
                now = width * multiplier
            if index > 0:
                self.up.append(Block(now, now, condition, "up", 0, dropout, resample="up"))
                size *= 2
        self.last, self.gain = MPConv(now, channels, size=3), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (batch, channels, size, size); time: noise level, (batch,); labels: (batch,) or None."""
        condition = self.time(self.fourier(time / 1000))
        if self.label is not None:
            if labels is None:
                labels = torch.full((len(x),), self.classes, device=x.device)
            one = labels  # of a mixture, (batch, classes)
            if not labels.is_floating_point():
                one = functional.one_hot(labels.clamp(max=self.classes), self.classes + 1)[:, :-1]  # null label: zeros
            condition = mp_sum(condition, self.label(one.to(condition.dtype) * self.classes**0.5), LABEL)
        condition = mp_silu(condition)  # (batch, condition)
        x = self.first(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips = [x]
        for block in self.down:
            x = block(x, condition)
            skips.append(x)
        for block in self.middle_blocks:
            x = block(x, condition)
        for block in self.up:
            resamples = block.resample == "up"
            x = block(x if resamples else mp_cat(x, skips.pop()), condition)
        return self.last(x, self.gain)  # (batch, channels, size, size)
