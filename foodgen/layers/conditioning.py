"""What a network is conditioned on: the noise level and the class."""

import math

import torch
from torch import Tensor, nn


def sinusoidal(time: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sines and cosines of `time` at `width / 2` frequencies (Vaswani 2017; DDPM, appendix B).

    time  (batch,), on a scale of about a thousand: the quickest wave has a period of 2 pi
    """
    half = width // 2
    frequencies = torch.exp(-math.log(longest) / half * torch.arange(half, device=time.device))
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)  # (batch, width)


class TimeEmbedding(nn.Module):
    """Sinusoids of the noise level through two linear layers."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(width, outputs), nn.SiLU(), nn.Linear(outputs, outputs))

    def forward(self, time: Tensor) -> Tensor:
        return self.layers(sinusoidal(time, self.width))  # (batch, outputs)


def look_up(table: nn.Embedding, labels: Tensor) -> Tensor:
    """The vectors of class numbers, (batch,), or of mixtures, weights (batch, classes); (batch, width)."""
    if not labels.is_floating_point():
        return table(labels)
    vectors: Tensor = labels @ table.weight[: labels.shape[1]]
    return vectors


class LabelEmbedding(nn.Module):
    """A vector a class, and one more, the last, for no class: the null label of classifier-free guidance.

    With 0 classes every label is the null label: an unconditional network.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.table = nn.Embedding(classes + 1, width)

    def forward(self, labels: Tensor | None, batch: int) -> Tensor:
        """labels: class numbers, (batch,), mixtures, (batch, classes), or None for the null label throughout."""
        null = torch.full((batch,), self.classes, device=self.table.weight.device)
        labels = null if labels is None or self.classes == 0 else labels.clamp(max=self.classes)
        return look_up(self.table, labels)  # (batch, width)


class ClassTable(nn.Module):
    """A vector a class, (batch, width); with 0 classes the same one for all images.

    mean, deviation  of the initial values
    """

    def __init__(self, classes: int, width: int, mean: float = 0.0, deviation: float = 1.0) -> None:
        super().__init__()
        self.classes = classes
        self.table = nn.Embedding(max(1, classes), width)
        nn.init.normal_(self.table.weight, mean, deviation)

    def forward(self, labels: Tensor | None, batch: int) -> Tensor:
        """labels: class numbers, (batch,), or mixtures, (batch, classes).

        Raises ValueError if there are none where classes matter.
        """
        if self.classes == 0:
            labels = torch.zeros(batch, dtype=torch.long, device=self.table.weight.device)
        if labels is None:
            raise ValueError(f"labels: this network has {self.classes} classes and needs a label for each image")
        return look_up(self.table, labels)
