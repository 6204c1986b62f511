"""Latents in place of pixels: encoded once, at unit variance, and back to pixels."""

import pytest
import torch
from torch import nn

from foodgen.core.errors import ConfigError
from foodgen.core.networks import Autoencoder
from foodgen.core.randomness import seed_step
from foodgen.data.augment import Flip, NoAugmentation
from foodgen.data.folder import Folder
from foodgen.data.latents import DiffusersVAE, Latent
from foodgen.data.synthetic import draw_set

CPU = torch.device("cpu")


class Halves(Autoencoder):
    """Latents are 2x2 means, stretched and shifted; a known deviation around them."""

    noise_shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.25))

    def encode(self, images):
        mean = nn.functional.avg_pool2d(images, 2) * 3 + 1
        return mean, torch.full_like(mean, -6.0)

    def decode(self, latents, labels=None):
        return nn.functional.interpolate((latents - 1) / 3, scale_factor=2.0)

    def normalise(self, latents):
        return (latents - 1) * self.scale

    def denormalise(self, latents):
        return latents / self.scale + 1


@pytest.fixture
def folder(tmp_path):
    draw_set(tmp_path / "train", 16, 3)
    return Folder(tmp_path / "train", 16)


@pytest.fixture
def codec():
    return Latent("there", 16, lambda path: Halves())


def test_there_and_back(codec):
    seed_step(0, 1)
    coarse = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    pixels = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    latents = codec.encode(pixels)
    assert latents.shape == (5, *codec.shape)
    assert (codec.decode(latents).int() - pixels.int()).abs().float().mean() < 2.5  # the deviation is 0.05 of a latent


def test_the_set_is_encoded_once_in_all_variants(codec, folder, monkeypatch):
    images = codec.training_set(folder, Flip(), CPU, batch_size=5)
    assert len(images) == 2 * len(folder)
    assert images.classes == folder.classes
    assert list(images.labels) == [*folder.labels] * 2
    for index in (0, 7, 23):
        pixels, label = folder[index]
        straight, flipped = (images.batch([index + offset])[0] for offset in (0, len(folder)))
        torch.testing.assert_close(straight.float(), codec.moments(pixels[None]), rtol=1e-3, atol=2e-3)
        torch.testing.assert_close(flipped.float(), codec.moments(pixels[None].flip(-1)), rtol=1e-3, atol=2e-3)
        assert images[index][1] == label
    seed_step(0, 1)
    made = codec.training_input(images.batch(range(4))[0], Flip())
    assert made.shape == (4, 3, 8, 8)
    mean = codec.decoder.normalise(images.batch(range(4))[0].float()[:, :3])
    assert (made - mean).std().item() == pytest.approx(0.25 * 0.0498, rel=0.1)  # exp(-3) times the scale
    monkeypatch.setattr(codec, "moments", lambda *_: pytest.fail("encoded again"))
    again = codec.training_set(folder, Flip(), CPU, batch_size=5)
    assert torch.equal(again.batch(range(48))[0], images.batch(range(48))[0])


def test_another_autoencoder_has_another_set(codec, folder):
    first = codec.training_set(folder, NoAugmentation(), CPU, batch_size=8)
    codec.decoder.scale += 1
    second = codec.training_set(folder, NoAugmentation(), CPU, batch_size=8)
    assert first.folder != second.folder
    assert len(second) == len(folder)


def test_a_death_while_encoding_leaves_no_set(codec, folder, monkeypatch):
    original, seen = codec.moments, []

    def dies(images):
        seen.append(images)
        if len(seen) > 2:
            raise OSError("No space left on device")
        return original(images)

    monkeypatch.setattr(codec, "moments", dies)
    with pytest.raises(Exception, match=r"cannot be written.*No space"):
        codec.training_set(folder, Flip(), CPU, batch_size=5)
    monkeypatch.setattr(codec, "moments", original)
    assert len(codec.training_set(folder, Flip(), CPU, batch_size=5)) == 48


def test_something_else_is_no_autoencoder():
    with pytest.raises(ConfigError, match=r"codec\.path: runs/edm holds a Linear"):
        Latent("runs/edm", 16, lambda path: nn.Linear(1, 1))


@pytest.fixture
def saved(tmp_path):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    model = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.5,
    )
    model.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_diffusers_autoencoder_from_a_folder(saved):
    from diffusers import AutoencoderKL

    codec, model = DiffusersVAE(str(saved), 16, CPU), AutoencoderKL.from_pretrained(saved)
    assert codec.shape == (4, 8, 8)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        mean = model.encode(pixels / 127.5 - 1).latent_dist.mean
        torch.testing.assert_close(codec.moments(pixels).chunk(2, dim=1)[0], mean)
        back = ((model.decode(mean).sample + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(codec.decode(mean * 0.5), back)


def test_what_diffusers_cannot_load_is_named(tmp_path, saved):
    with pytest.raises(ConfigError, match=r"codec\.path: .*nowhere cannot be loaded by diffusers"):
        DiffusersVAE(str(tmp_path / "nowhere"), 16, CPU)
    with pytest.raises(ConfigError, match="halves images 1 times, which 15 pixels are not"):
        DiffusersVAE(str(saved), 15, CPU)
