"""Magnitude-preserving layers (Karras 2023, "EDM2", configuration G)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.networks import NormalizedWeights


def normalize(x: Tensor, dims: tuple[int, ...], eps: float = 1e-4) -> Tensor:
    """x at unit root mean square over `dims` (equation 64)."""
    size = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    return x / (eps + size * math.sqrt(size.numel() / x.numel())).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """SiLU at unit magnitude for standard normal inputs (equation 81)."""
    return functional.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Weighted sum of a and b at unit magnitude, for uncorrelated a and b of unit magnitude (equation 88)."""
    return a.lerp(b, t) / math.sqrt((1 - t) ** 2 + t**2)


def mp_cat(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    """Concatenation along the channels at unit magnitude, in which both contribute alike (equation 103)."""
    wide_a, wide_b = a.shape[1], b.shape[1]
    scale = math.sqrt((wide_a + wide_b) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (scale * (1 - t) / math.sqrt(wide_a)), b * (scale * t / math.sqrt(wide_b))], dim=1)


class MPConv(NormalizedWeights):
    """A linear map or, with a size, a convolution, without bias, with normalised weights (equation 66).

    inputs, outputs  channels
    size             of the kernel; 0 for a linear layer on vectors

    Every optimizer step normalises the stored weights first ("forced weight normalization"), so that the learning
    rate relative to them never decays.
    """

    def __init__(self, inputs: int, outputs: int, size: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *([size, size] if size else [])))

    @torch.no_grad()
    def normalize_weights(self) -> None:
        """Scale the stored weights to unit magnitude."""
        self.weight.copy_(normalize(self.weight, tuple(range(1, self.weight.ndim))))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        dims = tuple(range(1, self.weight.ndim))
        weight = normalize(self.weight, dims) * (gain / math.sqrt(self.weight[0].numel()))
        weight = weight.to(x.dtype)
        if weight.ndim == 2:
            return x @ weight.t()
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


class MPFourier(nn.Module):
    """Random Fourier features of a number at unit magnitude (equation 75)."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, outputs: int, bandwidth: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * bandwidth * torch.randn(outputs))
        self.register_buffer("phases", 2 * math.pi * torch.rand(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch,) to (batch, outputs)."""
        return (x.float()[:, None] * self.frequencies + self.phases).cos() * math.sqrt(2)
