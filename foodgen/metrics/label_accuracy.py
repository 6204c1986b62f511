"""How often a classifier assigns a generated image to the class that it was generated for."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from foodgen.core.registry import metrics
from foodgen.core.types import FeatureSpace, Metric, MetricInputs


@metrics.add_to_registry(name="label_accuracy")
class LabelAccuracy(Metric):
    """The classifier's accuracy on generated images; `real_label_accuracy` is that on real ones.

    The detail by class is [generated, real]. Generated images above the real accuracy are more typical than photos.
    """

    name = "label_accuracy"
    lower_is_better = False
    of_sets = False
    of_classes = True

    def check(self, subject: FeatureSpace | nn.Module) -> None:
        if not isinstance(subject, FeatureSpace) or subject.classifier() is None:
            raise ValueError(
                f"label_accuracy needs a classifier's features, as in classifier/label_accuracy; "
                f"{type(subject).__name__} is no classifier"
            )

    def __call__(self, inputs: MetricInputs) -> dict[str, Any]:
        assert inputs.classify is not None
        generated = self._correct(inputs.classify, inputs.generated, inputs.labels)
        real = self._correct(inputs.classify, inputs.real, inputs.real_labels)
        by_class = {}
        for label in inputs.real_labels.unique().tolist():
            parts = generated[inputs.labels == label], real[inputs.real_labels == label]
            by_class[label] = [round(part.mean().item(), 4) if len(part) else None for part in parts]
        return {
            "label_accuracy": generated.mean().item(),
            "real_label_accuracy": real.mean().item(),
            "label_accuracy_by_class": by_class,
        }

    @staticmethod
    def _correct(classify: Callable[[Tensor], Tensor], features: Tensor, labels: Tensor) -> Tensor:
        return (classify(features).argmax(dim=1) == labels).double()
