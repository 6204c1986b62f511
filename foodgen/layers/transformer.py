"""Transformer blocks over image tokens: adaptive norms that start at zero, rotary positions, normalised queries."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.layers.attention import dot_product_attention


class RotaryPositions(nn.Module):
    """Turns pairs of features by angles that grow with row and column (Su 2021; axial for images, Heo 2024).

    side    of the square of tokens
    width   of a head; a multiple of 4: half of its pairs tell rows, half columns
    longest period of the slowest pair is 2 pi times this, in tokens
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, side: int, width: int, longest: float = 100.0) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"heads: {width} channels a head are not a multiple of 4")
        frequencies = longest ** -(torch.arange(width // 4) / (width // 4))
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        places = torch.stack([row.flatten(), column.flatten()], dim=1)[:, :, None]  # (tokens, 2, 1)
        angles = (places * frequencies).flatten(1)  # (tokens, width / 2)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, heads, tokens, width)."""
        cosine, sine = self.cosine.to(x.dtype), self.sine.to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)


class RMSNorm(nn.RMSNorm):
    """torch's in the precision of its input, whatever its weights are stored in: else it is not one operation."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class TokenAttention(nn.Module):
    """Self-attention over (batch, tokens, width), its queries and keys normalised (Dehghani 2023)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: {heads} do not divide {width} channels")
        self.heads = heads
        self.to_query_key_value = nn.Linear(width, 3 * width)
        self.norm_query, self.norm_key = RMSNorm(width // heads, eps=1e-6), RMSNorm(width // heads, eps=1e-6)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, positions: RotaryPositions) -> Tensor:
        batch, tokens, width = x.shape
        mixed = self.to_query_key_value(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)  # (batch, heads, tokens, width of a head)
        query, key = positions(self.norm_query(query)), positions(self.norm_key(key))
        seen = dot_product_attention(query, key, value)
        return self.out(seen.transpose(1, 2).reshape(batch, tokens, width))


class TransformerBlock(nn.Module):
    """Attention and a two-layer network, each around a norm that the condition scales, shifts and gates (DiT).

    width      of a token
    heads      of the attention
    condition  width of the condition, (batch, condition), from which the block makes its six modulations; 0 if
               the network makes them once for all blocks, (batch, 6 * width), and each adds its own (Chen 2023)
    growth     width of the inner layer as a multiple

    Starts as the identity.
    """

    own: nn.Parameter

    def __init__(self, width: int, heads: int, condition: int, growth: int = 4) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = TokenAttention(width, heads)
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.inner = nn.Sequential(nn.Linear(width, growth * width), nn.GELU(), nn.Linear(growth * width, width))
        self.modulation = Modulation(width, condition, 6) if condition else None
        self.register_parameter("own", None if condition else nn.Parameter(torch.zeros(6 * width)))

    def forward(self, x: Tensor, condition: Tensor, positions: RotaryPositions) -> Tensor:
        """x: (batch, tokens, width); condition: (batch, condition), or all blocks' modulations."""
        whole = self.modulation(condition) if self.modulation is not None else condition + self.own
        shift, scale, gate, shift_inner, scale_inner, gate_inner = whole[:, None].chunk(6, dim=-1)
        attended = self.attention(torch.addcmul(shift, self.norm_in(x), 1 + scale), positions)
        x = torch.addcmul(x, gate, attended)
        inner = self.inner(torch.addcmul(shift_inner, self.norm_out(x), 1 + scale_inner))
        return torch.addcmul(x, gate_inner, inner)


class Modulation(nn.Module):
    """`parts` vectors from the condition, side by side; all zero at first."""

    def __init__(self, width: int, condition: int, parts: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Tensor) -> Tensor:
        return self.linear(functional.silu(condition))  # (batch, parts * width)
