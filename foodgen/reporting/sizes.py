"""How large a model is, and what drawing and training cost: weights and multiply-adds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass
class Size:
    """One configuration.

    name      of the configuration
    weights   trained, of each network
    frozen    not trained, of all networks together
    drawing   multiply-adds of one image
    training  multiply-adds of one training image, backward passes included
    """

    name: str
    weights: Mapping[str, int]
    frozen: int
    drawing: float
    training: float


def _convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, *rest: Any, out_val: Any) -> int:
    """As much as the forward pass for each of the two gradients asked for; torch's own formula forgets the groups."""
    transposed, expected = rest[4], rest[7]
    return 2 * (x if transposed else gradient).numel() * weight[0].numel() * (expected[0] + expected[1])


FORMULAS = {**flop_registry, torch.ops.aten.convolution_backward: _convolution_backward}


class _Counter(TorchDispatchMode):
    """Adds up what the formulas give for each operation (FlopCounterMode, without its tree of modules, which
    trips over parameters that are expanded where no gradients are kept)."""

    operations = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = call(*args, **kwargs)
        if call._overloadpacket in FORMULAS:
            self.operations += FORMULAS[call._overloadpacket](*args, **kwargs, out_val=result)
        return result


def multiply_adds(work: Callable[[], Any]) -> int:
    """Multiply-adds of all convolutions, matrix products and attention in `work()`, by torch's formulas."""
    with sdpa_kernel(SDPBackend.MATH), _Counter() as counter:
        work()
    return counter.operations // 2


def weights(module: nn.Module, trained: bool) -> int:
    """How many numbers are trained, or are not."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad == trained)


def table(sizes: Sequence[Size], published: Mapping[str, str]) -> str:
    """A Markdown table, a row a configuration; `published` is what papers say of those named."""
    lines = [
        "| configuration | model | other networks | frozen | multiply-adds to sample an image | to train on one "
        "| published |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for size in sizes:
        others = sum(count for name, count in size.weights.items() if name != "model")
        cells = [
            size.name,
            f"{size.weights['model'] / 1e6:.2f}M",
            f"{others / 1e6:.2f}M" if others else "",
            f"{size.frozen / 1e6:.2f}M" if size.frozen else "",
            f"{size.drawing / 1e9:.3g}G",
            f"{size.training / 1e9:.3g}G",
            published.get(size.name, ""),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
