"""The U-Net of "Diffusion models beat GANs" (Dhariwal, Nichol 2021), called ADM, and its noisy classifier."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.bounds import Positive, Share
from foodgen.core.registry import models
from foodgen.layers.attention import SelfAttention
from foodgen.layers.conditioning import LabelEmbedding, TimeEmbedding
from foodgen.layers.convolution import convolution, group_norm
from foodgen.layers.residual import Resample, ResidualBlock


class Stage(nn.Module):
    """A residual block with adaptive group norm, followed by self-attention where it is asked for."""

    def __init__(
        self, inputs: int, outputs: int, condition: int, dropout: float, heads: int = 0, resample: Resample = "none"
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, condition, dropout, adaptive=True, resample=resample)
        self.attention = SelfAttention(outputs, heads) if heads else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.attention(self.block(x, condition))


class Encoder(nn.Module):
    """The way down and the middle, which the U-Net and the classifier have alike."""

    def __init__(
        self,
        channels: int,
        image_size: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_at: Sequence[int],
        head_width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        halvings = len(multipliers) - 1
        if width < 2 or width % 2 or blocks < 1 or head_width < 1 or min(multipliers, default=0) < 1:
            raise ValueError(
                f"width: {width} is even, blocks: {blocks}, head_width: {head_width} and multipliers: "
                f"{list(multipliers)} are at least 1 in a network"
            )
        if image_size % 2**halvings:
            raise ValueError(f"multipliers: {image_size} pixels cannot be halved {halvings} times")
        self.head_width, self.attention_at = head_width, attention_at
        condition, now, size = 4 * width, width * multipliers[0], image_size
        self.first = convolution(channels, now)
        self.down = nn.ModuleList()
        self.skips = [now]  # widths of the feature maps on the way down
        for index, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                outs = width * multiplier
                self.down.append(Stage(now, outs, condition, dropout, self.heads(size, outs)))
                now = outs
                self.skips.append(now)
            if index < halvings:
                self.down.append(Stage(now, now, condition, dropout, resample="down"))
                self.skips.append(now)
                size //= 2
        middle_heads = max(1, now // head_width)
        self.middle = nn.ModuleList(
            [Stage(now, now, condition, dropout, middle_heads), Stage(now, now, condition, dropout)]
        )
        self.width, self.size = now, size

    def heads(self, size: int, channels: int) -> int:
        """Heads of the attention at this size of feature maps; 0 for none."""
        return max(1, channels // self.head_width) if size in self.attention_at else 0

    def forward(self, x: Tensor, condition: Tensor) -> list[Tensor]:
        """Every feature map on the way down, and the middle's, last."""
        maps = [self.first(x)]
        for stage in self.down:
            maps.append(stage(maps[-1], condition))
        x = maps[-1]
        for stage in self.middle:
            x = stage(x, condition)
        return [*maps, x]


@models.add_to_registry(name="adm")
class ADM(nn.Module):
    """Image and noise level to an image, with BigGAN's resampling blocks and adaptive group norm.

    channels      of the images
    image_size    height and width of the images
    classes       number of labels; 0 makes the network unconditional
    width         channels at the full size
    multipliers   of the width, one a size, each half the one before; ImageNet-64: 1, 2, 3, 4
    blocks        residual blocks a size on the way down; one more on the way up
    attention_at  sizes of feature maps whose blocks have self-attention
    head_width    channels of a head of the attention
    dropout       in the residual blocks
    outputs       channels out; twice the images' for a learned variance; as many as they have if not given

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
        attention_at: Sequence[int] = (32, 16, 8),
        head_width: int = 64,
        dropout: Share = 0.1,
        outputs: Positive | None = None,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(channels, image_size, width, multipliers, blocks, attention_at, head_width, dropout)
        condition = 4 * width
        self.time, self.label = TimeEmbedding(width, condition), LabelEmbedding(classes, condition)
        self.up = nn.ModuleList()
        now, size, skips = self.encoder.width, self.encoder.size, list(self.encoder.skips)
        for index, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                outs = width * multiplier
                self.up.append(Stage(now + skips.pop(), outs, condition, dropout, self.encoder.heads(size, outs)))
                now = outs
            if index > 0:
                self.up.append(Stage(now, now, condition, dropout, resample="up"))
                size *= 2
        self.norm = group_norm(now)
        self.last = convolution(now, outputs or channels, zero=True)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """x: (batch, channels, size, size); time: noise level, (batch,); labels: (batch,) or None."""
        condition = self.time(time) + self.label(labels, len(x))  # (batch, 4 * width)
        skips = self.encoder(x, condition)
        x = skips.pop()
        for stage in self.up:
            resamples = stage.block.resample == "up"  # type: ignore[union-attr]
            x = stage(x if resamples else torch.cat([x, skips.pop()], dim=1), condition)
        return self.last(functional.silu(self.norm(x)))  # (batch, outputs, size, size)


class AttentionPool(nn.Module):
    """A feature map to one vector: the mean of all places asks what each of them holds (CLIP, Radford 2021)."""

    def __init__(self, channels: int, places: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(places + 1, channels) / channels**0.5)
        self.to_query_key_value = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        x = x.flatten(2).transpose(1, 2)  # (batch, places, channels)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.position
        mixed = self.to_query_key_value(x).reshape(batch, -1, 3, self.heads, channels // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)  # (batch, heads, places + 1, width of a head)
        seen = functional.scaled_dot_product_attention(query[:, :, :1], key, value)
        return self.out(seen.reshape(batch, channels))  # (batch, outputs)


@models.add_to_registry(name="adm_classifier")
class ADMClassifier(nn.Module):
    """Noisy image and noise level to the classes' logits: half of the U-Net and an attention pool.

    As of `adm` are channels, image_size, classes (two at least), width, multipliers, blocks, attention_at,
    head_width and dropout; defaults are ADM's classifier for 64 pixels.
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 4,
        attention_at: Sequence[int] = (32, 16, 8),
        head_width: int = 64,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes: {classes} are too few for a classifier")
        self.encoder = Encoder(channels, image_size, width, multipliers, blocks, attention_at, head_width, dropout)
        self.time = TimeEmbedding(width, 4 * width)
        now = self.encoder.width
        self.norm = group_norm(now)
        self.pool = AttentionPool(now, self.encoder.size**2, classes, max(1, now // head_width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x: (batch, channels, size, size); time: (batch,)."""
        x = self.encoder(x, self.time(time))[-1]
        return self.pool(functional.silu(self.norm(x)))  # (batch, classes)
