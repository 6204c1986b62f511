"""Denoising: plain regression on the network's output, whichever process it serves."""

from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import objectives
from foodgen.core.types import Batch, Objective, Turn


@objectives.add_to_registry(name="denoising")
class Denoising(Objective):
    """Mean squared error of the network's output (DDPM, equation 14; EDM, equation 8 with unit weight on F).

    model       a denoiser
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
        hidden = uniform_for(batch.images) < self.label_drop
        labels = batch.labels.masked_fill(hidden, self.model.null_label)  # type: ignore[arg-type]
        output, target = self.model.regression(batch.images, noise, t, labels)  # type: ignore[operator]
        return {"loss": functional.mse_loss(output, target)}
