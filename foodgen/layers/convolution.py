"""Convolutions and normalisations with the initial values that generators want."""

import torch
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1, zero: bool = False) -> nn.Conv2d:
    """A convolution that keeps the image's size at stride 1; `zero` starts it as the zero map."""
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2)
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class GroupNorm(nn.GroupNorm):
    """torch's, which takes up to seven times as long on a CPU where channels are stored last: there they go first."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


def group_norm(channels: int, groups: int = 32, smallest: int = 4) -> GroupNorm:
    """Group normalisation with up to `groups` groups, as many as divide the channels.

    A group has at least `smallest` channels: one of a single channel would wipe out whatever a
    condition adds to that channel.
    """
    groups = max(1, min(groups, channels // smallest))
    while channels % groups:
        groups -= 1
    return GroupNorm(groups, channels, eps=1e-6)
