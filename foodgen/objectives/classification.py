"""Classification: what a classifier learns that is to guide a sampler (Dhariwal 2021) or to judge pictures."""

from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.registry import objectives
from foodgen.core.types import Batch, Objective, Turn


@objectives.add_to_registry(name="classification")
class Classification(Objective):
    """Cross entropy of images as the model wants to meet them: noisy ones for a noisy classifier.

    model            a classifier
    label_smoothing  share of certainty given to all other classes (Szegedy 2016)
    """

    def __init__(self, model: nn.Module, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not hasattr(model, "practise"):
            raise ValueError(f"model: a classifier is wanted; {type(model).__name__} is none")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: {label_smoothing} is not in [0, 1)")
        self.model, self.label_smoothing = model, label_smoothing

    def turns(self, step: int) -> list[Turn]:
        return [Turn("model", self.loss)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """batch: images about [-1, 1] and their labels."""
        logits = self.model.practise(batch.images)  # type: ignore[operator]
        right = (logits.argmax(dim=1) == batch.labels).float().mean()
        loss = functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return {"loss": loss, "accuracy": right}
