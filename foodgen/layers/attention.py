"""Self-attention over the pixels of a feature map."""

from torch import Tensor, nn
from torch.nn import functional

from foodgen.layers.convolution import convolution, group_norm


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
        seen = functional.scaled_dot_product_attention(query, key, value)
        seen = seen.transpose(-1, -2).reshape(batch, channels, height, width)
        return x + self.out(seen)
