"""One look at the noise: how a GAN samples, with truncation (StyleGAN, Karras 2018)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from foodgen.core.registry import samplers
from foodgen.core.types import Generator


@samplers.add_to_registry(name="one_shot")
class OneShot:
    """Noise through the generator.

    truncation  share of a latent's distance to the mean latent that is kept: 1 keeps all, less
                gives more typical and less varied images
    """

    def __init__(self, truncation: float = 1.0) -> None:
        if not 0 <= truncation <= 1:
            raise ValueError(f"truncation: {truncation} is not a share between 0 and 1")
        self.truncation = truncation

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless the model is a generator."""
        if not isinstance(model, Generator):
            raise ValueError(f"name: one_shot draws with a GAN's generator; {type(model).__name__} is none")

    @torch.no_grad()
    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor:
        """Samples, (batch, *shape), from `noise()`."""
        assert isinstance(model, Generator)
        start = noise()
        latent = model.latent(start, labels)
        mean = model.mean_latent()
        latent = mean + self.truncation * (latent - mean)
        return model.images(latent, labels, start).float()
