"""Feature spaces beside Inception's, in which images are compared."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from foodgen.core.networks import FeatureClassifier, FeatureMaps
from foodgen.core.registry import spaces
from foodgen.core.types import FeatureSpace


def hash_of(network: nn.Module) -> str:
    """A hash of all weights."""
    whole = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        whole.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return whole.hexdigest()[:16]


@spaces.add_to_registry(name="pixels")
class Pixels(FeatureSpace):
    """The pixels themselves, in [0, 1]: distances are of colours at each position."""

    identity = "pixels"
    cached = False  # they are computed as quickly as read

    def __init__(self, image_size: int) -> None:
        self.width = 3 * image_size**2

    def __call__(self, images: Tensor) -> Tensor:
        return images.cpu().flatten(1).float() / 255


@spaces.add_to_registry(name="classifier")
class ClassifierSpace(FeatureSpace):
    """Features and logits of a classifier trained on the training photos alone (`configs/classifier.yaml`).

    path             its run, checkpoint or exported folder
    load_pretrained  loads the model of such a folder
    image_size       of the images

    Raises ValueError if it is no classifier of clean images of this size.
    """

    saw_training = True

    def __init__(
        self, path: str, load_pretrained: Callable[[str], nn.Module], image_size: int, device: torch.device
    ) -> None:
        network = load_pretrained(path)
        if not isinstance(network, FeatureClassifier):
            raise ValueError(f"path: {path} is no classifier of clean images; configs/classifier.yaml trains one")
        size = network.noise_shape[-1]
        if size != image_size:
            raise ValueError(f"path: {path} was trained on images of {size} pixels a side, these have {image_size}")
        self.network, self.device = network, device
        self.width, self.identity = network.feature_width, hash_of(network)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return self.network.features(images.to(self.device).float() / 127.5 - 1).float().cpu()

    def classifier(self) -> Callable[[Tensor], Tensor]:
        return self._classify

    @torch.no_grad()
    def _classify(self, features: Tensor) -> Tensor:
        return self.network.classify(features.to(self.device)).cpu()


@spaces.add_to_registry(name="pretrained")
class Pretrained(FeatureSpace):
    """Spatial mean of the last feature map of a pretrained network, such as EfficientNet-Lite.

    features  the network
    """

    def __init__(self, features: FeatureMaps, device: torch.device) -> None:
        self.network, self.device = features.to(device).eval(), device
        self.width = features.widths[-1]
        self.identity = f"{hash_of(features)}-{features.resolution}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        maps: list[Tensor] = self.network(images.to(self.device).float() / 127.5 - 1)
        return maps[-1].float().mean(dim=(2, 3)).cpu()
