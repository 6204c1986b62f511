"""Changes to real and generated images before the discriminator sees them, through which gradients pass."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.devices import full_precision
from foodgen.core.randomness import uniform_for
from foodgen.core.registry import disturbances


class Disturbance(nn.Module, ABC):
    """Images, (batch, 3, size, size), about [-1, 1], to images of the same shape.

    probability  of each change, for the log
    """

    probability: Tensor

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.register_buffer("probability", torch.tensor(probability))

    def forward(self, images: Tensor) -> Tensor:
        """The images as the discriminator shall see them, in float32."""
        with full_precision(images):
            return self.change(images.float())

    @abstractmethod
    def change(self, images: Tensor) -> Tensor:
        """The changed images."""

    def observe(self, real_logits: Tensor) -> None:
        """Take notice of what the discriminator thinks of real images."""


@disturbances.add_to_registry(name="none")
class Undisturbed(Disturbance):
    """The images as they are."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def change(self, images: Tensor) -> Tensor:
        return images


@disturbances.add_to_registry(name="diff_augment")
class DiffAugment(Disturbance):
    """Differentiable augmentation of every image (Zhao 2020).

    policy    of color, translation, cutout
    strength  1 is the paper's: brightness by half, saturation to 0 to 2, contrast 0.5 to 1.5, moves by an
              eighth of the size, a hole of half the size; 0 changes nothing
    """

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout"), strength: float = 1.0) -> None:
        super().__init__(1.0)
        if not 0 <= strength <= 1:
            raise ValueError(f"strength: {strength} is not between 0 and 1")
        changes = {"color": self._color, "translation": self._translation, "cutout": self._cutout}
        for name in policy:
            if name not in changes:
                raise ValueError(f"policy: there is no {name}; there are: {', '.join(changes)}")
        self.changes, self.strength = [changes[name] for name in policy], strength

    def change(self, images: Tensor) -> Tensor:
        for change in self.changes:
            images = change(images)
        return images

    def _around(self, x: Tensor, reach: float) -> Tensor:
        """A number an image, even in +-reach, (batch, 1, 1, 1)."""
        return (self.strength * reach * (2 * uniform_for(x) - 1))[:, None, None, None]

    def _color(self, x: Tensor) -> Tensor:
        x = x + self._around(x, 0.5)
        grey = x.mean(dim=1, keepdim=True)
        x = grey + (x - grey) * (1 + self._around(x, 1.0))
        middle = x.mean(dim=(1, 2, 3), keepdim=True)
        return middle + (x - middle) * (1 + self._around(x, 0.5))

    def _translation(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        reach = round(self.strength * size / 8)
        down, right = (self._whole(x, 2 * reach + 1) for _ in range(2))
        padded = functional.pad(x, [reach] * 4)
        steps = torch.arange(size, device=x.device)
        rows, columns = (down[:, None] + steps)[:, :, None], (right[:, None] + steps)[:, None, :]
        images = torch.arange(len(x), device=x.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[images, rows, columns].permute(0, 3, 1, 2)

    def _cutout(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        hole = round(self.strength * size / 2)
        steps = torch.arange(size, device=x.device)
        top, left = (self._whole(x, size + 1 - hole % 2) - hole // 2 for _ in range(2))
        inside = [(steps >= start[:, None]) & (steps < start[:, None] + hole) for start in (top, left)]
        return x * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])

    @staticmethod
    def _whole(x: Tensor, count: int) -> Tensor:
        """A whole number below `count` for each image, (batch,)."""
        return (uniform_for(x) * count).long().clamp(max=count - 1)
