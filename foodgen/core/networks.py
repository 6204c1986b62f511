"""Interfaces of networks: what trainings, samplers and metrics may ask of a denoiser, a classifier, an autoencoder."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from foodgen.core.types import Generator, Prediction


class Process(nn.Module, ABC):
    """A Gaussian path q(x_t | x_0) = N(alpha(t) x_0, sigma(t)^2) from an image (sigma 0) to noise.

    Times are float, (batch,); images (batch, channels, size, size). "Noise level" is sigma(t) / alpha(t).
    """

    num_timesteps: int | None = None  # of a discrete process

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The image's factor in x_t, of t's shape."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The standard deviation of the noise in x_t, of t's shape."""

    @abstractmethod
    def sample_t(self, uniform: Tensor) -> Tensor:
        """Training times, one for each number of `uniform`, (batch,) in [0, 1)."""

    @abstractmethod
    def timesteps(self, steps: int) -> Tensor:
        """Sampling times, (steps + 1,) in float64, from noise down to the image. Raises ValueError."""

    @abstractmethod
    def vlb_timesteps(self, steps: int) -> Tensor:
        """Times whose terms the variational bound sums up, (steps + 1,) in float64. Raises ValueError."""

    @abstractmethod
    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """The time at which the noise level is `sigma`, or the nearest that the process has."""

    @abstractmethod
    def q_sample(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t of an image and noise."""

    @abstractmethod
    def eps(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The noise in x_t if its image is `x0`."""

    @abstractmethod
    def posterior(self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(x_s | x_t, x_0) for s below t."""

    @abstractmethod
    def added_variance(self, t: Tensor, s: Tensor) -> Tensor:
        """The variance of the noise that the step from s to t adds, (batch, 1, 1, 1)."""

    @abstractmethod
    def log_variance(self, v: Tensor | None, t: Tensor, s: Tensor) -> Tensor:
        """ln of the variance of p(x_s | x_t), of v's shape or (batch, 1, 1, 1); see `Prediction.v`."""


class Denoiser(nn.Module, ABC):
    """Predicts the image and the noise that x_t is made of.

    process      the path
    noise_shape  of one x_t
    null_label   the label that stands for no class
    uncertainty  noise level to ln of the expected loss, None if it is not learnt
    alignment    channels of the projected features, 0 for none
    """

    process: Process
    noise_shape: tuple[int, ...]
    null_label: int
    uncertainty: nn.Module | None
    alignment: int

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Prediction:
        """x: x_t, (batch, channels, size, size); t: (batch,); labels: (batch,), or None for no class."""

    @abstractmethod
    def outputs(self, x: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The network's output F, and v if the variance is learnt."""

    @abstractmethod
    def outputs_and_features(self, x: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """The network's output F, and projected features, (batch, alignment, side, side)."""

    @abstractmethod
    def prediction(self, x: Tensor, t: Tensor, output: Tensor, v: Tensor | None = None) -> Prediction:
        """The prediction of an output F at x_t."""

    @abstractmethod
    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The output F that would be right."""

    @abstractmethod
    def log_loss(self, t: Tensor) -> Tensor:
        """ln of the expected squared error at t, (batch,); 0 without uncertainty."""

    @abstractmethod
    def vlb_term(self, x0: Tensor, x: Tensor, t: Tensor, s: Tensor, prediction: Prediction) -> Tensor:
        """One term of the variational bound, (batch,) bits per dimension."""

    @abstractmethod
    def prior_term(self, x0: Tensor, t: Tensor) -> Tensor:
        """The bound's term of the first time, (batch,) bits per dimension."""


class Classifier(nn.Module, ABC):
    """Predicts the class of an image. `noise_shape` is one image's, (channels, size, size)."""

    noise_shape: tuple[int, ...]

    @abstractmethod
    def training_logits(self, images: Tensor) -> Tensor:
        """Logits, (batch, classes), of images corrupted as training corrupts them, if it does."""


class FeatureClassifier(Classifier):
    """A classifier of clean images, `head(features(images))`.

    feature_width  of the features
    """

    feature_width: int

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """(batch, feature_width) of images, (batch, channels, size, size), about [-1, 1]."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Logits, (batch, classes)."""


class NoiseLevelClassifier(Classifier):
    """A classifier of x_t, which can guide a sampler."""

    process: Process

    @abstractmethod
    def log_probability(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """ln p(label | x_t), (batch,)."""


class Autoencoder(nn.Module, ABC):
    """Images to normal distributions of latents, and latents to images.

    noise_shape  one latent's
    conditional  whether decoding follows the class
    """

    noise_shape: tuple[int, ...]
    conditional = False

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents, (batch, *noise_shape) each, of images about [-1, 1]."""

    @abstractmethod
    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images of latents as `encode` has them, and their class numbers, (batch,), where it listens to them."""

    @abstractmethod
    def normalise(self, latents: Tensor) -> Tensor:
        """Latents at zero mean and unit variance."""

    @abstractmethod
    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""


class SteerableGenerator(Generator):
    """A generator whose feature maps another network can add to.

    z_dim   numbers of a latent
    widths  channels of the maps of 4, 8, ... pixels
    """

    z_dim: int
    widths: Sequence[int]

    @abstractmethod
    def synthesis(
        self, latent: Tensor, labels: Tensor | None, added: Sequence[Tensor] = (), noise: Tensor | None = None
    ) -> Tensor:
        """Images of latents, (batch, z_dim).

        added  to the maps of 4, 8, ... pixels, (batch, width, size, size) each
        noise  of the pixels, (batch, *noise_shape); none if not given
        """


class Upsampler(Autoencoder):
    """Images averaged down, which are its latents, to large ones; `image_size` is their height and width."""

    image_size: int
    conditional = True


class TrainableAutoencoder(Autoencoder):
    """An autoencoder that `objectives/autoencoding.py` trains. `last` is the layer that makes the image."""

    last: nn.Conv2d

    @abstractmethod
    def update_statistics(self, latents: Tensor) -> None:
        """Move the running mean and standard deviation of the latents towards a batch's."""


class FeatureMaps(nn.Module, ABC):
    """Images to feature maps, the finest first.

    widths      channels of each map
    resolution  that images are resized to
    """

    widths: list[int]
    resolution: int

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """images: (batch, 3, height, width) about [-1, 1]."""


class HasFeatures(nn.Module, ABC):
    """A denoiser's network that also returns features of its middle, to be aligned with other features.

    feature_channels  of the features
    """

    feature_channels: int

    @abstractmethod
    def forward(
        self, x: Tensor, time: Tensor, labels: Tensor | None = None, return_features: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The image, and if asked for features, (batch, feature_channels, side, side)."""


class NormalizedWeights(nn.Module, ABC):
    """A layer whose stored weights every optimizer step normalises first (EDM2's forced weight normalization)."""

    @abstractmethod
    def normalize_weights(self) -> None:
        """Scale the weights in place."""


class Guidance(ABC):
    """The prediction that a sampler follows at x_t."""

    def check(self, model: Denoiser) -> None:
        """Raise ValueError if this model cannot be guided so."""
        return None

    @abstractmethod
    def __call__(self, model: Denoiser, x: Tensor, t: Tensor, labels: Tensor | None) -> Prediction:
        """x: x_t, (batch, channels, size, size); t: (batch,); labels: (batch,), or None for no class."""
