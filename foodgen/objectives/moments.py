"""The Frechet distance of generated from real images in a frozen network's features, as a loss of the generator."""

import torch
from torch import Tensor

from foodgen.core import distributed
from foodgen.core.networks import FeatureMaps
from foodgen.core.registry import penalties
from foodgen.objectives.penalties import Penalty, PenaltyInputs

WARM_UP = 2.0  # images seen for each feature before the distance is computed


@penalties.add_to_registry(name="feature_moments")
class FeatureMoments(Penalty):
    """Pulls the mean and covariance of generated images' features towards those of real ones.

    features     images to feature maps; the spatial mean of the coarsest one is used
    memory       images after which half of what is known of generated ones is forgotten; too many, and the generator
                 overshoots before the moments say so
    real_images  real images to look at; their moments stay as they are from then on
    refresh      times the penalty is asked for between two computations of the transport map

    The gradient of the Frechet distance moves a generated image's features f towards their target under the optimal
    transport map between the two Gaussians, m + T (f - n), T = R (R C R)^(-1/2) R: m and R^2 are the real mean and
    covariance, n and C the generated ones (Dowson 1982). So the size is the mean squared distance from that target,
    with moments that move on from batch to batch.
    """

    network = "model"
    real: Tensor
    fake: Tensor
    counts: Tensor
    transport: Tensor

    def __init__(
        self,
        features: FeatureMaps,
        weight: float = 1.0,
        interval: int = 1,
        memory: float = 2000.0,
        real_images: int = 20_000,
        refresh: int = 25,
    ) -> None:
        super().__init__(weight, interval)
        if memory <= 0 or refresh < 1 or real_images < 2:
            raise ValueError(f"memory: {memory}, refresh: {refresh} and real_images: {real_images} are too small")
        self.features = features.requires_grad_(False)
        self.memory, self.real_images, self.refresh = memory, real_images, refresh
        width = features.widths[-1]
        # moments of (1, f): the corner is their weight, the first row the sum of features, the rest of their squares
        self.register_buffer("real", torch.zeros(1 + width, 1 + width, dtype=torch.float64))
        self.register_buffer("fake", torch.zeros(1 + width, 1 + width, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(3, dtype=torch.float64))  # real and fake images, times asked
        self.register_buffer("transport", torch.zeros(width, width))

    def forward(self, inputs: PenaltyInputs) -> Tensor:
        """The penalty's size, before its weight; the features in the precision of the training."""
        return self.value(inputs)

    def value(self, inputs: PenaltyInputs) -> Tensor:
        if self.counts.is_meta:  # its cost is asked for
            features = self._of(inputs.fake)
            return (features - features.detach() @ self.transport).square().sum(dim=1).mean()
        if self.counts[0] < self.real_images:
            with torch.no_grad():
                self._observe(self.real, self._of(inputs.real), 1.0, 0)
        features = self._of(inputs.fake)
        forget = 0.5 ** (len(features) * distributed.world_size() / self.memory)
        self._observe(self.fake, features.detach(), forget, 1)
        if self.counts[:2].min() < WARM_UP * features.shape[1]:
            return features.sum() * 0
        if self.counts[2] % self.refresh == 0:
            self.transport.copy_(transport_map(covariance(self.real), covariance(self.fake)))
        self.counts[2] += 1
        real_mean, fake_mean = (mean(moments).to(features.dtype) for moments in (self.real, self.fake))
        target = real_mean + (features.detach() - fake_mean) @ self.transport
        return (features - target).square().sum(dim=1).mean()

    def _of(self, images: Tensor) -> Tensor:
        return self.features(images)[-1].float().mean(dim=(2, 3))  # (batch, width)

    def _observe(self, moments: Tensor, features: Tensor, forget: float, index: int) -> None:
        """Add a batch to what is known."""
        rows = torch.cat([torch.ones_like(features[:, :1]), features], dim=1).double()
        batch = rows.T @ rows
        distributed.average([batch])
        moments.mul_(forget).add_(batch)
        self.counts[index] += len(features) * distributed.world_size()


def mean(moments: Tensor) -> Tensor:
    """Of the features, (width,)."""
    return moments[0, 1:] / moments[0, 0]


def covariance(moments: Tensor) -> Tensor:
    """Of the features, (width, width)."""
    centre = mean(moments)
    return moments[1:, 1:] / moments[0, 0] - centre[:, None] * centre


def transport_map(real: Tensor, fake: Tensor, least: float = 1e-3) -> Tensor:
    """The matrix T with T C T = S that carries a Gaussian of covariance C, `fake`, to one of covariance S, `real`.

    least  share of the largest deviation under which a direction counts as having no more than that
    """
    values, vectors = torch.linalg.eigh(real)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    values, vectors = torch.linalg.eigh(root @ fake @ root)
    deviations = values.clamp(min=0).sqrt()
    inverse = (vectors / (deviations + least * deviations.max())) @ vectors.T
    return root @ inverse @ root
