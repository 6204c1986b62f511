"""One forward pass of a GAN's generator, with the truncation trick (StyleGAN, Karras 2018)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from foodgen.core.registry import samplers
from foodgen.core.types import Generator, Sampler


@samplers.add_to_registry(name="one_shot")
class OneShot(Sampler):
    """Noise through the generator.

    truncation  psi: fraction of a latent's distance to the mean latent that is kept; below 1 images are more typical
                and less diverse
    """

    def __init__(self, truncation: float = 1.0) -> None:
        if not 0 <= truncation <= 1:
            raise ValueError(f"truncation: {truncation} is not in [0, 1]")
        self.truncation = truncation

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless the model is a generator."""
        if not isinstance(model, Generator):
            raise ValueError(f"name: one_shot samples from a GAN's generator; {type(model).__name__} is none")

    @torch.no_grad()
    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor:
        """Samples, (batch, *shape), from `noise()`."""
        assert isinstance(model, Generator)
        z = noise()
        latent = model.latent(z, labels)
        mean = model.mean_latent()
        latent = mean + self.truncation * (latent - mean)
        return model.images(latent, labels, z).float()
