"""Classification: trains the classifier that guides a sampler (Dhariwal 2021) or that scores generated images."""

from torch import Tensor
from torch.nn import functional

from foodgen.core.networks import Classifier
from foodgen.core.registry import objectives
from foodgen.core.types import Batch, Objective, Phase


@objectives.add_to_registry(name="classification")
class Classification(Objective):
    """Cross entropy, of noisy images for a classifier of noisy images.

    model            a classifier
    label_smoothing  probability given to all other classes (Szegedy 2016)
    """

    model: Classifier

    def __init__(self, model: Classifier, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: {label_smoothing} is not in [0, 1)")
        self.model, self.label_smoothing = model, label_smoothing

    def phases(self, step: int) -> list[Phase]:
        return [Phase("model", self.loss)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """batch: images about [-1, 1] and their labels."""
        logits = self.model.training_logits(batch.images)
        accuracy = (logits.argmax(dim=1) == batch.labels).float().mean()
        loss = functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return {"loss": loss, "accuracy": accuracy}
