"""The border between pixels and what a model sees."""

from collections.abc import Callable

import torch
from torch import Tensor

from foodgen.core.registry import codecs
from foodgen.core.types import Augment, Images


@codecs.add_to_registry(name="rgb")
class RGB:
    """Pixels themselves, scaled from 0..255 to [-1, 1]."""

    def __init__(self, image_size: int) -> None:
        self.shape = (3, image_size, image_size)

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (batch, 3, size, size) to float."""
        return images.float() / 127.5 - 1

    def decode(self, encoded: Tensor) -> Tensor:
        """Float to uint8, rounded and clipped: what a PNG file can hold."""
        return ((encoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def training_set(
        self, images: Images, augment: Augment, device: torch.device, batch_size: int
    ) -> tuple[Images, Callable[[Tensor], Tensor]]:
        """The images themselves; and a batch of images to the model's input."""
        return images, lambda pixels: self.encode(augment(pixels))
