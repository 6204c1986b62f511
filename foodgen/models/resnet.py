"""A residual network that classifies images (He 2016, identity mappings)."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.bounds import Share
from foodgen.core.networks import FeatureClassifier
from foodgen.core.registry import models


class PreActivation(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, added to the input; at half the size with stride 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)])
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes = stride > 1 or inputs != outputs
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.norms[0](x))
        y = self.second(functional.relu(self.norms[1](self.first(active))))
        return y + self.skip(active if isinstance(self.skip, nn.Conv2d) else x)


@models.add_to_registry(name="resnet")
class ResNet(FeatureClassifier):
    """Classifies clean images.

    channels, classes  of images and labels
    image_size         pixels a side; every stage after the first halves it
    stem_stride        2 to work at half the size from the start
    widths             channels of each stage
    blocks             of a stage
    dropout            of the features
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        stem_stride: int = 2,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        blocks: int = 2,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        if stem_stride not in (1, 2) or not widths or blocks < 1:
            raise ValueError(
                f"stem_stride: {stem_stride} is not 1 or 2, or widths: {widths} or blocks: {blocks} is none"
            )
        if image_size % (stem_stride * 2 ** (len(widths) - 1)):
            raise ValueError(f"widths: {image_size} pixels cannot be halved by {len(widths)} stages")
        stages = [PreActivation(widths[0], widths[0], 1)]
        stages += [PreActivation(inputs, outputs, 2) for inputs, outputs in pairwise(widths)]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, stem_stride, padding=1, bias=False)]
        for stage, width in zip(stages, widths, strict=True):
            layers += [stage, *[PreActivation(width, width, 1) for _ in range(blocks - 1)]]
        self.trunk = nn.Sequential(*layers, nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], classes)
        self.noise_shape, self.feature_width = (channels, image_size, image_size), widths[-1]

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk(images)
        return features.mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (batch, classes)."""
        return self.head(self.dropout(self.features(images))).float()

    def training_logits(self, images: Tensor) -> Tensor:
        """Logits of clean images."""
        return self(images)
