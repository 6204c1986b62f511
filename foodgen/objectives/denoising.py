"""Denoising: plain regression on the network's output, whichever process it serves."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import objectives
from foodgen.core.types import Batch, Objective, Turn


@objectives.add_to_registry(name="denoising")
class Denoising(Objective):
    """Mean squared error of the network's output (DDPM, equation 14; EDM, equation 8 with unit weight on F).

    model       a denoiser; of one with uncertainty all noise levels weigh the same (EDM2, equation 21)
    label_drop  share of the images whose label is hidden, so that the model learns to do without
    """

    def __init__(self, model: nn.Module, label_drop: float = 0.1) -> None:
        super().__init__()
        if not 0 <= label_drop <= 1:
            raise ValueError(f"label_drop: {label_drop} is not a share between 0 and 1")
        if not hasattr(model, "regression"):
            raise ValueError(
                f"model: a denoiser is wanted, with a network and a process; {type(model).__name__} is none"
            )
        self.model, self.label_drop = model, label_drop

    def turns(self, step: int) -> list[Turn]:
        return [Turn("model", self.loss)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """batch: images about [-1, 1] and their labels."""
        t = self.model.process.draw(uniform_for(batch.images))  # type: ignore[operator, union-attr]
        noise = normal_like(batch.images)
        output, target = self.model.regression(batch.images, noise, t, self.some_hidden(batch))  # type: ignore[operator]
        if self.model.uncertainty is None:
            return {"loss": functional.mse_loss(output, target)}
        error, expected = ((output - target) ** 2).flatten(1).mean(dim=1), self.model.log_loss(t)  # type: ignore[operator]
        return {"loss": (error * (-expected).exp() + expected).mean(), "error": error.mean()}

    def some_hidden(self, batch: Batch) -> Tensor:
        """The labels, some of them replaced by the null label."""
        hidden = uniform_for(batch.images) < self.label_drop
        return batch.labels.masked_fill(hidden, self.model.null_label)  # type: ignore[arg-type]


@objectives.add_to_registry(name="aligned_denoising")
class AlignedDenoising(Denoising):
    """Denoising, while the network's own features are drawn towards those of a frozen network (REPA, Yu 2024).

    model     a denoiser with `alignment` as many channels as the frozen network's feature map has
    features  the frozen network: clean images to feature maps
    level     which of its maps, the largest being 0
    weight    of the alignment at the start
    until     step at which it has faded to nothing

    Compared are the maps place by place, the frozen one's at zero mean and unit variance over its places, by
    cosine (iREPA, Singh 2025).
    """

    def __init__(
        self,
        model: nn.Module,
        features: nn.Module,
        label_drop: float = 0.1,
        level: int = 2,
        weight: float = 0.5,
        until: int = 20_000,
    ) -> None:
        super().__init__(model, label_drop)
        widths: list[int] = features.widths  # type: ignore[assignment]
        if not 0 <= level < len(widths) or weight < 0 or until < 1:
            raise ValueError(f"level: {level} is not one of {len(widths)}, or weight or until is too low")
        if getattr(model.projector, "out_channels", 0) != widths[level]:
            raise ValueError(f"model.alignment: level {level} has {widths[level]} channels; set it to that")
        self.features, self.level, self.weight, self.until = features, level, weight, until

    def turns(self, step: int) -> list[Turn]:
        return [Turn("model", partial(self.aligned_loss, max(0.0, 1 - step / self.until)))]

    def aligned_loss(self, faded: float, batch: Batch) -> dict[str, Tensor]:
        """The denoising loss and `faded` times the weighted misalignment."""
        losses = self.loss(batch)
        seen = self.model.features()  # type: ignore[operator]
        misalignment = 1 - functional.cosine_similarity(seen, self._wanted(batch.images, seen.shape[-1]), dim=1).mean()
        losses["loss"] = losses["loss"] + self.weight * faded * misalignment
        return losses | {"misalignment": misalignment}

    def _wanted(self, images: Tensor, side: int) -> Tensor:
        maps = self.features(images)[self.level].float()
        maps = functional.adaptive_avg_pool2d(maps, side)
        deviation, mean = maps.var(dim=(2, 3), keepdim=True).add(1e-6).sqrt(), maps.mean(dim=(2, 3), keepdim=True)
        return (maps - mean) / deviation
