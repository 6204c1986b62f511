"""Projected GANs, the full and the slim one: feature network, norms, heads."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from foodgen.layers.adversarial import StyleBatchNorm
from foodgen.samplers.one_shot import OneShot
from tests.models.test_gans import players, settled


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


def test_mixing_is_the_same_for_the_same_seed():
    one, other = players("projected_gan")[1], players("projected_gan")[1]
    for a, b in zip(one.mixing.parameters(), other.mixing.parameters(), strict=True):
        assert torch.equal(a, b)


def test_batch_norm_by_style_is_the_formula():
    norm = StyleBatchNorm(3, style=4)
    nn.init.normal_(norm.gain.weight), nn.init.normal_(norm.shift.weight)
    x, style = torch.randn(6, 3, 5, 5), torch.randn(6, 4)
    plain = functional.batch_norm(x, None, None, training=True)
    expected = plain * norm.gain(style)[:, :, None, None] + norm.shift(style)[:, :, None, None]
    torch.testing.assert_close(norm(x, style), expected)
    torch.testing.assert_close(StyleBatchNorm(3, style=4)(x, style), plain)  # at first no style matters


def test_a_slim_generator_begins_without_a_pattern_of_single_pixels():
    generator, _ = players("projected_gan_slim")
    images = generator(torch.randn(4, *generator.noise_shape), torch.arange(4))
    blocks = functional.interpolate(functional.avg_pool2d(images, 2), scale_factor=2.0)
    torch.testing.assert_close(images, blocks)


@pytest.mark.parametrize("name", ["projected_gan", "projected_gan_slim"])
def test_truncation_moves_a_projected_gans_images(name):
    generator, _ = players(name)
    labels, noise = torch.arange(4), torch.randn(4, *generator.noise_shape)
    settled(generator, labels)
    images = [OneShot(truncation)(generator, lambda: noise, labels) for truncation in (1.0, 0.5, 0.0)]
    far = [(image - images[2]).abs().mean().item() for image in images]
    assert far[0] > far[1] > far[2] == 0


def test_the_slim_discriminators_pixel_head_sees_what_its_features_miss():
    _, discriminator = players("projected_gan_slim")
    discriminator.eval()
    labels, images = torch.arange(2), torch.randn(2, 3, 32, 32)
    logits = discriminator(images, labels)
    discriminator.features.forward = lambda x: [
        torch.zeros(2, w, 16 // 2**k, 16 // 2**k) for k, w in enumerate([24, 40, 112, 320])
    ]
    blind = [discriminator(x, labels) for x in (images, images.flip(3))]
    assert blind[0].shape == logits.shape
    assert not torch.equal(*blind)
    discriminator.pixels = None
    assert torch.equal(discriminator(images, labels), discriminator(images.flip(3), labels))


def test_equal_heads_weigh_the_same():
    _, discriminator = players("projected_gan_slim")
    discriminator.eval()
    labels, images = torch.arange(2), torch.randn(2, 3, 32, 32)
    plain = discriminator(images, labels)
    discriminator.equal = True
    equal = discriminator(images, labels)
    maps = discriminator.mixing(discriminator.features(images))
    heads = [head(x, labels) for head, x in zip(discriminator.heads, maps, strict=True)]
    means = torch.stack([own.mean(dim=1) for own in [*heads, discriminator.pixels(images, labels)]])
    assert {own.shape[1] for own in heads} == {1, 25}
    torch.testing.assert_close(equal.mean(dim=1), means.mean(dim=0))
    assert plain.shape[1] == sum(own.shape[1] for own in heads) + 25
