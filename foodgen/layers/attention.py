"""Self-attention over the pixels of a feature map."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.layers.convolution import convolution, group_norm


def dot_product_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention, (batch, heads, tokens, width of a head).

    In bf16 training on a CPU by matrix products: the gradient of torch's fused one takes up to ten times as long there.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad:
        return ((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)).softmax(dim=-1) @ value
    return functional.scaled_dot_product_attention(query, key, value)


class SelfAttention(nn.Module):
    """Residual self-attention; starts as the identity.

    channels  of the feature map
    heads     parts of the channels that attend on their own; must divide them
    """

    def __init__(self, channels: int, heads: int = 1) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads: {heads} do not divide {channels} channels")
        self.heads = heads
        self.norm = group_norm(channels)
        self.to_query_key_value = convolution(channels, 3 * channels, size=1)
        self.out = convolution(channels, channels, size=1, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        mixed = self.to_query_key_value(self.norm(x))
        mixed = mixed.reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = mixed.transpose(-1, -2).unbind(1)  # (batch, heads, pixels, width of a head)
        seen = dot_product_attention(query, key, value)
        seen = seen.transpose(-1, -2).reshape(batch, channels, height, width)
        return x + self.out(seen)
