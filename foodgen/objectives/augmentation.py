"""Augmentation of real and generated images before the discriminator, differentiable."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.devices import full_precision
from foodgen.core.randomness import uniform_for
from foodgen.core.registry import discriminator_augmentations


class Augmentation(nn.Module, ABC):
    """Images, (batch, 3, size, size), about [-1, 1], to images of the same shape.

    probability  of each transformation, for the log
    """

    probability: Tensor

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.register_buffer("probability", torch.tensor(probability))

    def forward(self, images: Tensor) -> Tensor:
        """The augmented images, in float32."""
        with full_precision(images):
            return self.augment(images.float())

    @abstractmethod
    def augment(self, images: Tensor) -> Tensor:
        """The augmented images."""

    def observe(self, real_logits: Tensor) -> None:
        """Adapt to the discriminator's logits of augmented real images."""


@discriminator_augmentations.add_to_registry(name="none")
class NoAugment(Augmentation):
    """The images as they are."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def augment(self, images: Tensor) -> Tensor:
        return images


@discriminator_augmentations.add_to_registry(name="diff_augment")
class DiffAugment(Augmentation):
    """DiffAugment (Zhao 2020), applied to every image.

    policy    of color, translation, cutout
    strength  1 is the paper's: brightness +-0.5, saturation 0 to 2, contrast 0.5 to 1.5, translation by up to an
              eighth of the size, cutout of half the size; 0 changes nothing
    """

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout"), strength: float = 1.0) -> None:
        super().__init__(1.0)
        if not 0 <= strength <= 1:
            raise ValueError(f"strength: {strength} is not in [0, 1]")
        transforms = {"color": self._color, "translation": self._translation, "cutout": self._cutout}
        for name in policy:
            if name not in transforms:
                raise ValueError(f"policy: there is no {name}; there are: {', '.join(transforms)}")
        self.transforms, self.strength = [transforms[name] for name in policy], strength

    def augment(self, images: Tensor) -> Tensor:
        for transform in self.transforms:
            images = transform(images)
        return images

    def _uniform(self, x: Tensor, bound: float) -> Tensor:
        """A number for each image, uniform in +-bound, (batch, 1, 1, 1)."""
        return (self.strength * bound * (2 * uniform_for(x) - 1))[:, None, None, None]

    def _color(self, x: Tensor) -> Tensor:
        x = x + self._uniform(x, 0.5)
        grey = x.mean(dim=1, keepdim=True)
        x = grey + (x - grey) * (1 + self._uniform(x, 1.0))
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return mean + (x - mean) * (1 + self._uniform(x, 0.5))

    def _translation(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        bound = round(self.strength * size / 8)
        down, right = (self._integer(x, 2 * bound + 1) for _ in range(2))
        padded = functional.pad(x, [bound] * 4)
        steps = torch.arange(size, device=x.device)
        rows, columns = (down[:, None] + steps)[:, :, None], (right[:, None] + steps)[:, None, :]
        images = torch.arange(len(x), device=x.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[images, rows, columns].permute(0, 3, 1, 2)

    def _cutout(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        hole = round(self.strength * size / 2)
        steps = torch.arange(size, device=x.device)
        top, left = (self._integer(x, size + 1 - hole % 2) - hole // 2 for _ in range(2))
        inside = [(steps >= start[:, None]) & (steps < start[:, None] + hole) for start in (top, left)]
        return x * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])

    @staticmethod
    def _integer(x: Tensor, count: int) -> Tensor:
        """An integer below `count` for each image, (batch,)."""
        return (uniform_for(x) * count).long().clamp(max=count - 1)
