"""Latents of a trained autoencoder in place of pixels, encoded once and kept beside the images."""

import hashlib
import json
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
from foodgen.core.networks import Autoencoder
from foodgen.core.randomness import normal_like
from foodgen.core.registry import codecs
from foodgen.core.types import Augment, Images
from foodgen.data.codecs import RGB

FORMAT = 1


@codecs.add_to_registry(name="latent")
class Latent:
    """What the model sees are latents of an autoencoder, at zero mean and unit variance.

    path             the autoencoder's checkpoint, exported folder, or run's folder
    image_size       height and width of the images
    load_pretrained  loads the model of such a folder

    Raises ConfigError if it is no autoencoder.
    """

    def __init__(self, path: str, image_size: int, load_pretrained: Callable[[str], nn.Module]) -> None:
        autoencoder = load_pretrained(path)
        if not isinstance(autoencoder, Autoencoder):
            raise ConfigError(f"codec.path: {path} holds a {type(autoencoder).__name__}, not an autoencoder")
        self._use(autoencoder, image_size)

    def _use(self, autoencoder: Autoencoder, image_size: int) -> None:
        self.decoder, self.pixels = autoencoder, RGB(image_size)
        self.shape: tuple[int, ...] = tuple(autoencoder.noise_shape)

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
            model = AutoencoderKL.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"codec.path: {path} cannot be loaded by diffusers ({error})") from None
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
        if distributed.is_main() and not (self.folder / "done.json").exists():
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

    def _make(
        self,
        images: Images,
        codec: Latent,
        variants: Sequence[Callable[[Tensor], Tensor]],
        device: torch.device,
        batch_size: int,
    ) -> None:
        temporary = self.folder.with_name(f"{self.folder.name}.making")
        channels, *sides = codec.shape
        try:
            with FileLock(self.folder.with_name(f".{self.folder.name}.lock")):
                if (self.folder / "done.json").exists():  # another run has made it meanwhile
                    return
                shutil.rmtree(temporary, ignore_errors=True)
                shutil.rmtree(self.folder, ignore_errors=True)
                temporary.mkdir()
                shape = (len(self), 2 * channels, *sides)
                array = np.lib.format.open_memmap(temporary / "moments.npy", mode="w+", dtype=np.float16, shape=shape)
                starts = range(0, len(images), batch_size)
                for start in tqdm(starts, desc=f"encoding {images.listing.folder}", unit="batch", disable=None):
                    chunk = range(start, min(start + batch_size, len(images)))
                    pixels = images.batch(chunk)[0].to(device)
                    for index, variant in enumerate(variants):
                        first = index * len(images) + start
                        array[first : first + len(chunk)] = codec.moments(variant(pixels)).half().cpu().numpy()
                array.flush()
                (temporary / "done.json").write_text(json.dumps({"images": len(images), "variants": len(variants)}))
                temporary.replace(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise DataError(f"{self.folder}: cannot be written ({error})") from None
