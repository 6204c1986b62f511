"""What models make of held-out real images: bits per dimension, accuracy, an autoencoder's error."""

import torch
from torch import Tensor, nn

from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import metrics
from foodgen.core.types import Measure


@metrics.add_to_registry(name="bits_per_dimension")
class BitsPerDimension(Measure):
    """Upper bound on the bits a pixel's value takes in a lossless code (DDPM, section 3.4; IDDPM, section 3).

    steps  of the grid on which the bound is a sum, or as many as the process has
    looks  terms of the sum that are computed for each image, drawn evenly over the grid; their mean is unbiased

    Any process will do, and their bounds compare: all are of q(x_s | x_t, clean) along noise levels.
    """

    name = "bits_per_dimension"
    lower_is_better = True

    def __init__(self, steps: int = 1000, looks: int = 8) -> None:
        if not 1 <= looks <= steps:
            raise ValueError(f"looks: {looks} is not between 1 and steps: {steps}")
        self.steps, self.looks = steps, looks

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless the model is a denoiser of pixels."""
        if not hasattr(model, "bound_term") or model.noise_shape[0] != 3:  # type: ignore[index]
            raise ValueError(f"bits_per_dimension: a denoiser of pixels is wanted; {type(model).__name__} is none")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        grid = model.process.bound_grid(self.steps).to(images)  # type: ignore[operator, union-attr]
        steps = len(grid) - 1
        bits = model.prior_term(images, grid[:1].expand(len(images)))  # type: ignore[operator]
        for look in range(self.looks):
            place = (look + uniform_for(images)) / self.looks * steps
            place = place.long().clamp(max=steps - 1)
            t, s = grid[place], grid[place + 1]
            x = model.process.mix(images, normal_like(images), t)  # type: ignore[operator, union-attr]
            term = model.bound_term(images, x, t, s, model(x, t, labels))  # type: ignore[operator]
            bits = bits + term * steps / self.looks
        return bits


@metrics.add_to_registry(name="accuracy")
class Accuracy(Measure):
    """Share of images whose class a classifier tells; a noisy one at the noise levels that training draws."""

    name = "accuracy"
    lower_is_better = False

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless the model is a classifier."""
        if not hasattr(model, "practise"):
            raise ValueError(f"accuracy: a classifier is wanted; {type(model).__name__} is none")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return (model.practise(images).argmax(dim=1) == labels).float()  # type: ignore[operator]


@metrics.add_to_registry(name="psnr")
class PSNR(Measure):
    """Peak signal-to-noise ratio of an autoencoder's restored images, in decibels."""

    name = "psnr"
    lower_is_better = False

    def check(self, model: nn.Module) -> None:
        """Raise ValueError unless the model is an autoencoder."""
        if not hasattr(model, "encode"):
            raise ValueError(f"psnr: an autoencoder is wanted; {type(model).__name__} is none")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        restored = model.decode(model.encode(images)[0]).float().clamp(-1, 1)  # type: ignore[operator]
        error = ((restored - images) ** 2).flatten(1).mean(dim=1)
        return 10 * torch.log10(4 / error.clamp(min=1e-10))
