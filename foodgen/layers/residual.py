"""Residual blocks that listen to a condition."""

from torch import Tensor, nn
from torch.nn import functional

from foodgen.layers.convolution import convolution, group_norm


class ResidualBlock(nn.Module):
    """Two normalised convolutions around a shift by the condition; starts as its shortcut (DDPM, appendix B).

    inputs, outputs  channels
    condition        width of the condition, (batch, condition)
    dropout          share of the features that training silences before the second convolution
    """

    def __init__(self, inputs: int, outputs: int, condition: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_in, self.norm_out = group_norm(inputs), group_norm(outputs)
        self.first = convolution(inputs, outputs)
        self.shift = nn.Linear(condition, outputs)
        self.dropout = nn.Dropout(dropout)
        self.second = convolution(outputs, outputs, zero=True)
        self.shortcut = nn.Identity() if inputs == outputs else convolution(inputs, outputs, size=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.first(functional.silu(self.norm_in(x)))
        hidden = hidden + self.shift(functional.silu(condition))[:, :, None, None]
        hidden = self.second(self.dropout(functional.silu(self.norm_out(hidden))))
        return self.shortcut(x) + hidden  # (batch, outputs, height, width)
