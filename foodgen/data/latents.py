"""Latents of a trained autoencoder in place of pixels, encoded once and kept beside the images."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from tqdm import tqdm

from foodgen.core import distributed
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.files import new_array
from foodgen.core.networks import Autoencoder
from foodgen.core.randomness import normal_like
from foodgen.core.registry import codecs
from foodgen.core.types import Augment, Images
from foodgen.data.codecs import RGB

FORMAT = 1
log = logging.getLogger("foodgen")


@codecs.add_to_registry(name="latent")
class Latent:
    """What the model sees are latents of an autoencoder, at zero mean and unit variance.

    path             the autoencoder's checkpoint, exported folder, or run's folder
    image_size       height and width of the images
    load_pretrained  loads the model of such a folder

    Raises ConfigError if it is no autoencoder, or one of images of another size.
    """

    identity: str | None

    def __init__(self, path: str, image_size: int, load_pretrained: Callable[[str], nn.Module]) -> None:
        autoencoder = load_pretrained(path)
        if not isinstance(autoencoder, Autoencoder):
            raise ConfigError(f"codec.path: {path} holds a {type(autoencoder).__name__}, not an autoencoder")
        self._use(autoencoder, image_size)
        self._try(path, image_size)

    def _use(self, autoencoder: Autoencoder, image_size: int) -> None:
        self.decoder, self.pixels = autoencoder, RGB(image_size)
        self.shape: tuple[int, ...] = tuple(autoencoder.noise_shape)
        self.identity = digest_of(autoencoder)

    def _try(self, path: str, image_size: int) -> None:
        """Raise ConfigError unless an image of this size becomes a latent of the autoencoder's own shape."""
        channels, *sides = self.shape
        device = next(iter(self.decoder.state_dict().values())).device
        image = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8, device=device)
        try:
            found = [*self.moments(image).shape[1:]]
        except (RuntimeError, ValueError):
            found = []
        if found != [2 * channels, *sides]:
            raise ConfigError(
                f"codec.path: {path} makes latents of {sides[-1]} pixels a side of the images that it was trained on; "
                f"those of data.image_size={image_size} are of another size"
            )

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """uint8 pixels to mean and log variance of their latents, (batch, 2 * channels, side, side)."""
        return torch.cat(self.decoder.encode(self.pixels.encode(images)), dim=1)

    def sample(self, moments: Tensor) -> Tensor:
        """Latents sampled with these moments, (batch, *shape), at unit variance."""
        mean, log_variance = moments.float().chunk(2, dim=1)
        return self.decoder.normalise(mean + (0.5 * log_variance).exp() * normal_like(mean))

    def encode(self, images: Tensor) -> Tensor:
        """uint8 pixels to latents."""
        return self.sample(self.moments(images))

    @torch.no_grad()
    def decode(self, encoded: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents to uint8 pixels."""
        return self.pixels.decode(self.decoder.decode(self.decoder.denormalise(encoded.float()), labels))

    def training_set(self, images: Images, augment: Augment, device: torch.device, batch_size: int) -> Images:
        """The moments of all images, each under all of its augmentations."""
        return Moments(images, self, augment.variants, device, batch_size)

    def training_input(self, batch: Tensor, augment: Augment) -> Tensor:
        """A batch of moments, augmented already, to latents."""
        return self.sample(batch)


def digest_of(network: nn.Module) -> str | None:
    """A hash of all weights in half precision: a checkpoint's average and what is exported of it have the same.

    None for a network without numbers, on the device meta.
    """
    if any(weight.is_meta for weight in network.parameters()):
        return None
    whole = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        rounded = tensor.detach().bfloat16().float() if tensor.is_floating_point() else tensor.detach()
        whole.update(name.encode() + rounded.cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


@codecs.add_to_registry(name="diffusers_vae")
class DiffusersVAE(Latent):
    """Latents of an AutoencoderKL of diffusers, scaled as its configuration says.

    path        its folder, or its name on the hub
    image_size  height and width of the images

    Raises ConfigError if diffusers is missing or cannot load it.
    """

    def __init__(self, path: str, image_size: int, device: torch.device) -> None:
        try:
            from diffusers import AutoencoderKL
        except ImportError:
            raise ConfigError("codec: diffusers_vae wants the package diffusers: pip install diffusers") from None
        try:
            # safetensors alone: other files of weights are pickles, in which code can hide
            model, found = AutoencoderKL.from_pretrained(path, use_safetensors=True, output_loading_info=True)
        except Exception as error:  # whatever diffusers raises for what is missing, damaged, or of another model
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"codec.path: {path} cannot be loaded by diffusers ({reason})") from None
        if lacking := [*found["missing_keys"], *found["mismatched_keys"]]:
            raise ConfigError(f"codec.path: {path} is no whole AutoencoderKL; it lacks {lacking[0]}")
        halvings = len(model.config.block_out_channels) - 1
        if image_size % 2**halvings:
            raise ConfigError(f"codec.path: {path} halves images {halvings} times, which {image_size} pixels are not")
        self._use(_Diffusers(model.eval().requires_grad_(False).to(device), image_size >> halvings), image_size)


class _Diffusers(Autoencoder):
    """AutoencoderKL of diffusers as an autoencoder of ours."""

    def __init__(self, model: Any, side: int) -> None:
        super().__init__()
        self.model, settings = model, model.config
        self.noise_shape = (int(settings.latent_channels), side, side)
        self.scale, self.shift = float(settings.scaling_factor), float(settings.shift_factor or 0.0)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        distribution = self.model.encode(images).latent_dist
        return distribution.mean, distribution.logvar

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = self.model.decode(latents).sample
        return images

    def normalise(self, latents: Tensor) -> Tensor:
        return (latents - self.shift) * self.scale

    def denormalise(self, latents: Tensor) -> Tensor:
        return latents / self.scale + self.shift


class Moments:
    """Moments of all images' latents, from <folder>.latents-<key>/, which is made on first use.

    images      the pixels, of class folders
    codec       encodes them
    variants    what is encoded of an image: itself, and whatever augmentation makes of it
    device      to encode on
    batch_size  images encoded at a time

    The key follows from the images' listing, the autoencoder's weights and the number of variants.
    """

    def __init__(
        self,
        images: Images,
        codec: Latent,
        variants: Sequence[Callable[[Tensor], Tensor]],
        device: torch.device,
        batch_size: int,
    ) -> None:
        self.classes, self.listing = images.classes, images.listing
        self.labels: Sequence[int] = [*images.labels] * len(variants)
        key = hashlib.sha256(f"{FORMAT}-{images.listing.digest()}-{len(images)}-{len(variants)}".encode())
        for name, tensor in codec.decoder.state_dict().items():
            key.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        folder = Path(images.listing.folder)
        self.folder = folder.with_name(f"{folder.name}.latents-{key.hexdigest()[:12]}")
        self.shape = (len(self), 2 * codec.shape[0], *codec.shape[1:])
        if distributed.is_main() and not self._is_whole():
            self._make(images, codec, variants, device, batch_size)
        distributed.barrier()
        self.array = np.load(self.folder / "moments.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.array[index].copy()), self.labels[index]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Moments, float16 (batch, 2 * channels, side, side), and labels."""
        labels = torch.tensor([self.labels[index] for index in indices])
        return torch.from_numpy(self.array[np.asarray(indices)]), labels

    def _is_whole(self) -> bool:
        """Whether the folder holds all moments, undamaged. Those of earlier versions have no hash."""
        if not (self.folder / "done.json").is_file():
            return False
        path = self.folder / "moments.npy"
        try:
            digest = json.loads((self.folder / "done.json").read_text()).get("sha256")
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            whole = array.shape == self.shape and array.dtype == np.float16 and digest in (None, _hash(path))
        except (OSError, ValueError, AttributeError, EOFError):
            whole = False
        if not whole:
            log.warning("%s: is damaged; the images are encoded anew", self.folder)
        return whole

    def _make(
        self,
        images: Images,
        codec: Latent,
        variants: Sequence[Callable[[Tensor], Tensor]],
        device: torch.device,
        batch_size: int,
    ) -> None:
        temporary = self.folder.with_name(f"{self.folder.name}.making")
        try:
            with FileLock(self.folder.with_name(f".{self.folder.name}.lock")):
                if self._is_whole():  # another run has made it meanwhile
                    return
                shutil.rmtree(temporary, ignore_errors=True)
                shutil.rmtree(self.folder, ignore_errors=True)
                temporary.mkdir()
                path = temporary / "moments.npy"
                array = new_array(path, np.float16, self.shape)
                starts = range(0, len(images), batch_size)
                for start in tqdm(starts, desc=f"encoding {images.listing.folder}", unit="batch", disable=None):
                    chunk = range(start, min(start + batch_size, len(images)))
                    pixels = images.batch(chunk)[0].to(device)
                    for index, variant in enumerate(variants):
                        first = index * len(images) + start
                        array[first : first + len(chunk)] = codec.moments(variant(pixels)).half().cpu().numpy()
                array.flush()
                about = {"images": len(images), "variants": len(variants), "sha256": _hash(path)}
                (temporary / "done.json").write_text(json.dumps(about))
                temporary.replace(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise DataError(f"{self.folder}: cannot be written ({error})") from None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
