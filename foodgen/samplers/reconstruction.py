"""Samplers of models that do not generate from noise: an autoencoder's reconstructions, and none at all."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from foodgen.core.errors import ConfigError
from foodgen.core.networks import Autoencoder
from foodgen.core.randomness import Noise
from foodgen.core.registry import samplers
from foodgen.core.types import Sampler

MOST_NOISE = 100.0  # standard deviation, beside which there is nothing of a latent to be seen


@samplers.add_to_registry(name="reconstruction")
class Reconstruction(Sampler):
    """Real images through an autoencoder: its FID (rFID) says what it loses.

    examples   (labels, indices) to encoded validation images: of a label's images the one of that index
    noise_std  standard deviation of noise added to their latents: what a sampler would leave there
    """

    needs_images = True

    def __init__(self, examples: Callable[[Tensor, Sequence[int]], Tensor], noise_std: float = 0.0) -> None:
        if not 0 <= noise_std <= MOST_NOISE:
            raise ValueError(f"noise_std: {noise_std} is not between 0 and {MOST_NOISE:g}")
        self.examples, self.noise_std = examples, noise_std

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless the model is an autoencoder."""
        if not isinstance(model, Autoencoder):
            raise ValueError(f"name: reconstruction takes an autoencoder; {type(model).__name__} is none")

    @torch.no_grad()
    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor:
        """Reconstructions, (batch, channels, size, size), of images of the labels' classes."""
        assert isinstance(model, Autoencoder) and labels is not None
        indices = noise.indices if isinstance(noise, Noise) else range(len(labels))
        latents = model.encode(self.examples(labels, indices))[0]
        return model.decode(latents + self.noise_std * noise(), labels).float()


@samplers.add_to_registry(name="none")
class NoSampler(Sampler):
    """Samples nothing: a classifier makes no images. Raises ConfigError where some are asked for."""

    generates = False

    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor:
        raise ConfigError(f"sampler.name: none samples nothing, and a {type(model).__name__} generates no images")
