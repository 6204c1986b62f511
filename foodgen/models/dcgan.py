"""Deep convolutional GAN (Radford, Metz, Chintala 2015), conditional by a label beside the input (Mirza 2014)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.registry import models
from foodgen.core.types import Generator
from foodgen.layers.adversarial import at_least_one, halvings
from foodgen.layers.conditioning import ClassTable


def _initialise(network: nn.Module) -> None:
    """Weights normal around 0, batch norm's gains around 1, deviation 0.02 (section 4)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)


@models.add_to_registry(name="dcgan")
class DCGAN(Generator):
    """Transposed convolutions of stride 2 from 4x4 pixels up.

    channels, image_size  of the images
    classes               number of labels, each a vector beside the noise; 0 for none
    width                 channels at half the image's size; doubled with each halving
    z_dim                 numbers an image starts from
    """

    def __init__(self, channels: int, image_size: int, classes: int, width: int = 128, z_dim: int = 100) -> None:
        super().__init__()
        at_least_one(width=width, z_dim=z_dim)
        self.noise_shape = (z_dim,)
        widths = [width * 2**index for index in reversed(range(halvings(image_size)))]
        self.label = ClassTable(classes, z_dim)
        layers: list[nn.Module] = [nn.ConvTranspose2d(2 * z_dim, widths[0], 4, bias=False)]
        for inputs, outputs in zip(widths, [*widths[1:], channels], strict=True):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=outputs == channels)]
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    def images(self, latent: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        x = torch.cat([latent, self.label(labels, len(latent))], dim=1)  # (batch, 2 * z_dim)
        return self.layers(x[:, :, None, None]).tanh()  # (batch, channels, size, size)


@models.add_to_registry(name="dcgan_discriminator")
class DCGANDiscriminator(nn.Module):
    """Convolutions of stride 2 down to 4x4 pixels; the label is one more image plane.

    channels, image_size, classes, width  as the generator's
    """

    def __init__(self, channels: int, image_size: int, classes: int, width: int = 128) -> None:
        super().__init__()
        at_least_one(width=width)
        self.image_size = image_size
        self.label = ClassTable(classes, image_size**2) if classes else None
        widths = [width * 2**index for index in range(halvings(image_size))]
        self.first = nn.Conv2d(channels + bool(classes), widths[0], 4, stride=2, padding=1)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.LeakyReLU(0.2), nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(widths[-1], 1, 4)
        _initialise(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """images: (batch, channels, size, size) to logits, (batch,)."""
        if self.label is not None:
            plane = self.label(labels, len(images)).unflatten(1, (1, self.image_size, self.image_size))
            images = torch.cat([images, plane.to(images.dtype)], dim=1)
        x = self.layers(self.first(images))
        return self.last(functional.leaky_relu(x, 0.2)).flatten()
