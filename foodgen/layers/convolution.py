"""Convolutions and normalisations with the initial values that generators want."""

from torch import nn


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1, zero: bool = False) -> nn.Conv2d:
    """A convolution that keeps the image's size at stride 1; `zero` starts it as the zero map."""
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2)
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def group_norm(channels: int, groups: int = 32, smallest: int = 4) -> nn.GroupNorm:
    """Group normalisation with up to `groups` groups, as many as divide the channels.

    A group has at least `smallest` channels: one of a single channel would wipe out whatever a
    condition adds to that channel.
    """
    groups = max(1, min(groups, channels // smallest))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-6)
