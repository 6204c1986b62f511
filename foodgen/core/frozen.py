"""Pretrained networks that stay frozen: batch norm folded away, channels stored last."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def freeze(network: nn.Module, pairs: Sequence[tuple[str, str]]) -> nn.Module:
    """The network in eval mode, without gradients for its weights, and faster; its outputs are the same.

    pairs  names of a convolution and of the batch norm that follows it, as they stand in one module

    In eval mode batch norm is a fixed scale and shift of each channel, which the convolution before it can take over.
    """
    network.eval().requires_grad_(False)
    for module in list(network.modules()):
        for convolution, norm in pairs:
            if hasattr(module, convolution) and hasattr(module, norm):
                setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    for weight in network.parameters():
        weight.requires_grad_(False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
