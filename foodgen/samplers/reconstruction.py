"""Samplers of models that do not draw from noise: an autoencoder's restored images, and none at all."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from foodgen.core.errors import ConfigError
from foodgen.core.registry import samplers


@samplers.add_to_registry(name="reconstruction")
class Reconstruction:
    """Real images through an autoencoder and back, so that its grid and its FID say what it loses.

    examples  (labels, numbers) to encoded images of the held-out set: of a label's images the one of that number
    """

    def __init__(self, examples: Callable[[Tensor, Sequence[int]], Tensor]) -> None:
        self.examples = examples

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless the model is an autoencoder."""
        if not hasattr(model, "encode"):
            raise ValueError(f"name: reconstruction wants an autoencoder; {type(model).__name__} is none")

    @torch.no_grad()
    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor:
        """Restored images, (batch, channels, size, size), of the labels' classes."""
        assert labels is not None
        numbers = getattr(noise, "indices", range(len(labels)))
        images = self.examples(labels, numbers)
        return model.decode(model.encode(images)[0]).float()  # type: ignore[operator]


@samplers.add_to_registry(name="none")
class NoSampler:
    """Draws nothing: a classifier makes no images. Raises ConfigError where some are wanted."""

    draws = False

    def check(self, model: nn.Module) -> None:
        """Serves every model that nobody wants images of."""

    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor:
        raise ConfigError(f"sampler.name: none draws nothing, and a {type(model).__name__} has nothing to draw")
