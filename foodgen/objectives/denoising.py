"""Denoising: regression on the network's output, for every process."""

from functools import partial

from torch import Tensor
from torch.nn import functional

from foodgen.core.networks import Denoiser, FeatureMaps
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import objectives
from foodgen.core.types import Batch, Objective, Phase


@objectives.add_to_registry(name="denoising")
class Denoising(Objective):
    """Mean squared error of the network's output (DDPM, equation 14; EDM, equation 8 with unit weight on F).

    model          a denoiser; with uncertainty its loss weights all noise levels alike (EDM2, equation 21)
    class_dropout  probability of replacing a label by the null label, for classifier-free guidance
    """

    model: Denoiser

    def __init__(self, model: Denoiser, class_dropout: float = 0.1) -> None:
        super().__init__()
        if not 0 <= class_dropout <= 1:
            raise ValueError(f"class_dropout: {class_dropout} is not in [0, 1]")
        self.model, self.class_dropout = model, class_dropout

    def phases(self, step: int) -> list[Phase]:
        return [Phase("model", self.loss)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """batch: images about [-1, 1] and their labels."""
        x, t, eps, labels = self.corrupt(batch)
        output, _ = self.model.outputs(x, t, labels)
        return self.regression_loss(output, self.model.target(batch.images, eps, t), t)

    def corrupt(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x_t, t, eps and labels with class dropout."""
        t = self.model.process.sample_t(uniform_for(batch.images))
        eps = normal_like(batch.images)
        return self.model.process.q_sample(batch.images, eps, t), t, eps, self.drop_classes(batch.labels)

    def drop_classes(self, labels: Tensor) -> Tensor:
        """The labels, some of them replaced by the null label."""
        return labels.masked_fill(uniform_for(labels) < self.class_dropout, self.model.null_label)

    def regression_loss(self, output: Tensor, target: Tensor, t: Tensor) -> dict[str, Tensor]:
        """The mean squared error, weighted by the expected one if that is learnt."""
        if self.model.uncertainty is None:
            return {"loss": functional.mse_loss(output, target)}
        error, log_loss = ((output - target) ** 2).flatten(1).mean(dim=1), self.model.log_loss(t)
        return {"loss": (error * (-log_loss).exp() + log_loss).mean(), "error": error.mean()}


@objectives.add_to_registry(name="aligned_denoising")
class AlignedDenoising(Denoising):
    """Denoising, while features of the network are aligned with those of a frozen network (REPA, Yu 2024).

    model          a denoiser whose `alignment` is the number of channels of the frozen network's map
    features       the frozen network
    class_dropout  probability of replacing a label by the null label
    layer          which of its maps, 0 being the finest
    weight         of the alignment at first
    until          step at which the weight has decayed linearly to 0

    Maps are compared by cosine similarity at each position, the frozen one normalised over positions (iREPA, Singh
    2025).
    """

    def __init__(
        self,
        model: Denoiser,
        features: FeatureMaps,
        class_dropout: float = 0.1,
        layer: int = 2,
        weight: float = 0.5,
        until: int = 20_000,
    ) -> None:
        super().__init__(model, class_dropout)
        if not 0 <= layer < len(features.widths) or weight < 0 or until < 1:
            raise ValueError(f"layer: {layer} is not one of {len(features.widths)}, or weight or until is too low")
        if model.alignment != features.widths[layer]:
            raise ValueError(f"model.alignment: layer {layer} has {features.widths[layer]} channels; set it to that")
        self.features, self.layer, self.weight, self.until = features, layer, weight, until

    def phases(self, step: int) -> list[Phase]:
        return [Phase("model", partial(self.aligned_loss, max(0.0, 1 - step / self.until)))]

    def aligned_loss(self, decay: float, batch: Batch) -> dict[str, Tensor]:
        """The denoising loss plus `decay` times the weighted misalignment."""
        x, t, eps, labels = self.corrupt(batch)
        output, features = self.model.outputs_and_features(x, t, labels)
        losses = self.regression_loss(output, self.model.target(batch.images, eps, t), t)
        target = self._target_features(batch.images, features.shape[-1])
        misalignment = 1 - functional.cosine_similarity(features, target, dim=1).mean()
        losses["loss"] = losses["loss"] + self.weight * decay * misalignment
        return losses | {"misalignment": misalignment}

    def _target_features(self, images: Tensor, side: int) -> Tensor:
        features = functional.adaptive_avg_pool2d(self.features(images)[self.layer].float(), side)
        std = features.var(dim=(2, 3), keepdim=True).add(1e-6).sqrt()
        return (features - features.mean(dim=(2, 3), keepdim=True)) / std
