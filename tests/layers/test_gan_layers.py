"""The GANs' layers against torch's own, loops and closed forms."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from foodgen.layers.adversarial import ConditionalBatchNorm, DiscriminatorBlock, GeneratorBlock, ProjectionHead
from foodgen.layers.filter import Smooth
from foodgen.layers.style import (
    AdaptiveLayer,
    EqualConvolution,
    EqualLinear,
    MinibatchDeviation,
    ModulatedConvolution,
    noise_maps,
)


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


def test_planes_are_the_noise_in_squares():
    noise = torch.arange(2 * 20.0).reshape(2, 20)
    small, large = noise_maps(noise, [2, 4])
    assert small[1, 0].tolist() == [[20, 21], [22, 23]]
    assert torch.equal(large.flatten(1), noise[:, 4:])


def test_minibatch_deviation_is_that_of_its_groups():
    x = torch.randn(8, 3, 4, 4)
    plane = MinibatchDeviation(group=4)(x)[:, 3]
    for start in range(2):
        expected = x[start::2].std(dim=0, correction=0).mean()
        torch.testing.assert_close(plane[start::2], expected.expand(4, 4, 4))
    assert MinibatchDeviation(group=4)(x[:7])[:, 3].abs().max() < 1e-3  # seven images make groups of one


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
