"""Noise to an image in a few large steps (multistep sampling of consistency models: Song 2023, algorithm 1)."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from foodgen.core.networks import Upsampler
from foodgen.core.registry import samplers
from foodgen.core.types import Sampler


@samplers.add_to_registry(name="multistep")
class Multistep(Sampler):
    """Samples from an upsampler alone: each image is averaged down, given less noise than the last, and made again.

    sigmas  standard deviations of the noise on the small image, from the largest, under which nothing is seen of an
            image, to the smallest; one pass of the network each, within the levels that it was trained for

    What a denoising diffusion GAN does (Xiao 2022), but that the noise of each step is new.
    """

    def __init__(self, sigmas: Sequence[float] = (20.0, 5.0, 1.0, 0.4)) -> None:
        if not sigmas or min(sigmas) < 0 or any(s <= t for s, t in pairwise(sigmas)):
            raise ValueError(f"sigmas: {list(sigmas)} do not fall from one to the next, down to 0 at most")
        self.sigmas = list(sigmas)

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless the model is an upsampler."""
        if not isinstance(model, Upsampler):
            raise ValueError(f"name: multistep samples from an upsampler; {type(model).__name__} is none")

    @torch.no_grad()
    def __call__(self, model: nn.Module, noise: Callable[[], Tensor], labels: Tensor | None = None) -> Tensor:
        """Images, (batch, channels, size, size)."""
        assert isinstance(model, Upsampler)
        images = model.decode(self.sigmas[0] * noise(), labels)
        for sigma in self.sigmas[1:]:
            images = model.decode(model.encode(images)[0] + sigma * noise(), labels)
        return images.float()
