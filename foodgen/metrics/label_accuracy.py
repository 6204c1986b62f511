"""How often a classifier finds in a generated image the class that it was drawn for."""

from typing import Any

from torch import Tensor

from foodgen.core.registry import metrics
from foodgen.core.types import Evidence, FeatureSpace, Metric


@metrics.add_to_registry(name="label_accuracy")
class LabelAccuracy(Metric):
    """Share of images whose class the classifier names; `real_label_accuracy` is its share on real images.

    By class, [generated, real], it is told as a detail. Above the real share images are more typical than photos.
    """

    name = "label_accuracy"
    lower_is_better = False
    of_sets = False

    def check(self, space: FeatureSpace) -> None:
        if not hasattr(space, "classify"):
            raise ValueError(
                f"label_accuracy wants a classifier's features, as in classifier/label_accuracy; "
                f"{type(space).__name__} tells no classes"
            )

    def __call__(self, evidence: Evidence) -> dict[str, Any]:
        made = self._right(evidence, evidence.generated, evidence.labels)
        real = self._right(evidence, evidence.real, evidence.real_labels)
        by_class = {}
        for label in evidence.real_labels.unique().tolist():
            parts = made[evidence.labels == label], real[evidence.real_labels == label]
            by_class[label] = [round(part.mean().item(), 4) if len(part) else None for part in parts]
        return {
            "label_accuracy": made.mean().item(),
            "real_label_accuracy": real.mean().item(),
            "label_accuracy_by_class": by_class,
        }

    @staticmethod
    def _right(evidence: Evidence, features: Tensor, labels: Tensor) -> Tensor:
        assert evidence.classify is not None
        return (evidence.classify(features).argmax(dim=1) == labels).double()
