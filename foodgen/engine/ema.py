"""Exponential moving averages of a model's weights, which sample better than the last weights do."""

import copy

import torch
from torch import nn

from foodgen.core.registry import averages


@averages.add_to_registry(name="exponential")
class ExponentialAverage:
    """A copy of the model, in eval mode, whose weights follow the model's.

    decay   share of the old average that a step keeps, lower at first: (1 + step) / (10 + step)

    Buffers, such as batch norm's statistics, are copied.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: {decay} is not in [0, 1)")
        self.source, self.decay = model, decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model, after training step `step`."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(self.source.parameters()), share)
        for kept, new in zip(self.model.buffers(), self.source.buffers(), strict=True):
            kept.copy_(new)
