"""Residual blocks that listen to a condition."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from foodgen.layers.convolution import convolution, group_norm

Resample = Literal["none", "down", "up"]


class ResidualBlock(nn.Module):
    """Two normalised convolutions around the condition; starts as its shortcut (DDPM, appendix B).

    inputs, outputs  channels
    condition        width of the condition, (batch, condition); 0 for a block without one
    dropout          share of the features that training silences before the second convolution
    adaptive         the condition scales and shifts the second norm (ADM, section 3), rather than
                     being added before it
    resample         halve or double the size before the first convolution (BigGAN's blocks)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int = 0,
        dropout: float = 0.0,
        adaptive: bool = False,
        resample: Resample = "none",
    ) -> None:
        super().__init__()
        self.adaptive, self.resample = adaptive, resample
        self.norm_in, self.norm_out = group_norm(inputs), group_norm(outputs)
        self.first = convolution(inputs, outputs)
        self.shift = nn.Linear(condition, outputs * (1 + adaptive)) if condition else None
        self.dropout = nn.Dropout(dropout)
        self.second = convolution(outputs, outputs, zero=True)
        self.shortcut = nn.Identity() if inputs == outputs else convolution(inputs, outputs, size=1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        hidden = self._resampled(functional.silu(self.norm_in(x)))
        hidden = self.first(hidden)
        embedding = None
        if self.shift is not None and condition is not None:
            embedding = self.shift(functional.silu(condition))[:, :, None, None]
        if embedding is not None and self.adaptive:
            scale, shift = embedding.chunk(2, dim=1)
            hidden = self.norm_out(hidden) * (1 + scale) + shift
        else:
            hidden = self.norm_out(hidden if embedding is None else hidden + embedding)
        hidden = self.second(self.dropout(functional.silu(hidden)))
        return self.shortcut(self._resampled(x)) + hidden  # (batch, outputs, height, width), resampled

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return functional.avg_pool2d(x, 2)
        if self.resample == "up":
            return functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return x
