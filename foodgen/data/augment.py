"""Changes to training images, made on the device."""

import torch
from torch import Tensor

from foodgen.core.randomness import uniform_for
from foodgen.core.registry import augmentations


@augmentations.add_to_registry(name="none")
class NoAugmentation:
    """The images as they are."""

    def __call__(self, images: Tensor) -> Tensor:
        return images


@augmentations.add_to_registry(name="flip")
class Flip:
    """Left and right exchanged in half of the images."""

    def __call__(self, images: Tensor) -> Tensor:
        chosen = uniform_for(images) < 0.5
        return torch.where(chosen[:, None, None, None], images.flip(-1), images)
