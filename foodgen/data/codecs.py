"""The border between pixels and what a model sees."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.errors import ConfigError
from foodgen.core.networks import Upsampler
from foodgen.core.registry import codecs
from foodgen.core.types import Augment, Images


@codecs.add_to_registry(name="rgb")
class RGB:
    """Pixels themselves, scaled from 0..255 to [-1, 1]."""

    decoder = None
    identity: str | None = None

    def __init__(self, image_size: int) -> None:
        self.shape = (3, image_size, image_size)

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (batch, 3, size, size) to float."""
        return images.float() / 127.5 - 1

    def decode(self, encoded: Tensor, labels: Tensor | None = None) -> Tensor:
        """Float to uint8, rounded and clipped: what a PNG file can hold."""
        return ((encoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def training_set(self, images: Images, augment: Augment, device: torch.device, batch_size: int) -> Images:
        """The images themselves."""
        return images

    def training_input(self, batch: Tensor, augment: Augment) -> Tensor:
        """A batch of them, augmented, to the model's input."""
        return self.encode(augment(batch))


@codecs.add_to_registry(name="low_resolution")
class LowResolution:
    """Images averaged down, the first stage of a cascade (Ho 2021); a second stage makes them large again.

    image_size      height and width of the images
    low_resolution  of what the model sees
    path            the upsampler's checkpoint, exported folder or run's folder; None repeats pixels
    load_pretrained loads the model of such a folder

    Raises ConfigError if the upsampler is none, or one of another size.
    """

    identity: str | None = (
        None  # averages depend on no weights: a better upsampler may take the place of an earlier one
    )

    def __init__(
        self,
        image_size: int,
        low_resolution: int,
        load_pretrained: Callable[[str], nn.Module],
        path: str | None = None,
    ) -> None:
        if low_resolution < 1 or image_size % low_resolution:
            raise ConfigError(f"codec.low_resolution: {low_resolution} does not divide {image_size} pixels")
        self.pixels, self.shape = RGB(image_size), (3, low_resolution, low_resolution)
        self.decoder: Upsampler | None = None
        if path is not None:
            upsampler = load_pretrained(path)
            if not isinstance(upsampler, Upsampler):
                raise ConfigError(f"codec.path: {path} holds a {type(upsampler).__name__}, not an upsampler")
            if (upsampler.noise_shape, upsampler.image_size) != (self.shape, image_size):
                raise ConfigError(
                    f"codec.path: {path} enlarges {upsampler.noise_shape[-1]} pixels to {upsampler.image_size}, not "
                    f"codec.low_resolution={low_resolution} to data.image_size={image_size}"
                )
            self.decoder = upsampler

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (batch, 3, size, size) to float (batch, 3, low_resolution, low_resolution)."""
        return functional.adaptive_avg_pool2d(self.pixels.encode(images), self.shape[-1])

    @torch.no_grad()
    def decode(self, encoded: Tensor, labels: Tensor | None = None) -> Tensor:
        """Float to uint8 of the images' own size."""
        if self.decoder is None:
            return self.pixels.decode(functional.interpolate(encoded.float(), self.pixels.shape[1:]))
        return self.pixels.decode(self.decoder.decode(encoded.float(), labels))

    def training_set(self, images: Images, augment: Augment, device: torch.device, batch_size: int) -> Images:
        """The images themselves."""
        return images

    def training_input(self, batch: Tensor, augment: Augment) -> Tensor:
        """A batch of them, augmented, to the model's input."""
        return self.encode(augment(batch))
