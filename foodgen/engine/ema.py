"""Exponential moving averages of a model's weights, which sample better than the last weights do."""

import copy

import torch
from torch import Tensor, nn

from foodgen.core.registry import averages


@averages.add_to_registry(name="exponential")
class ExponentialAverage:
    """A copy of the model, in eval mode, whose weights follow the model's.

    decay   share of the old average that a step keeps, lower at first: (1 + step) / (10 + step)

    Batch norm's running statistics are averaged with the weights that they belong to; all other buffers
    (spectral norm's vectors, running means) are copied.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: {decay} is not in [0, 1)")
        self.source, self.decay = model, decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.averaged, self.followed = _weights_and_statistics(self.model), _weights_and_statistics(model)
        chosen = {id(kept) for kept in self.averaged}
        pairs = zip(self.model.buffers(), model.buffers(), strict=True)
        self.copied = [(kept, new) for kept, new in pairs if id(kept) not in chosen]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model, after training step `step`."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averaged, self.followed, share)
        for kept, new in self.copied:
            kept.copy_(new)


def _weights_and_statistics(model: nn.Module) -> list[Tensor]:
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    statistics = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var) if tensor is not None]
    return [*model.parameters(), *statistics]
