"""Changes to training images, made on the device; `variants` are all that may become of an image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from foodgen.core.randomness import uniform_for
from foodgen.core.registry import augmentations


@augmentations.add_to_registry(name="none")
class NoAugmentation:
    """The images as they are."""

    variants: Sequence[Callable[[Tensor], Tensor]] = (lambda images: images,)

    def __call__(self, images: Tensor) -> Tensor:
        return images


@augmentations.add_to_registry(name="flip")
class Flip:
    """Left and right exchanged in half of the images."""

    variants: Sequence[Callable[[Tensor], Tensor]] = (lambda images: images, lambda images: images.flip(-1))

    def __call__(self, images: Tensor) -> Tensor:
        chosen = uniform_for(images) < 0.5
        return torch.where(chosen[:, None, None, None], images.flip(-1), images)
