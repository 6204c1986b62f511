"""The GANs' networks against formulas, loops and linear algebra."""

import inspect
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from foodgen.core.randomness import seed_step
from foodgen.core.registry import build, models
from foodgen.core.types import Generator
from foodgen.layers.adversarial import ConditionalBatchNorm, StyleBatchNorm
from foodgen.layers.conditioning import ClassTable
from foodgen.layers.style import PixelNoise
from foodgen.models.sagan import PixelAttention
from foodgen.samplers.one_shot import OneShot

STYLE = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 64, "channel_max": 8}


LITE = {"name": "efficientnet_lite", "resolution": 64}
# name: small arguments of generator and discriminator for 32 pixels
PLAYERS = {
    "dcgan": ({"width": 4, "z_dim": 8}, {"width": 4}),
    "sngan": ({"width": 4, "z_dim": 8}, {"width": 4}),
    "sagan": ({"width": 8, "z_dim": 8, "attention_at": 16}, {"width": 8, "attention_at": 16}),
    "stylegan2": (STYLE, {"channel_base": 64, "channel_max": 8}),
    "stylegan": (
        {**STYLE, "layer": "adaptive_instance_norm", "skips": False},
        {"channel_base": 64, "channel_max": 8, "residual": False},
    ),
    "r3gan": ({"widths": [16, 16, 8, 8], "group": 8}, {"widths": [16, 16, 8, 8], "group": 8}),
    "projected_gan": ({"width": 4, "z_dim": 8}, {"width": 8, "features": LITE}),
    "projected_gan_slim": (
        {"widths": [8, 8, 4], "z_dim": 8, "w_dim": 8},
        {"width": 8, "pixel_width": 8, "features": LITE},
    ),
}


def players(name, classes=5, size=32):
    torch.manual_seed(0)
    generator, discriminator = PLAYERS[name]
    name = "stylegan2" if name == "stylegan" else name
    injected = {"channels": 3, "image_size": size, "classes": classes}
    return (
        build("model", {"name": name, **generator}, **injected),
        build("discriminator", {"name": f"{name}_discriminator", **discriminator}, **injected),
    )


def settled(generator, labels):
    """The generator in eval mode after some batches, so that its running statistics are those of its features."""
    for _ in range(30):
        generator(torch.randn(16, *generator.noise_shape), labels[torch.arange(16) % len(labels)])
    return generator.eval()


@pytest.mark.parametrize("name", PLAYERS)
def test_shapes_and_what_depends_on_what(name):
    generator, discriminator = players(name)
    assert isinstance(generator, Generator)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    for layer in generator.modules():  # conditional batch norm starts the same for all
        if isinstance(layer, ClassTable):
            nn.init.normal_(layer.table.weight)
        if isinstance(layer, StyleBatchNorm):
            nn.init.normal_(layer.gain.weight)
    settled(generator, labels)
    discriminator.eval()
    noise = torch.randn(6, *generator.noise_shape)
    with torch.no_grad():
        images = generator(noise, labels)
        assert images.shape == (6, 3, 32, 32)
        logits = discriminator(images, labels)
        assert logits.shape[0] == 6
        torch.testing.assert_close(generator(noise[2:4], labels[2:4]), images[2:4], atol=1e-5, rtol=1e-4)
        assert (generator(noise, labels.roll(1)) - images).abs().max() > 1e-4
        assert (generator(noise.roll(1, 0), labels) - images).abs().max() > 1e-4
        assert (discriminator(images, labels.roll(1)) - logits).abs().max() > 1e-4
        photos = torch.randn(2, 3, 32, 32)
        assert (discriminator(photos, labels[:2]) - discriminator(photos.flip(2), labels[:2])).abs().max() > 1e-4


@pytest.mark.parametrize("name", PLAYERS)
def test_without_classes_labels_mean_nothing(name):
    generator, discriminator = players(name, classes=0)
    generator.eval(), discriminator.eval()
    noise, labels = torch.randn(4, *generator.noise_shape), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        images = generator(noise, labels)
        assert torch.equal(generator(noise, None), images)
        assert torch.equal(discriminator(images, labels), discriminator(images, None))


@pytest.mark.parametrize("name", PLAYERS)
def test_a_missing_label_is_an_error(name):
    generator, _ = players(name)
    with pytest.raises(ValueError, match="needs a label"):
        generator(torch.randn(2, *generator.noise_shape), None)


@pytest.mark.parametrize("name", PLAYERS)
def test_every_weight_learns(name):
    generator, discriminator = players(name)
    labels = torch.arange(8) % 5
    for weight in (*generator.parameters(), *discriminator.parameters()):
        if weight.requires_grad and not weight.any():  # what starts as the zero map hides what stands before it
            nn.init.normal_(weight, 0.0, 0.1)
    discriminator(generator(torch.randn(8, *generator.noise_shape), labels), labels).sum().backward()
    for player in (generator, discriminator):
        idle = [
            key
            for key, weight in player.named_parameters()
            if weight.requires_grad and (weight.grad is None or not weight.grad.any())
        ]
        assert not idle


@pytest.mark.parametrize(
    ("node", "size", "expected"),
    [
        ({"name": "stylegan2", "channel_base": 32768}, 1024, 30_370_060),  # configuration F at FFHQ's size
        ({"name": "stylegan2_discriminator", "channel_base": 32768}, 1024, 29_012_513),
        ({"name": "r3gan"}, 64, pytest.approx(22.3e6, rel=0.01)),  # FFHQ at 64x64
    ],
)
def test_published_sizes(node, size, expected):
    key = "discriminator" if "discriminator" in node["name"] else "model"
    with torch.device("meta"):
        model = build(key, node, channels=3, image_size=size, classes=0)
    assert sum(weight.numel() for weight in model.parameters()) == expected


def test_every_model_says_its_arguments():
    for name, cls in models.items():
        for argument in inspect.signature(cls).parameters:
            assert re.search(rf"\b{argument}\b", cls.__doc__), (name, argument)


@pytest.mark.parametrize("name", ["dcgan", "sngan", "r3gan", "stylegan2"])
def test_a_size_that_does_not_halve_is_refused(name):
    with pytest.raises(ValueError, match="48"):
        build("model", {"name": name}, channels=3, image_size=48, classes=2)


@pytest.mark.parametrize(
    ("key", "node", "match"),
    [
        ("model", {"name": "stylegan2", "channel_base": 16}, r"channel_base: 16 is at least the image's size, 32"),
        ("discriminator", {"name": "stylegan2_discriminator", "channel_max": 0}, "channel_max: 0"),
        ("model", {"name": "stylegan2", "mapping_layers": 0}, "mapping_layers: 0"),
        ("model", {"name": "r3gan", "widths": [8, 8, 8, 8], "group": 0}, "group: 0"),
        ("model", {"name": "r3gan", "widths": [8, 8]}, "2 are given, one for each of 4 sizes"),
        ("model", {"name": "dcgan", "width": 0}, "width: 0"),
        ("model", {"name": "sngan", "z_dim": 0}, "z_dim: 0"),
        ("discriminator", {"name": "sagan_discriminator", "attention_at": 2}, "attention_at"),
        ("discriminator", {"name": "projected_gan_discriminator", "features": {"name": "dcgan"}}, "features"),
        ("model", {"name": "projected_gan", "image_size": 16}, "image_size: 16"),
    ],
)
def test_senseless_numbers_are_named(key, node, match):
    with pytest.raises(ValueError, match=match):
        build(key, node, channels=3, image_size=32, classes=2)


@pytest.mark.parametrize("name", ["stylegan2", "stylegan", "projected_gan"])
def test_every_image_has_its_own_pixel_noise(name):
    generator, _ = players(name)
    noise, labels = torch.randn(1, *generator.noise_shape).repeat(2, 1), torch.zeros(2, dtype=torch.long)
    noise[1, 8:] = torch.randn(noise.shape[1] - 8)  # another image's pixels, the same style
    settled(generator, labels)
    with torch.no_grad():
        quiet = generator(noise, labels)
        torch.testing.assert_close(quiet[0], quiet[1])
        for layer in generator.modules():
            if isinstance(layer, PixelNoise):
                nn.init.ones_(layer.strength)
        loud = generator(noise, labels)
    assert (loud[0] - loud[1]).abs().mean() > 0.01
    assert torch.equal(generator(noise, labels), loud)


def test_truncation_goes_from_the_mean_style_to_the_full_one():
    generator = players("stylegan2")[0]
    labels = torch.zeros(4, dtype=torch.long)
    settled(generator, labels)
    noise = torch.randn(4, *generator.noise_shape)
    full, none, half = (OneShot(truncation=share)(generator, lambda: noise, labels) for share in (1.0, 0.0, 0.5))
    torch.testing.assert_close(full, generator(noise, labels))
    torch.testing.assert_close(none, none[:1].expand_as(none))
    assert none.std() > 0
    assert 0 < (half - half.mean(dim=0)).std() < (full - full.mean(dim=0)).std()


def test_truncation_without_a_style_shrinks_the_noise():
    generator = players("dcgan")[0].eval()
    noise, labels = torch.randn(2, 8), torch.tensor([0, 1])
    torch.testing.assert_close(OneShot(truncation=0.25)(generator, lambda: noise, labels), generator(noise / 4, labels))


def test_the_mean_style_follows_the_styles():
    generator = players("stylegan2")[0]
    labels = torch.zeros(64, dtype=torch.long)
    for _ in range(1500):
        with torch.no_grad():
            generator.latent(torch.randn(64, 8), labels)
    generator.eval()
    expected = generator.latent(torch.randn(4000, 8), torch.zeros(4000, dtype=torch.long))[:, 0].mean(dim=0)
    torch.testing.assert_close(generator.style_mean, expected, atol=0.1, rtol=0.1)


def test_style_mixing_switches_once_and_only_in_training():
    generator = players("stylegan2")[0]
    noise, labels = torch.randn(400, 8), torch.zeros(400, dtype=torch.long)
    seed_step(0, 1)
    with torch.no_grad():
        mixed = generator.latent(noise, labels)
        pure = generator.eval().latent(noise, labels)
    own = (mixed == pure).all(dim=2)
    assert own[:, 0].all()
    assert (own.long().diff(dim=1) <= 0).all()
    assert own.all(dim=1).float().mean().item() == pytest.approx(0.1, abs=0.05)
    crossings = own.sum(dim=1)[~own.all(dim=1)]
    assert crossings.unique().tolist() == list(range(1, own.shape[1]))
    torch.testing.assert_close(pure[:, :1].expand_as(pure), pure)


@pytest.mark.parametrize("name", ["sngan", "sagan", "projected_gan"])
def test_spectral_norm_is_the_largest_singular_value(name):
    _, discriminator = players(name)
    checked = 0
    for _ in range(60):  # each look is one power iteration
        discriminator.train()
        with torch.no_grad():
            discriminator(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    for layer in discriminator.modules():
        if nn.utils.parametrize.is_parametrized(layer):
            original = layer.parametrizations.weight.original.flatten(1)
            expected = original / torch.linalg.svdvals(original)[0]
            torch.testing.assert_close(layer.weight.flatten(1), expected, atol=2e-3, rtol=2e-2)
            checked += 1
    assert checked > 3


def test_sagan_normalises_both_players_but_not_the_gains():
    for player in players("sagan"):
        for layer in player.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert nn.utils.parametrize.is_parametrized(layer)
            if isinstance(layer, ConditionalBatchNorm):
                assert not nn.utils.parametrize.is_parametrized(layer.gain.table)


def test_sagans_attention_is_softmax_attention_and_starts_as_the_identity():
    layer = PixelAttention(16)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(layer(x), x)
    nn.init.ones_(layer.strength)
    query, key, value = layer.query(x), functional.max_pool2d(layer.key(x), 2), functional.max_pool2d(layer.value(x), 2)
    shares = torch.einsum("nchw,ncij->nhwij", query, key).flatten(3).softmax(dim=3)
    seen = torch.einsum("nhwp,ncp->nchw", shares, value.flatten(2))
    torch.testing.assert_close(layer(x), x + layer.out(seen), atol=1e-5, rtol=1e-4)


def test_r3gans_blocks_start_as_the_identity():
    generator, _ = players("r3gan")
    block = generator.layers[0]
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x)
