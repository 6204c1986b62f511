"""Classification of noisy images: what a classifier learns that is to guide a sampler (Dhariwal 2021)."""

from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import objectives
from foodgen.core.types import Batch, Objective, Turn


@objectives.add_to_registry(name="classification")
class Classification(Objective):
    """Cross entropy at the noise levels that the process draws.

    model  a noisy classifier
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not hasattr(model, "log_probability"):
            raise ValueError(f"model: a noisy classifier is wanted; {type(model).__name__} is none")
        self.model = model

    def turns(self, step: int) -> list[Turn]:
        return [Turn("model", self.loss)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """batch: images about [-1, 1] and their labels."""
        t = self.model.process.draw(uniform_for(batch.images))  # type: ignore[operator, union-attr]
        x = self.model.process.mix(batch.images, normal_like(batch.images), t)  # type: ignore[operator, union-attr]
        logits = self.model(x, t)
        right = (logits.argmax(dim=1) == batch.labels).float().mean()
        return {"loss": functional.cross_entropy(logits, batch.labels), "accuracy": right}
