"""Halving and doubling images through a binomial filter, so that nothing aliases (StyleGAN2, appendix B)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Smooth(nn.Module):
    """The filter 1 3 3 1 along both axes, its sum one. All three take (batch, channels, height, width)."""

    taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("taps", torch.outer(line, line) / line.sum() ** 2, persistent=False)

    def _kernel(self, x: Tensor) -> Tensor:
        return self.taps.to(x.dtype).expand(x.shape[1], 1, 4, 4)

    def forward(self, x: Tensor, padding: int) -> Tensor:
        """Blurred; the size grows by 2 * padding - 3."""
        return functional.conv2d(x, self._kernel(x), padding=padding, groups=x.shape[1])

    def down(self, x: Tensor) -> Tensor:
        """Half the size."""
        return functional.conv2d(x, self._kernel(x), stride=2, padding=1, groups=x.shape[1])

    def up(self, x: Tensor) -> Tensor:
        """Twice the size: linear interpolation between pixels, fading out at the borders."""
        return functional.conv_transpose2d(x, 4 * self._kernel(x), stride=2, padding=1, groups=x.shape[1])
