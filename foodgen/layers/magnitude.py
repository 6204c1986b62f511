"""Layers that keep the size of what passes through them (Karras 2023, "EDM2", configuration G)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def normalised(x: Tensor, dims: tuple[int, ...], eps: float = 1e-4) -> Tensor:
    """x at unit root mean square over `dims` (equation 64)."""
    size = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    return x / (eps + size * math.sqrt(size.numel() / x.numel())).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """SiLU over its size for standard normal inputs (equation 81)."""
    return functional.silu(x) / 0.596


def mixed(a: Tensor, b: Tensor, share: float) -> Tensor:
    """a and b, uncorrelated and of unit size, to their mix of unit size, b's weight being `share` (equation 88)."""
    return a.lerp(b, share) / math.sqrt((1 - share) ** 2 + share**2)


def joined(a: Tensor, b: Tensor, share: float = 0.5) -> Tensor:
    """a and b side by side along the channels, with equal say whatever their widths (equation 103)."""
    wide_a, wide_b = a.shape[1], b.shape[1]
    scale = math.sqrt((wide_a + wide_b) / ((1 - share) ** 2 + share**2))
    return torch.cat([a * (scale * (1 - share) / math.sqrt(wide_a)), b * (scale * share / math.sqrt(wide_b))], dim=1)


class Weighted(nn.Module):
    """A linear map or, with a size, a convolution without bias, each output's weights of unit size (equation 66).

    inputs, outputs  channels
    size             of the kernel; 0 for a linear layer on vectors

    Training calls `settle` before every pass, so that a step's size relative to the stored weights never fades
    ("forced weight normalisation"); not within the pass, which may be compiled.
    """

    def __init__(self, inputs: int, outputs: int, size: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *([size, size] if size else [])))

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the stored weights to unit size."""
        self.weight.copy_(normalised(self.weight, tuple(range(1, self.weight.ndim))))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        dims = tuple(range(1, self.weight.ndim))
        weight = normalised(self.weight, dims) * (gain / math.sqrt(self.weight[0].numel()))
        weight = weight.to(x.dtype)
        if weight.ndim == 2:
            return x @ weight.t()
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


class Waves(nn.Module):
    """Cosines of a number at random frequencies and phases, of unit size (equation 75)."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, outputs: int, bandwidth: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * bandwidth * torch.randn(outputs))
        self.register_buffer("phases", 2 * math.pi * torch.rand(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch,) to (batch, outputs)."""
        return (x.float()[:, None] * self.frequencies + self.phases).cos() * math.sqrt(2)
